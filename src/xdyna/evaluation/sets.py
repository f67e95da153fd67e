"""The set metrics as a table: which network, which windows, which covariance, and the words that a report prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from xdyna.errors import InputError, OptionError
from xdyna.evaluation import set_features
from xdyna.evaluation.frechet import Covariance, FrechetResult, frechet_with_interval
from xdyna.evaluation.masks import Region, region_of
from xdyna.evaluation.networks import load, scripted
from xdyna.evaluation.networks.nsfw_inception import load_nsfw_inception
from xdyna.evaluation.preparing import check_frames, load_as_cd_fvd, windows_of
from xdyna.evaluation.set_features import FeatureSet

Features = Callable[..., np.ndarray]
Loader = Callable[..., nn.Module]


@dataclass(frozen=True)
class SetMetric:
    """One set metric.

    Attributes:
        name: as reports print it; a variant stands in brackets.
        network: name in the registry of weight files.
        load: makes the network: (path=None, *, device="cpu").
        features: (frames, network, *, batch) for frames, (clips, network, *, batch) for windows.
        window: frames a window; 1 for metrics of single frames.
        step: frames between the starts of windows unless told otherwise.
        covariance: how the published code scales it.
        dimensions: length of a feature.
        protocol: preparation and features in words.
        loops: whether clips shorter than a window are repeated (else they are an error).
        compiled: whether the network is a TorchScript program, which has to be trusted.
    """

    name: str
    network: str
    load: Loader
    features: Features
    window: int
    step: int
    covariance: Covariance
    dimensions: int
    protocol: str
    loops: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class SetScore:
    """A set metric's number with everything that it depends on.

    Attributes:
        metric: name of the metric.
        region: "all", "fg" or "bg".
        result: the distance, its interval and sample counts.
        clips: numbers of clips of the two sets.
        sizes: heights and widths of the frames of the two sets; (0, 0) for mixed ones.
        step: frames between windows.
        protocol: one line for the report.
    """

    metric: str
    region: Region
    result: FrechetResult
    clips: tuple[int, int]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    step: int
    protocol: str


def _through_cd_fvd_loader(clips: Iterable[np.ndarray], network: Any, *, batch: int = 2) -> np.ndarray:
    cut = (load_as_cd_fvd(clip)[0] for clip in clips)
    return set_features.cd_fvd_features(cut, network, batch=batch)


_LISTED = (
    SetMetric(
        "fid",
        "fid_inception_v3",
        load.load_inception,
        set_features.fid_features,
        window=1,
        step=1,
        covariance="unbiased",
        dimensions=2048,
        protocol="pytorch-fid: bilinear 299 without antialias, pool3 of Inception 2015-12-05",
    ),
    SetMetric(
        "fid[clean-resize]",
        "fid_inception_v3",
        load.load_inception,
        set_features.clean_fid_features,
        window=1,
        step=1,
        covariance="unbiased",
        dimensions=2048,
        protocol="clean-fid's resizing (Pillow bicubic, antialias) with pytorch-fid's network",
    ),
    SetMetric(
        "fid[clean]",
        "clean_inception",
        scripted.load_clean_inception,
        set_features.clean_fid_features,
        window=1,
        step=1,
        covariance="unbiased",
        dimensions=2048,
        protocol="clean-fid: Pillow bicubic with antialias to 299, its compiled Inception 2015-12-05",
        compiled=True,
    ),
    SetMetric(
        "fid[nsfw-inception]",
        "nsfw_inception",
        load_nsfw_inception,
        set_features.nsfw_inception_features,
        window=1,
        step=1,
        covariance="unbiased",
        dimensions=2048,
        protocol="InceptionV3 of npm's nsfwjs 4.3.0 (8-bit weights, trained on to tell drawings, photographs and "
        "indecent pictures apart), bilinear 299 with aligned corners, [0, 1]; not comparable with FID",
    ),
    SetMetric(
        "fid_vid",
        "resnet3d50_kinetics",
        load.load_resnet3d,
        set_features.fid_vid_features,
        window=16,
        step=1,
        covariance="unbiased",
        dimensions=2048,
        protocol="DisCo: Pillow float bicubic 112, ResNet3D-50 (Kinetics-400)",
    ),
    SetMetric(
        "fvd[disco]",
        "i3d_kinetics400",
        load.load_i3d,
        set_features.disco_fvd_features,
        window=16,
        step=1,
        covariance="unbiased",
        dimensions=400,
        protocol="DisCo: Pillow float bicubic 224, I3D logits, batch-norm eps 1e-3",
    ),
    SetMetric(
        "fvd[tats]",
        "i3d_kinetics400",
        partial(load.load_i3d, eps=1e-5, pool_frames=2),
        set_features.tats_fvd_features,
        window=16,
        step=16,
        covariance="unbiased",
        dimensions=400,
        protocol="TATS: bilinear 224, I3D logits, batch-norm eps 1e-5",
    ),
    SetMetric(
        "fvd[styleganv]",
        "styleganv_i3d",
        scripted.load_styleganv_i3d,
        set_features.styleganv_fvd_features,
        window=16,
        step=16,
        covariance="biased",
        dimensions=400,
        protocol="StyleGAN-V: its compiled I3D scales and resizes by itself",
        compiled=True,
    ),
    SetMetric(
        "cd_fvd",
        "videomae_vitg",
        load.load_videomae,
        set_features.cd_fvd_features,
        window=16,
        step=16,
        covariance="biased",
        dimensions=1408,
        protocol="cd-FVD on arrays: whole frame bilinear to 224, VideoMAE-v2 ViT-g (SSv2), all clips",
    ),
    SetMetric(
        "cd_fvd[loader]",
        "videomae_vitg",
        load.load_videomae,
        _through_cd_fvd_loader,
        window=16,
        step=16,
        covariance="biased",
        dimensions=1408,
        protocol="cd-FVD through its loader: short side 256, centre crop, bytes; VideoMAE-v2 ViT-g (SSv2), all clips",
    ),
    SetMetric(
        "dtfvd[16]",
        "dti3d_16",
        partial(load.load_dti3d, length=16),
        set_features.dtfvd_features,
        window=16,
        step=16,
        covariance="unbiased",
        dimensions=1024,
        protocol="DTFVD: bilinear 224 with align_corners, DTI3D (18 classes) before its class layer, no clip dropped",
        loops=True,
    ),
    SetMetric(
        "dtfvd[32]",
        "dti3d_32",
        partial(load.load_dti3d, length=32),
        partial(set_features.dtfvd_features, length=32),
        window=32,
        step=32,
        covariance="unbiased",
        dimensions=1024,
        protocol="DTFVD: bilinear 224 with align_corners, DTI3D (18 classes) before its class layer, no clip dropped",
    ),
)

SET_METRICS: dict[str, SetMetric] = {metric.name: metric for metric in _LISTED}
"""Every set metric by its name."""


def set_metric(name: str) -> SetMetric:
    """A metric of the table.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in SET_METRICS:
        raise OptionError("metric", f"{name!r} is no set metric", f"Known are {', '.join(SET_METRICS)}")
    return SET_METRICS[name]


