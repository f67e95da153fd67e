"""The set suite: distances between the generated clips and the true ones as two sets, whatever pairs with what.

Features are kept under OUT/cache by a hash of the clip's content, of the network's file and of how clips were cut, so
that a set that is compared with several systems is read once. A network whose file is not here makes its metrics
unavailable, never something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xdyna import media
from xdyna.errors import InputError, XdynaError
from xdyna.evaluation.clips import ClipFiles
from xdyna.evaluation.frechet import Covariance, frechet_with_interval
from xdyna.evaluation.masks import Region, region_of
from xdyna.evaluation.metrics import full_name
from xdyna.evaluation.pairs import Pair, at_size
from xdyna.evaluation.registry import MissingWeights, file_hash, find_weights
from xdyna.options import EvaluateOptions

VERSION = 1
Progress = Callable[[str, int, int | None], None]
Rows = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Clips, or windows of clips, to rows of features."""


@dataclass(frozen=True)
class SetMetric:
    """One distance.

    Attributes:
        name: the metric's.
        network: its name in the registry; "" for one that ships with the package.
        window: frames of a window; 0 takes single frames, None what the options say.
        load: the network on a device, as a function from windows to features.
        covariance: how the reference code scales covariances.
    """

    name: str
    network: str
    window: int | None
    load: Callable[[str], Rows]
    covariance: Covariance = "unbiased"


