"""g6: VideoMAE-v2 and cd-FVD, with the loader of its package."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from tests.metrics_parity.fixture import Case, Check, UnknownCase, absolute, exact, of_largest, relative
from tests.metrics_parity.sampling import sampled
from xdyna.evaluation.frechet import frechet_distance
from xdyna.evaluation.networks.load import load_videomae
from xdyna.evaluation.networks.videomae import VideoMAE, positions
from xdyna.evaluation.preparing import clip_for_cd_fvd, load_as_cd_fvd
from xdyna.evaluation.set_features import cd_fvd_features

FLOATS, DISTANCE, NEAR_INTEGER = 1e-5, 5e-3, 1e-3

_TOKENS = re.compile(r"tokens \[(?P<rows>[\d, ]+)\], :(?P<columns>\d+)")
_LAST = re.compile(r"pos_embed_last(?P<columns>\d+)_of_token_(?P<row>\d+)")


def check_cd_fvd(case: Case) -> Iterator[Check]:
    """The network on clips, two sets to their distance, or the loader."""
    if "videos_rgb_BTHWC" in case.inputs:
        yield from _clips(case)
    elif "real_rgb_BTHWC" in case.inputs:
        yield from _two_sets(case)
    elif "resolution" in case.inputs:
        yield from _loader(case)
    elif not case.inputs:
        yield from _grey_levels(case)
    else:
        raise UnknownCase(f"has the inputs {sorted(case.inputs)}")


def _network(case: Case) -> VideoMAE:
    def load() -> VideoMAE:
        (manifest,) = case.group.files.manifests.glob("videomae_vitg*.json")
        return load_videomae(case.network_file(manifest.stem), depth=None)

    return case.shared("videomae", load)


def _clips(case: Case) -> Iterator[Check]:
    network, clips = _network(case), case.input("videos_rgb_BTHWC")
    prepared = [clip_for_cd_fvd(clip) for clip in clips]
    for name in case.outputs:
        wanted = case.output(name)
        if name == "features_1408":
            yield of_largest(name, cd_fvd_features(clips, network), wanted)
        elif name == "head_174_unused_by_metric":
            features = [network(clip[None])[0] for clip in prepared]
            yield of_largest(name, np.stack([network.head(row).numpy() for row in features]), wanted)
        elif name == "pre_sample":
            whole = np.stack([clip.numpy() for clip in prepared])
            yield absolute(name, sampled(case, name, whole), wanted, FLOATS)
        elif name == "patch_embed_sample":
            tokens = np.stack([network.patch_embed(clip[None])[0].numpy() for clip in prepared])
            yield of_largest(name, sampled(case, name, tokens), wanted)
        elif name.startswith("pos_embed_"):
            yield of_largest(name, _position_sample(case, name, network.width), wanted)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _position_sample(case: Case, name: str, width: int) -> np.ndarray:
    table = positions(2048, width).numpy()
    layout = case.outputs[name].get("layout", "")
    if found := _TOKENS.fullmatch(layout):
        rows = [int(row) for row in found["rows"].split(",")]
        return table[rows, : int(found["columns"])]
    if found := _LAST.fullmatch(name):
        return table[int(found["row"]), -int(found["columns"]) :]
    raise UnknownCase(f"has an unknown output {name!r} of layout {layout!r}")


def _two_sets(case: Case) -> Iterator[Check]:
    rows = {
        side: cd_fvd_features(case.input(f"{side}_rgb_BTHWC"), _network(case)) for side in ("real", "fake")
    }
    for name in case.outputs:
        wanted = case.output(name)
        if name in ("features_real", "features_fake"):
            yield of_largest(name, rows[name.removeprefix("features_")], wanted)
        elif name in ("cdfvd_exact_low_rank_biased", "cdfvd_reference_scipy_biased"):
            # both are held against the exact form, as the case says
            got = frechet_distance(rows["real"], rows["fake"], covariance="biased")
            yield relative(name, got, wanted, DISTANCE)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _loader(case: Case) -> Iterator[Check]:
    as_bytes, floats = load_as_cd_fvd(case.input("rgb_THWC"), resolution=int(case.input("resolution")))
    for name in case.outputs:
        wanted = case.output(name)
        if name == "bytes_THWC":
            levels = floats.astype(np.float64) * 255
            decided = np.abs(levels - levels.round()) > NEAR_INTEGER
            yield exact(name, as_bytes[decided], wanted[decided])
            yield absolute(f"{name} near integers", as_bytes, wanted, 1.0)
        elif found := re.fullmatch(r"float_CTHW_frame(\d+)", name):
            yield absolute(name, floats[int(found[1])].transpose(2, 0, 1), wanted, FLOATS)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _grey_levels(case: Case) -> Iterator[Check]:
    name = "grey_levels_changed_by_float32_k/255*255_to_byte"
    # 16 x 16 is already the resolution asked for, so that only the round trip is left
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    as_bytes, _ = load_as_cd_fvd(ramp, resolution=16)
    yield exact(name, np.unique(ramp[as_bytes != ramp]), case.output(name))


GROUPS = {"g6_videomae_cdfvd": check_cd_fvd}
