"""g3: pytorch-fid's InceptionV3 and FID."""

from __future__ import annotations

from collections.abc import Iterator

from tests.metrics_parity.fixture import Case, Check, UnknownCase, of_largest, relative
from xdyna.evaluation.frechet import frechet_distance
from xdyna.evaluation.networks.inception import InceptionV3
from xdyna.evaluation.networks.load import load_inception
from xdyna.evaluation.preparing import pictures_for_fid
from xdyna.evaluation.set_features import fid_features

DISTANCE, ROOT = 2e-3, 1e-2
"""Relative: the exact form, and scipy's root of a singular product."""

_STAGES = {"block0_spatial_mean": 0, "block1_spatial_mean": 1, "block2_spatial_mean": 2}


def check_inception(case: Case) -> Iterator[Check]:
    """One picture through the network, or two sets of pictures to their distance."""
    network = case.shared("inception", lambda: load_inception(case.network_file("fid_inception_v3")))
    if "rgb" in case.inputs:
        yield from _one_picture(case, network)
    elif "set_a_rgb" in case.inputs:
        yield from _two_sets(case, network)
    else:
        raise UnknownCase(f"has the inputs {sorted(case.inputs)}")


def _one_picture(case: Case, network: InceptionV3) -> Iterator[Check]:
    frame = case.input("rgb")[None]
    stages = network.stages(pictures_for_fid(frame))
    for name in case.outputs:
        wanted = case.output(name)
        if name == "pool3":
            yield of_largest(name, fid_features(frame, network)[0], wanted)
        elif name in _STAGES:
            yield of_largest(name, stages[_STAGES[name]].mean(dim=(2, 3))[0].numpy(), wanted)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _two_sets(case: Case, network: InceptionV3) -> Iterator[Check]:
    sets = {side: fid_features(case.input(f"set_{side}_rgb"), network, batch=5) for side in "ab"}
    for name in case.outputs:
        wanted = case.output(name)
        if name in ("features_a", "features_b"):
            rows = sets[name[-1]]
            yield of_largest(name, rows[:, :: rows.shape[1] // wanted.shape[1]], wanted)
        elif name == "fid_exact_low_rank_unbiased":
            yield relative(name, frechet_distance(sets["a"], sets["b"]), wanted, DISTANCE)
        elif name == "fid_reference_scipy_sqrtm":
            # a root of the 2048 x 2048 product takes minutes; the exact value stands for it, as the case says
            yield relative(name, frechet_distance(sets["a"], sets["b"]), wanted, ROOT)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


GROUPS = {"g3_fid_inception": check_inception}
