"""Group g2_lpips: LPIPS of both backbones in both ranges, its layers, and the published heads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.metrics_parity.fixture import Case, Check, UnknownCase, exact, relative
from xdyna.evaluation.lpips import Lpips, load_lpips, lpips_clip
from xdyna.evaluation.pictures import as_pair

_TOLERANCE = 1e-5
_MANIFESTS = {"vgg": "lpips_vgg16", "alex": "lpips_alexnet"}
_VALUE = re.compile(r"(?P<what>lpips|per_layer)_(?P<range>unit|signed)(?P<double>_float64)?")


def check_lpips(case: Case) -> Iterator[Check]:
    """`lin_weights_<backbone>`: the heads, read back from their file; otherwise a pair of pictures."""
    backbone = _backbone(case)
    network = _network(case, backbone)
    if case.name.startswith("lin_weights"):
        for name in case.outputs:
            head = network.lins[int(name.removeprefix("lin"))]
            yield exact(name, head.numpy(), case.output(name))
        return
    generated, truth = case.input("gen_rgb"), case.input("gt_rgb")
    for name in case.outputs:
        match = _VALUE.fullmatch(name)
        if match is None:
            raise UnknownCase(f"output {name!r}")
        wanted = case.output(name)
        if match["double"]:
            wanted, got = float(wanted), _total(network, generated, truth, match["range"])
        elif match["what"] == "lpips":
            got = _total(network, generated, truth, match["range"])
        else:
            got = _layers(network, generated, truth, match["range"])
        yield relative(name, got, wanted, _TOLERANCE)


def _backbone(case: Case) -> str:
    for backbone in _MANIFESTS:
        if backbone in re.split(r"[_\W]+", case.name):
            return backbone
    raise UnknownCase("its name tells no backbone (vgg or alex)")


def _network(case: Case, backbone: str) -> Lpips:
    def build() -> Lpips:
        heads = case.sibling(f"lin_weights_{backbone}")
        keys = [key.strip() for key in str(heads.input("keys")).split(",")]
        state = {key: torch.from_numpy(heads.tensor(_key(heads, k)).copy()) for k, key in enumerate(keys)}
        trunk = case.network_file(_MANIFESTS[backbone])
        path = Path(trunk).with_name(f"{backbone}_heads.pth")
        torch.save({key: value.view(1, -1, 1, 1) for key, value in state.items()}, path)
        return load_lpips(backbone, trunk, path)

    return case.shared(backbone, build)


def _key(heads: Case, number: int) -> str:
    return str(heads.outputs[f"lin{number}"]["tensor"])


def _total(network: Lpips, generated: np.ndarray, truth: np.ndarray, value_range: str) -> float | None:
    return lpips_clip(network, [generated], [truth], value_range=value_range).mean


def _layers(network: Lpips, generated: np.ndarray, truth: np.ndarray, value_range: str) -> np.ndarray:
    pair = [torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in as_pair(generated, truth)]
    if value_range == "signed":
        pair = [2 * picture - 1 for picture in pair]
    return np.array([float(distances.mean()) for distances in network(*pair)])


GROUPS = {"g2_lpips": check_lpips}
