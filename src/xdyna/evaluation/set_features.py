"""Clips to rows of features, one row a frame (FID) or a window (the video distances)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.networks.i3d import I3D
from xdyna.evaluation.networks.inception import InceptionV3
from xdyna.evaluation.networks.nsfw_inception import NsfwInception
from xdyna.evaluation.networks.resnet3d import ResNet3D50
from xdyna.evaluation.networks.scripted import CleanInception, StyleGanVI3D
from xdyna.evaluation.networks.videomae import VideoMAE
from xdyna.evaluation.preparing import (
    ShortClips,
    check_frames,
    clip_for_cd_fvd,
    clip_for_disco_fvd,
    clip_for_dtfvd,
    clip_for_fid_vid,
    clip_for_tats_fvd,
    pictures_for_clean_fid,
    pictures_for_fid,
    pictures_for_nsfwjs,
    segments_of,
)

T = TypeVar("T")

DTFVD_BATCH = 40
"""What the published DTFVD evaluates at once; it matters only where the tail is dropped."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of a set of clips.

    Attributes:
        rows: (n d) float32.
        clips: (n,) which clip each row is of, counted from 0.
        size: height and width of the frames that came in; (0, 0) where clips differ.
    """

    rows: np.ndarray
    clips: np.ndarray
    size: tuple[int, int]


def fid_features(frames: np.ndarray, network: InceptionV3, *, batch: int = 16) -> np.ndarray:
    """FID's features of frames, prepared as pytorch-fid does.

    Args:
        frames: (f h w 3) uint8 RGB of any size.
        network: with its weights.
        batch: frames at once.

    Returns:
        (f 2048) float32.

    Raises:
        InputError: the frames are none.
    """
    return _by_batches(
        check_frames(frames), batch, lambda some: network(_on(network, pictures_for_fid(some)))
    )


def clean_fid_features(
    frames: np.ndarray, network: InceptionV3 | CleanInception, *, batch: int = 16
) -> np.ndarray:
    """Features of frames resized as clean-fid does (Pillow, antialiased), (x - 128) / 128.

    clean-fid itself runs a compiled file of the network; with pytorch-fid's file of the same network instead,
    reports call the number fid[clean-resize].

    Args, returns and raises as `fid_features`.
    """

    def features(some: np.ndarray) -> Tensor:
        return network(_on(network, (pictures_for_clean_fid(some) - 128) / 128))

    return _by_batches(check_frames(frames), batch, features)


def nsfw_inception_features(frames: np.ndarray, network: NsfwInception, *, batch: int = 16) -> np.ndarray:
    """Features of nsfwjs' Inception, prepared as nsfwjs prepares pictures.

    Args, returns and raises as `fid_features`.
    """
    return _by_batches(
        check_frames(frames), batch, lambda some: network(_on(network, pictures_for_nsfwjs(some)))
    )


def disco_fvd_features(clips: Iterable[np.ndarray], network: I3D, *, batch: int = 4) -> np.ndarray:
    """FVD features as DisCo takes them: Pillow bicubic, 400 logits averaged over time.

    Args:
        clips: windows (t h w 3) uint8 RGB, all of one length (DisCo: 16 frames, sliding by one).
        network: I3D with 400 classes, eps 1e-3, pool_frames 1.
        batch: clips at once.

    Returns:
        (n 400) float32.

    Raises:
        InputError: no clip, or one that is no clip or too short.
    """
    return _clip_features(clips, network, clip_for_disco_fvd, batch)


def tats_fvd_features(clips: Iterable[np.ndarray], network: I3D, *, batch: int = 4) -> np.ndarray:
    """FVD features as TATS and cd-FVD take them: bilinear, 400 logits.

    Args, returns and raises as `disco_fvd_features`; the network has eps 1e-5 and pool_frames 2.
    """
    return _clip_features(clips, network, clip_for_tats_fvd, batch)


def styleganv_fvd_features(
    clips: Iterable[np.ndarray], network: StyleGanVI3D, *, batch: int = 4
) -> np.ndarray:
    """FVD features of StyleGAN-V's compiled I3D, which gets 0..255 and scales and resizes by itself.

    Args, returns and raises as `disco_fvd_features`.
    """

    def prepare(clip: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(check_frames(clip))).permute(3, 0, 1, 2).float()

    return _clip_features(clips, network, prepare, batch)


def fid_vid_features(clips: Iterable[np.ndarray], network: ResNet3D50, *, batch: int = 4) -> np.ndarray:
    """FID-VID features of windows of 16 frames: Pillow bicubic to 112, mean colour off.

    Returns:
        (n 2048) float32; the rest as `disco_fvd_features`.
    """
    return _clip_features(clips, network, clip_for_fid_vid, batch)


def fid_vid_of_video(frames: np.ndarray, network: ResNet3D50, *, batch: int = 4) -> np.ndarray:
    """DisCo's FID-VID feature of a whole video: the mean over its segments of 16, the last one padded.

    Args:
        frames: (f h w 3) uint8 RGB.

    Returns:
        (2048,) float32.
    """
    return fid_vid_features(segments_of(check_frames(frames)), network, batch=batch).mean(axis=0)


def cd_fvd_features(clips: Iterable[np.ndarray], network: VideoMAE, *, batch: int = 2) -> np.ndarray:
    """cd-FVD's features of clips of 16 frames: bilinear to 224, [0, 1].

    Returns:
        (n 1408) float32; the rest as `disco_fvd_features`.
    """
    return _clip_features(clips, network, clip_for_cd_fvd, batch)


def dtfvd_features(
    clips: Iterable[np.ndarray],
    network: I3D,
    *,
    length: int = 16,
    batch: int = 4,
    short: ShortClips = "loop",
    drop_tail: bool = False,
    reference_batch: int = DTFVD_BATCH,
) -> np.ndarray:
    """DTFVD's features: what the class layer of the dynamic-texture network reads.

    Args:
        clips: (t h w 3) uint8 RGB each, t up to `length`.
        network: I3D with 18 classes, eps 1e-5, pool_frames 2 (length 16) or 4 (length 32).
        length: frames of the network, 16 or 32.
        batch: clips at once, for memory only.
        short: how short clips are repeated, see `clip_for_dtfvd`.
        drop_tail: leave out the clips that do not fill a batch of `reference_batch`, as the published code does.
        reference_batch: that code's batch; as there, a smaller set is one batch.

    Returns:
        (n 1024) float32.

    Raises:
        InputError: as `disco_fvd_features`, or as `clip_for_dtfvd`.
        OptionError: a batch below 1.
    """
    given = list(clips)
    if drop_tail:
        if reference_batch < 1:
            raise OptionError("reference_batch", f"{reference_batch} is below 1")
        size = min(reference_batch, max(len(given), 1))
        given = given[: len(given) // size * size]

    def prepare(clip: np.ndarray) -> Tensor:
        return clip_for_dtfvd(clip, length=length, short=short)

    def features(clip: Tensor) -> Tensor:
        return network.pooled(clip).mean(dim=2)

    return _clip_features(given, network, prepare, batch, features)


def _clip_features(
    clips: Iterable[np.ndarray],
    network: torch.nn.Module,
    prepare: Callable[[np.ndarray], Tensor],
    batch: int,
    features: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    if batch < 1:
        raise OptionError("batch", f"{batch} is below 1")
    rows = []
    with torch.inference_mode():
        for some in _batches((prepare(clip) for clip in clips), batch):
            if len({clip.shape for clip in some}) > 1:
                raise InputError(
                    "clips", "they have different numbers of frames", "Cut windows of one length"
                )
            inputs = _on(network, torch.stack(some))
            rows.append((features or network)(inputs).float().cpu().numpy())
    if not rows:
        raise InputError("clips", "there are none", "A video shorter than a window gives no clip")
    return np.concatenate(rows)


def _by_batches(frames: np.ndarray, batch: int, features: Callable[[np.ndarray], Tensor]) -> np.ndarray:
    if batch < 1:
        raise OptionError("batch", f"{batch} is below 1")
    with torch.inference_mode():
        starts = range(0, frames.shape[0], batch)
        return np.concatenate(
            [features(frames[start : start + batch]).float().cpu().numpy() for start in starts]
        )


def _batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def _on(network: torch.nn.Module, inputs: Tensor) -> Tensor:
    return inputs.to(next(network.parameters()).device)