def load_set_network(
    name: str, *, path: str | Path | None = None, device: str = "cpu", trusted: bool = False
) -> nn.Module:
    """The network of a set metric.

    Args:
        name: the metric's.
        path: the weight file; None for the one that the registry finds.
        device: where it goes.
        trusted: a compiled file (fid[clean], fvd[styleganv]) may run.

    Raises:
        MissingWeights: the file is not here; its text says which file from where.
        WeightsError: the file does not fit, or is compiled and not trusted.
        OptionError: no such metric.
    """
    metric = set_metric(name)
    if metric.compiled:
        return metric.load(path, device=device, trusted=trusted)
    return metric.load(path, device=device)


def features_of_set(
    name: str,
    clips: Iterable[np.ndarray],
    network: nn.Module,
    *,
    masks: Iterable[np.ndarray] | None = None,
    region: Region = "all",
    step: int | None = None,
    batch: int = 4,
) -> FeatureSet:
    """Features of a set of clips for one metric.

    Args:
        name: the metric's.
        clips: (f h w 3) uint8 RGB each; read one after the other, so an iterator keeps memory small.
        network: of `load_set_network`.
        masks: for "fg" and "bg": one (f h w) a clip, see `region_of`.
        region: "all", "fg" or "bg".
        step: frames between windows; None for the metric's own.
        batch: frames or windows at once.

    Returns:
        the rows, with the clip of each.

    Raises:
        InputError: no clips, a clip that is none or shorter than a window, or masks that do not fit.
        OptionError: an unknown metric or region, or a number out of range.
    """
    metric = set_metric(name)
    step = metric.step if step is None else step
    rows: list[np.ndarray] = []
    owners: list[int] = []
    sizes: set[tuple[int, int]] = set()
    for index, (clip, mask) in enumerate(_with_masks(clips, masks, region)):
        frames = region_of(check_frames(clip, source=f"clip {index + 1}"), mask, region)
        sizes.add((frames.shape[1], frames.shape[2]))
        if metric.window == 1:
            if step < 1:
                raise OptionError("step", f"{step} is below 1")
            found = metric.features(frames[::step], network, batch=batch)
        else:
            found = metric.features(_windows(metric, frames, step, index), network, batch=batch)
        rows.append(found)
        owners += [index] * found.shape[0]
    if not rows:
        raise InputError("clips", "there are none")
    size = sizes.pop() if len(sizes) == 1 else (0, 0)
    return FeatureSet(np.concatenate(rows), np.asarray(owners), size)


