"""g5: ResNet3D-50 and FID-VID."""

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
from xdyna.evaluation.networks.load import load_resnet3d
from xdyna.evaluation.networks.resnet3d import ResNet3D50
from xdyna.evaluation.preparing import KINETICS_MEAN, clip_for_fid_vid, segments_of, windows_of
from xdyna.evaluation.set_features import fid_vid_features, fid_vid_of_video

PILLOW, DISTANCE = 1e-3, 5e-3


def check_fid_vid(case: Case) -> Iterator[Check]:
    """The network on a clip by rule, DisCo's frames to FID-VID, or a whole video."""
    network = case.shared("resnet", lambda: load_resnet3d(case.network_file("resnet3d50_kinetics")))
    if "clip_rule" in case.inputs:
        yield from _network(case, network)
    elif "gen_rgb" in case.inputs:
        yield from _disco(case, network)
    elif "rgb" in case.inputs:
        yield from _video(case, network)
    else:
        raise UnknownCase(f"has the inputs {sorted(case.inputs)}")


def _network(case: Case, network: ResNet3D50) -> Iterator[Check]:
    frames = (rule_clip(case) - np.asarray(KINETICS_MEAN)).astype(np.float32)
    feature = network(torch.from_numpy(frames).permute(3, 0, 1, 2)[None])
    for name in case.outputs:
        wanted = case.output(name)
        if name == "feature":
            yield of_largest(name, feature.numpy(), wanted)
        elif name == "fc_logits_unused_by_metric":
            yield of_largest(name, network.fc(feature).numpy(), wanted)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _disco(case: Case, network: ResNet3D50) -> Iterator[Check]:
    windows = {side: list(windows_of(case.input(f"{side}_rgb"))) for side in ("gen", "gt")}
    rows = {side: fid_vid_features(clips, network) for side, clips in windows.items()}
    for name in case.outputs:
        wanted = case.output(name)
        if name == "n_windows":
            yield exact(name, [len(clips) for clips in windows.values()], [wanted, wanted])
        elif name == "pre_gt_window0_sample":
            first = clip_for_fid_vid(windows["gt"][0]).numpy()
            yield absolute(name, sampled(case, name, first), wanted, PILLOW)
        elif name in ("features_gen", "features_gt"):
            yield of_largest(name, rows[name.removeprefix("features_")], wanted)
        elif name == "fidvid_exact_low_rank_unbiased":
            yield relative(name, frechet_distance(rows["gen"], rows["gt"]), wanted, DISTANCE)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _video(case: Case, network: ResNet3D50) -> Iterator[Check]:
    frames = case.input("rgb")
    segments = segments_of(frames)
    for name in case.outputs:
        wanted = case.output(name)
        if name == "n_segments":
            yield exact(name, len(segments), wanted)
        elif name == "features_per_segment":
            yield of_largest(name, fid_vid_features(segments, network), wanted)
        elif name == "feature_mean_of_segments":
            yield of_largest(name, fid_vid_of_video(frames, network), wanted)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


GROUPS = {"g5_resnet3d_fidvid": check_fid_vid}
