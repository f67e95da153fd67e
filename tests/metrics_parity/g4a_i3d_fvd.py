"""g4a: I3D on Kinetics-400 and FVD in DisCo's and in cd-FVD's convention."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tests.metrics_parity.fixture import (
    Case,
    Check,
    UnknownCase,
    absolute,
    exact,
    of_largest,
    relative,
    rule_clip,
)
from tests.metrics_parity.sampling import sampled
from xdyna.evaluation.frechet import frechet_distance
from xdyna.evaluation.networks.i3d import I3D
from xdyna.evaluation.networks.load import load_i3d
from xdyna.evaluation.preparing import clip_for_disco_fvd, clip_for_tats_fvd, windows_of
from xdyna.evaluation.set_features import disco_fvd_features, tats_fvd_features

PILLOW, BILINEAR, DISTANCE = 1e-3, 1e-5, 5e-3


def check_i3d(case: Case) -> Iterator[Check]:
    """The network on a clip by rule, DisCo's frames to FVD, or cd-FVD's preprocessing."""
    if "clip_rule" in case.inputs:
        yield from _network(case)
    elif "gen_rgb" in case.inputs:
        yield from _disco(case)
    elif "videos_rgb_BTHWC" in case.inputs:
        yield from _tats(case)
    else:
        raise UnknownCase(f"has the inputs {sorted(case.inputs)}")


def _disco_network(case: Case) -> I3D:
    return case.shared("disco", lambda: load_i3d(case.network_file("i3d_kinetics400")))


def _tats_network(case: Case) -> I3D:
    return case.shared(
        "tats", lambda: load_i3d(case.network_file("i3d_kinetics400"), eps=1e-5, pool_frames=2)
    )


def _network(case: Case) -> Iterator[Check]:
    frames = torch.from_numpy(rule_clip(case)).float() / 127.5 - 1
    clip = frames.permute(3, 0, 1, 2)[None]
    for name in case.outputs:
        wanted = case.output(name)
        if name == "avgpool_1x7x7_disco":
            got = _disco_network(case).pooled(clip)[0]
        elif name == "logits_disco_eps1e-3_pool1":
            got = _disco_network(case)(clip)
        elif name == "logits_cdfvd_eps1e-5_pool2":
            got = _tats_network(case)(clip)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")
        yield of_largest(name, got.numpy(), wanted)


def _disco(case: Case) -> Iterator[Check]:
    windows = {side: list(windows_of(case.input(f"{side}_rgb"))) for side in ("gen", "gt")}
    logits = {side: disco_fvd_features(clips, _disco_network(case)) for side, clips in windows.items()}
    prepared = clip_for_disco_fvd(case.input("gt_rgb")).numpy()
    for name in case.outputs:
        wanted = case.output(name)
        if name == "n_windows":
            yield exact(name, [len(clips) for clips in windows.values()], [wanted, wanted])
        elif name == "pre_gt_window0_sample":
            first = clip_for_disco_fvd(windows["gt"][0]).numpy()
            yield absolute(name, sampled(case, name, first), wanted, PILLOW)
        elif name in ("pre_gt_min", "pre_gt_max"):
            yield absolute(name, getattr(prepared, name[-3:])(), wanted, PILLOW)
        elif name in ("logits_gen", "logits_gt"):
            yield of_largest(name, logits[name.removeprefix("logits_")], wanted)
        elif name in ("fvd_disco_scipy", "fvd_exact_low_rank"):
            method = "sqrtm" if name == "fvd_disco_scipy" else "exact"
            got = frechet_distance(logits["gen"], logits["gt"], method=method)
            yield relative(name, got, wanted, DISTANCE)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _tats(case: Case) -> Iterator[Check]:
    clips = _stack(case)
    prepared = np.stack([clip_for_tats_fvd(clip).numpy() for clip in clips])
    for name in case.outputs:
        wanted = case.output(name)
        if name == "pre_sample":
            yield absolute(name, sampled(case, name, prepared), wanted, BILINEAR)
        elif name == "logits":
            yield of_largest(name, tats_fvd_features(clips, _tats_network(case)), wanted)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _stack(case: Case) -> np.ndarray:
    """The clips of a case, given as a tensor or as words on those of another one."""
    given = case.input("videos_rgb_BTHWC")
    if isinstance(given, np.ndarray):
        return given
    words = given.replace(",", " ").split()
    keys = [word for word in words if word in case.group.tensors]
    numbers = [int(word) for word in words if word.isdigit()]
    if not keys or len(numbers) != 1 or "first" not in words:
        raise UnknownCase(f"describes its clips as {given!r}")
    return np.stack([case.tensor(key)[: numbers[0]] for key in keys])


GROUPS = {"g4a_i3d_fvd": check_i3d}