def set_score(
    name: str,
    pred: FeatureSet,
    truth: FeatureSet,
    *,
    region: Region = "all",
    step: int | None = None,
    resamples: int = 200,
    paired: bool = False,
    seed: int = 0,
) -> SetScore:
    """The metric of two sets of features, with its interval and the words that belong beside it.

    Args:
        name: the metric's.
        pred, truth: of `features_of_set`, with the same step and region.
        region, step: what they were made with, for the record.
        resamples, paired, seed: of the bootstrap, see `frechet_with_interval`.

    Raises:
        InputError: too few rows, or NaN among them.
        OptionError: no such metric.
    """
    metric = set_metric(name)
    step = metric.step if step is None else step
    result = frechet_with_interval(
        pred.rows,
        truth.rows,
        covariance=metric.covariance,
        clips=(pred.clips, truth.clips),
        paired=paired,
        resamples=resamples,
        seed=seed,
    )
    counts = (int(np.unique(pred.clips).size), int(np.unique(truth.clips).size))
    unit = "frames" if metric.window == 1 else f"windows of {metric.window}"
    sizes = " and ".join(
        "mixed sizes" if size == (0, 0) else f"{size[0]}x{size[1]}" for size in (pred.size, truth.size)
    )
    protocol = (
        f"{metric.protocol}; {unit} every {step}; N = {result.samples[0]} and {result.samples[1]} from "
        f"{counts[0]} and {counts[1]} clips; {sizes} (h x w); {metric.covariance} covariance, exact Frechet distance"
    )
    return SetScore(name, region, result, counts, (pred.size, truth.size), step, protocol)


def _windows(metric: SetMetric, frames: np.ndarray, step: int, index: int) -> list[np.ndarray]:
    if frames.shape[0] < metric.window:
        if metric.loops:
            return [frames]
        raise InputError(
            f"clip {index + 1}",
            f"{frames.shape[0]} frames, and a window of {metric.name} has {metric.window}",
            "Leave the clip or the metric out",
        )
    return list(windows_of(frames, length=metric.window, step=step))


def _with_masks(
    clips: Iterable[np.ndarray], masks: Iterable[np.ndarray] | None, region: Region
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    if masks is None or region == "all":
        yield from ((clip, None) for clip in clips)
        return
    masks = iter(masks)
    for index, clip in enumerate(clips):
        mask = next(masks, None)
        if mask is None:
            raise InputError("masks", f"there are {index}, and more clips")
        yield clip, mask
