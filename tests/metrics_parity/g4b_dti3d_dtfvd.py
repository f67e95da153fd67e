"""g4b: the dynamic-texture network and DTFVD."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch

from tests.metrics_parity.fixture import (
    NETWORK,
    Case,
    Check,
    UnknownCase,
    absolute,
    exact,
    of_largest,
    relative,
)
from tests.metrics_parity.sampling import sampled
from xdyna.evaluation.frechet import frechet_distance
from xdyna.evaluation.networks.i3d import I3D
from xdyna.evaluation.networks.load import load_dti3d
from xdyna.evaluation.preparing import clip_for_dtfvd
from xdyna.evaluation.set_features import dtfvd_features

BILINEAR, DISTANCE = 1e-5, 5e-3


def check_dtfvd(case: Case) -> Iterator[Check]:
    """Two sets to their distance, short clips, or the dropped tail."""
    if "gen_rgb_NTHWC" in case.inputs:
        yield from _two_sets(case)
    elif "batch_size" in case.inputs:
        yield from _tail(case)
    elif "rgb_NTHWC" in case.inputs:
        yield from _short(case)
    else:
        raise UnknownCase(f"has the inputs {sorted(case.inputs)}")


def _network(case: Case, length: int) -> I3D:
    return case.shared(length, lambda: load_dti3d(case.network_file("dti3d_18"), length=length))


def _two_sets(case: Case) -> Iterator[Check]:
    sides = {side: case.input(f"{side}_rgb_NTHWC") for side in ("gen", "orig")}
    length = 16 if sides["gen"].shape[1] <= 16 else 32
    network = _network(case, length)
    rows = {
        side: dtfvd_features(clips, network, length=length, batch=2, short="reference")
        for side, clips in sides.items()
    }
    for name in case.outputs:
        wanted = case.output(name)
        if found := re.fullmatch(r"representation_(gen|orig)", name):
            yield of_largest(name, rows[found[1]], wanted)
        elif found := re.fullmatch(r"pre_sample_(gen|orig)", name):
            clips = [clip_for_dtfvd(clip, length=length, short="reference") for clip in sides[found[1]]]
            prepared = torch.stack(clips).transpose(1, 2).numpy()  # N,T,C,H,W
            yield absolute(name, sampled(case, name, prepared), wanted, BILINEAR)
        elif found := re.fullmatch(r"logits18_(gen|orig)", name):
            logits = network.logits(torch.from_numpy(rows[found[1]])[:, :, None])
            yield of_largest(name, logits.numpy(), wanted)
        elif name.startswith("dtfvd_"):
            # scipy's root agrees with the exact value far inside the tolerance; ours by root is compared in g8
            yield relative(name, frechet_distance(rows["gen"], rows["orig"]), wanted, DISTANCE)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _short(case: Case) -> Iterator[Check]:
    clips = case.input("rgb_NTHWC")
    fed = [clip_for_dtfvd(clip, short="reference").shape[1] for clip in clips]
    for name in case.outputs:
        wanted = case.output(name)
        if name == "frames_fed":
            yield exact(name, fed, [wanted] * len(fed))
        elif name == "frame_index_fed":
            numbered = (
                np.zeros((clips.shape[1], 2, 2, 3), np.uint8) + np.arange(clips.shape[1])[:, None, None, None]
            )
            shown = clip_for_dtfvd(numbered.astype(np.uint8), size=2, short="reference")
            yield exact(name, ((shown[0, :, 0, 0] + 1) * 127.5).round().int().tolist(), wanted)
        elif name == "representation":
            rows = dtfvd_features(clips, _network(case, 16), short="reference")
            yield of_largest(name, rows, wanted)
            if fed[0] == 16:  # then the right way to repeat is the same
                yield of_largest(
                    f"{name} (looped)", dtfvd_features(clips, _network(case, 16)), wanted, NETWORK
                )
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _tail(case: Case) -> Iterator[Check]:
    clips = _described(case)
    rows = dtfvd_features(
        clips, _network(case, 16), drop_tail=True, reference_batch=int(case.input("batch_size"))
    )
    yield exact("n_used", rows.shape[0], case.output("n_used"))
    yield exact("n without the quirk", dtfvd_features(clips, _network(case, 16)).shape[0], len(clips))


def _described(case: Case) -> np.ndarray:
    given = case.input("rgb_NTHWC")
    if isinstance(given, np.ndarray):
        return given
    found = re.fullmatch(r"first (\d+) of concat\(([^)]*)\)", given)
    if found is None:
        raise UnknownCase(f"describes its clips as {given!r}")
    parts = [part.strip().split("/") for part in found[2].split(",")]
    sets = [case.tensor(f"{name}/input/{side}_rgb_NTHWC") for name, side in parts]
    return np.concatenate(sets)[: int(found[1])]


GROUPS = {"g4b_dti3d_dtfvd": check_dtfvd}
