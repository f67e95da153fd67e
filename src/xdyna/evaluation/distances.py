"""The set suite: distances between the generated clips and the true ones as two sets, whatever pairs with what.

Features are kept under OUT/cache by a hash of the clip's content, of the network's file and of how clips were cut, so
that a set that is compared with several systems is read once. A network whose file is not here makes its metrics
unavailable, never something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xdyna.errors import InputError, XdynaError
from xdyna.evaluation.clips import ClipFiles
from xdyna.evaluation.frechet import Covariance, frechet_with_interval
from xdyna.evaluation.masks import Region
from xdyna.evaluation.metrics import full_name
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.pairs import Pair, at_size
from xdyna.evaluation.registry import file_hash, find_weights
from xdyna.evaluation.sets import SET_METRICS, features_of_set, load_set_network
from xdyna.media.files import whole_file

VERSION = 1
Progress = Callable[[str, int, int | None], None]
Rows = Callable[[np.ndarray, np.ndarray | None, Region], np.ndarray]
"""A clip (f h w 3), its masks and the part that counts, to rows of features (n d)."""


@dataclass(frozen=True)
class Distance:
    """One distance, with its network loaded.

    Attributes:
        name: the metric's.
        identity: sha256 of the network's file.
        rows: clips to features.
        covariance: how the published code scales it.
        step: frames from one window to the next.
        protocol: in words.
    """

    name: str
    identity: str
    rows: Rows
    covariance: Covariance
    step: int
    protocol: str


@dataclass
class SetResults:
    """What the suite found: metrics as a report holds them, what is missing, and how it was done."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)


def set_suite(
    pairs: Sequence[Pair], cache: Path, *, options: EvaluateOptions, progress: Progress
) -> SetResults:
    """Measure every distance whose network is here.

    Args:
        pairs: the clips. Without true ones the driving clips are the set that is compared with.
        cache: folder for features.
        options: step, device, bootstrap draws, trust.
        progress: told about every clip.
    """
    found = SetResults()
    unpaired = all(pair.truth is None for pair in pairs)
    found.protocol["set compared with"] = "driving clips: no --truth was given" if unpaired else "true clips"
    masked = all(pair.masks is not None for pair in pairs) and not unpaired
    if masked:
        found.protocol["set parts"] = (
            "FG, BG: outside of the true person's mask, or inside of it, black in both sets"
        )
    parts: tuple[Region, ...] = ("all", "fg", "bg") if masked else ("all",)
    device = _device(options.device)
    for name, load in _loaders(device, options).items():
        try:
            distance = load()
        except XdynaError as problem:
            found.unavailable.update({full_name(name, part): str(problem) for part in parts})
            continue
        for part in parts:
            full = full_name(name, part)
            try:
                found.metrics[full] = _measured(
                    distance, pairs, part, cache, options=options, progress=progress
                )
            except InputError as problem:
                found.unavailable[full] = f"unavailable: {problem}"
    return found


def _loaders(device: str, options: EvaluateOptions) -> dict[str, Callable[[], Distance]]:
    def published(name: str) -> Callable[[], Distance]:
        return lambda: _published(name, device, options)

    loaders = {name: published(name) for name in SET_METRICS}
    return {**loaders, "dtfvd[synth]": lambda: _synthetic(device, options)}


def _published(name: str, device: str, options: EvaluateOptions) -> Distance:
    metric = SET_METRICS[name]
    identity = file_hash(find_weights(metric.network))
    network = load_set_network(name, device=device, trusted=options.trust_compiled)
    step = options.step or metric.step

    def rows(frames: np.ndarray, masks: np.ndarray | None, part: Region) -> np.ndarray:
        given = None if part == "all" or masks is None else [masks]
        return features_of_set(name, [frames], network, masks=given, region=part, step=step).rows

    return Distance(name, identity, rows, metric.covariance, step, metric.protocol)