@dataclass
class SetResults:
    """What the suite found: metrics as a report holds them, what is missing, and how it was done."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)


def set_suite(
    pairs: Sequence[Pair],
    digests: Mapping[str, str],
    cache: Path,
    *,
    options: EvaluateOptions,
    progress: Progress,
    metrics: Sequence[SetMetric] | None = None,
) -> SetResults:
    """Measure every distance whose network is here.

    Args:
        pairs: the clips. Without true ones the driving clips are the set that is compared with.
        digests: not used up here: features are kept by each clip's own content.
        cache: folder for features.
        options: windows, device, bootstrap draws.
        progress: told about every clip.
        metrics: some of `SET_METRICS`; None for all.
    """
    found = SetResults()
    truth_is_driving = all(pair.truth is None for pair in pairs)
    found.protocol["set compared with"] = "driving clips: no --truth was given" if truth_is_driving else "true clips"
    found.protocol["windows"] = (
        f"{options.window} frames, every {options.window_stride}; what is left over at a clip's end is not used"
    )
    masked = all(pair.masks is not None for pair in pairs) and not truth_is_driving
    if masked:
        found.protocol["set parts"] = "FG, BG: outside of the true person's mask, or inside, black in both sets"
    device = _device(options.device)
    for metric in metrics or SET_METRICS:
        parts: tuple[Region, ...] = ("all", "fg", "bg") if masked else ("all",)
        try:
            identity = file_hash(find_weights(metric.network)) if metric.network else "shipped"
            network = metric.load(device)
        except (MissingWeights, XdynaError) as problem:
            found.unavailable.update({full_name(metric.name, part): str(problem) for part in parts})
            continue
        for part in parts:
            name = full_name(metric.name, part)
            try:
                found.metrics[name] = _distance(
                    metric, network, identity, pairs, part, cache, options=options, progress=progress
                )
            except InputError as problem:
                found.unavailable[name] = f"unavailable: {problem}"
    return found


def _distance(
    metric: SetMetric,
    network: Rows,
    identity: str,
    pairs: Sequence[Pair],
    part: Region,
    cache: Path,
    *,
    options: EvaluateOptions,
    progress: Progress,
) -> dict[str, Any]:
    window = options.window if metric.window is None else metric.window
    sides: dict[str, list[np.ndarray]] = {"pred": [], "truth": []}
    owners: dict[str, list[int]] = {"pred": [], "truth": []}
    label = full_name(metric.name, part)
    for number, pair in enumerate(pairs):
        progress(label, number, len(pairs))
        for side, clip in (("pred", pair.pred), ("truth", pair.truth or pair.driving)):
            assert clip is not None
            rows = _features(metric, network, identity, pair, clip, part, window, cache, options=options)
            sides[side].append(rows)
            owners[side] += [number] * len(rows)
    progress(label, len(pairs), len(pairs))
    first, second = (np.concatenate(sides[side]) for side in ("pred", "truth"))
    result = frechet_with_interval(
        first, second, covariance=metric.covariance,
        clips=(np.array(owners["pred"]), np.array(owners["truth"])), paired=True, resamples=options.resamples,
    )  # fmt: skip
    return {
        "value": result.value, "low": result.low, "high": result.high, "clips": len(pairs),
        "frames": sum(pair.frames for pair in pairs), "coverage": 1.0, "samples": list(result.samples),
        "dimensions": result.dimensions, "covariance": result.covariance, "resamples": result.resamples,
        "window": window, "window_stride": options.window_stride if window else 1, "network": metric.network or "shipped",
        "weights_sha256": identity,
    }  # fmt: skip


def _features(
    metric: SetMetric,
    network: Rows,
    identity: str,
    pair: Pair,
    clip: ClipFiles,
    part: Region,
    window: int,
    cache: Path,
    *,
    options: EvaluateOptions,
) -> np.ndarray:
    """(n d) rows of one clip, made or kept."""
    size = pair.truth_size if pair.truth is not None else None
    masks = pair.masks.digest() if part != "all" and pair.masks else ""
    facts = (VERSION, metric.name, identity, clip.digest(), masks, part, pair.frames, size, window, options.window_stride)
    place = cache / f"features-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.npy"
    if place.is_file():
        try:
            held = np.load(place, allow_pickle=False)
            if held.ndim == 2 and np.isfinite(held).all():
                return np.asarray(held, np.float32)
        except (OSError, ValueError):
            pass  # a file of a run that was killed: made again
    frames = at_size(clip.read(limit=pair.frames), size)
    frames = region_of(frames, pair.read_masks() if part != "all" else None, part)
    pieces = list(_windows(frames, window, options.window_stride)) if window else [frames]
    if not pieces:
        raise InputError(clip.path, f"has {len(frames)} frames, a window {window}", "Use --window N, or longer clips")
    rows = np.asarray(network(pieces), np.float32)
    if not np.isfinite(rows).all():
        raise InputError(clip.path, f"{metric.name}: features are not finite")
    with media.whole_file(place, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    return rows


def _windows(frames: np.ndarray, length: int, stride: int) -> Iterator[np.ndarray]:
    for start in range(0, len(frames) - length + 1, stride):
        yield frames[start : start + length]


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _fid(clean: bool) -> Callable[[str], Rows]:
    def load(device: str) -> Rows:
        from xdyna.evaluation.networks.load import load_inception
        from xdyna.evaluation.set_features import clean_fid_features, fid_features

        network, features = load_inception(device=device), clean_fid_features if clean else fid_features
        return lambda clips: np.concatenate([features(frames, network) for frames in clips])

    return load


def _fvd(eps: float) -> Callable[[str], Rows]:
    def load(device: str) -> Rows:
        from xdyna.evaluation.networks.load import load_i3d
        from xdyna.evaluation.set_features import disco_fvd_features

        network = load_i3d(eps=eps, device=device)
        return lambda clips: disco_fvd_features(clips, network)

    return load


def _fid_vid(device: str) -> Rows:
    from xdyna.evaluation.networks.load import load_resnet3d
    from xdyna.evaluation.set_features import fid_vid_features

    network = load_resnet3d(device=device)
    return lambda clips: fid_vid_features(clips, network)


def _cd_fvd(device: str) -> Rows:
    from xdyna.evaluation.networks.load import load_videomae
    from xdyna.evaluation.set_features import cd_fvd_features

    network = load_videomae(device=device)
    return lambda clips: cd_fvd_features(clips, network)


def _dtfvd(length: int) -> Callable[[str], Rows]:
    def load(device: str) -> Rows:
        from xdyna.evaluation.networks.load import load_dti3d
        from xdyna.evaluation.set_features import dtfvd_features

        network = load_dti3d(length=length, device=device)
        return lambda clips: dtfvd_features(clips, network, length=length)

    return load


SET_METRICS = (
    SetMetric("fid", "fid_inception_v3", 0, _fid(clean=False)),
    SetMetric("fid[clean-resize]", "fid_inception_v3", 0, _fid(clean=True)),
    SetMetric("fid_vid", "resnet3d50_kinetics", 16, _fid_vid),
    SetMetric("fvd", "i3d_kinetics400", None, _fvd(1e-3)),
    SetMetric("fvd[eps1e-5]", "i3d_kinetics400", None, _fvd(1e-5)),
    SetMetric("cd_fvd", "videomae_vitg", 16, _cd_fvd, "biased"),
    SetMetric("dtfvd16", "dti3d_16", 16, _dtfvd(16)),
    SetMetric("dtfvd32", "dti3d_32", 32, _dtfvd(32)),
)