def _synthetic(device: str, options: EvaluateOptions) -> Distance:
    """The small network of dynamic textures that ships with the package."""
    from xdyna.evaluation.networks.texture import ASSET, FRAMES, texture_features

    step = options.step or FRAMES

    def rows(frames: np.ndarray, masks: np.ndarray | None, part: Region) -> np.ndarray:
        starts = range(0, max(1, len(frames) - FRAMES + 1), step)
        windows = [frames[start : start + FRAMES] for start in starts]
        seen = None if masks is None else [masks[start : start + FRAMES] for start in starts]
        return texture_features(windows, masks=seen, part=part, device=device)

    return Distance(
        "dtfvd[synth]", file_hash(ASSET), rows, "unbiased", step,
        "our network of synthetic dynamic textures, windows of 16 frames, shorter clips played forth and back",
    )  # fmt: skip


def _measured(
    distance: Distance,
    pairs: Sequence[Pair],
    part: Region,
    cache: Path,
    *,
    options: EvaluateOptions,
    progress: Progress,
) -> dict[str, Any]:
    if part != "all" and not any(_has_part(pair, part) for pair in pairs):
        raise InputError("masks", "they leave nothing of this part in any clip")
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    owners: tuple[list[int], list[int]] = ([], [])
    label = full_name(distance.name, part)
    for number, pair in enumerate(pairs):
        progress(label, number, len(pairs))
        for side, clip in enumerate((pair.pred, pair.truth or pair.driving)):
            assert clip is not None
            rows = _features(distance, pair, clip, part, cache)
            sides[side].append(rows)
            owners[side].extend([number] * len(rows))
    progress(label, len(pairs), len(pairs))
    result = frechet_with_interval(
        np.concatenate(sides[0]), np.concatenate(sides[1]), covariance=distance.covariance,
        clips=(np.array(owners[0]), np.array(owners[1])), paired=True, resamples=options.resamples,
    )  # fmt: skip
    sizes = {pair.truth_size or pair.pred_size for pair in pairs}
    return {
        "value": result.value, "low": result.low, "high": result.high, "clips": len(pairs),
        "frames": sum(pair.frames for pair in pairs), "coverage": 1.0, "samples": list(result.samples),
        "dimensions": result.dimensions, "covariance": result.covariance, "resamples": result.resamples,
        "step": distance.step, "size": list(sizes.pop()) if len(sizes) == 1 else None,
        "protocol": distance.protocol, "weights_sha256": distance.identity,
    }  # fmt: skip


def _has_part(pair: Pair, part: Region) -> bool:
    masks = pair.read_masks()
    return masks is None or bool((masks if part == "fg" else ~masks).any())


def _features(distance: Distance, pair: Pair, clip: ClipFiles, part: Region, cache: Path) -> np.ndarray:
    """(n d) rows of one clip, made or kept."""
    size = pair.truth_size if pair.truth is not None else None
    masks = pair.masks.digest() if part != "all" and pair.masks else ""
    facts = (
        VERSION,
        distance.name,
        distance.identity,
        clip.digest(),
        masks,
        part,
        pair.frames,
        size,
        distance.step,
    )
    place = cache / f"features-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.npy"
    held = _held(place)
    if held is not None:
        return held
    frames = at_size(clip.read(limit=pair.frames), size)
    rows = np.asarray(distance.rows(frames, pair.read_masks() if part != "all" else None, part), np.float32)
    if not np.isfinite(rows).all():
        raise InputError(clip.path, f"{distance.name}: features are not finite")
    with whole_file(place, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    return rows


def _held(place: Path) -> np.ndarray | None:
    """Rows that an earlier run left; None where there is nothing usable."""
    if not place.is_file():
        return None
    try:
        with place.open("rb") as file:
            held = np.lib.format.read_array(file, allow_pickle=False)
        good = held.ndim == 2 and held.size and held.dtype == np.float32 and np.isfinite(held).all()
        return np.asarray(held) if good else None
    except Exception:  # what a killed run or a full disk left can raise almost anything: made again
        return None


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
