"""The Frechet distance between two sets of features, as Gaussians (evaluation.md 2.6).

d2 = |mu1 - mu2|2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With centred features X (n d) and Y (m d), scaled so that S1 = X'X and S2 = Y'Y, the last trace is the sum of the
singular values of X Y': exact, real, and small where there are fewer samples than dimensions. The published codes
take scipy's matrix root of S1 S2 instead, which is only approximate for such singular products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xdyna.errors import InputError, OptionError

Covariance = Literal["unbiased", "biased"]
"""Divided by n - 1 (pytorch-fid, DisCo, DTFVD) or by n (cd-FVD)."""

Method = Literal["exact", "sqrtm"]
"""The exact low-rank form, or scipy's matrix root as the published codes use it."""

_REGULARISER = 1e-6
_IMAGINARY = 1e-3


@dataclass(frozen=True)
class FrechetResult:
    """A distance and what it was taken from.

    Attributes:
        value: the squared Frechet distance (what FID and FVD report), never negative.
        low, high: ends of the bootstrap interval; None when none was asked for or there is too little to draw from.
        samples: numbers of rows of the two sets.
        dimensions: length of a feature.
        covariance: how the covariances were scaled.
        resamples: how many bootstrap draws the interval stands on.
    """

    value: float
    low: float | None
    high: float | None
    samples: tuple[int, int]
    dimensions: int
    covariance: Covariance
    resamples: int


def frechet_distance(
    first: np.ndarray,
    second: np.ndarray,
    *,
    covariance: Covariance = "unbiased",
    method: Method = "exact",
) -> float:
    """The squared Frechet distance of two sets of features.

    Args:
        first: (n d) finite numbers; n is at least 2 for an unbiased covariance, 1 for a biased one.
        second: (m d).
        covariance: "unbiased" or "biased".
        method: "exact", or "sqrtm" to compare with published numbers: for fewer samples than dimensions that one
            is off by about 1e-7 to 1e-2 of its value.

    Returns:
        a number >= 0 ("sqrtm" can give a slightly negative one, as the published codes do).

    Raises:
        InputError: too few rows, features of different length, NaN or infinity, or (sqrtm) no real root.
        OptionError: an unknown covariance or method.
    """
    first, second = _checked(first, second, covariance)
    if method == "exact":
        return _exact(_Moments(first, covariance), _Moments(second, covariance))
    if method == "sqrtm":
        return _by_matrix_root(first, second, covariance)
    raise OptionError("method", f"{method!r} is unknown", "Allowed are exact and sqrtm")


def frechet_with_interval(
    first: np.ndarray,
    second: np.ndarray,
    *,
    covariance: Covariance = "unbiased",
    clips: tuple[np.ndarray, np.ndarray] | None = None,
    paired: bool = False,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> FrechetResult:
    """The exact distance with a bootstrap interval.

    Whole clips are drawn with replacement, since frames and windows of one clip are alike. The interval is the
    spread of the draws about their own mean, laid around the distance: drawing with replacement by itself makes
    every such distance larger, which is no news about the sets. It tells how far the number would move with other
    clips of the same count; it does not correct for that count (few samples make every Frechet distance large).

    Args:
        first, second: (n d) and (m d).
        covariance: "unbiased" or "biased".
        clips: for each set, which clip each row is of: (n,) and (m,) integers. None: every row is its own clip.
        paired: the same clip numbers in both sets belong together and are drawn together.
        resamples: number of draws; 0 for no interval.
        level: share of the draws inside the interval.
        seed: of the draws.

    Returns:
        the result. Its interval is None where a set has fewer than 3 clips.

    Raises:
        InputError: as `frechet_distance`, or clip numbers that do not fit.
        OptionError: `level` or `resamples` out of range.
    """
    if not 0 < level < 1:
        raise OptionError("level", f"{level} is not between 0 and 1")
    if resamples < 0:
        raise OptionError("resamples", f"{resamples} is below 0")
    first, second = _checked(first, second, covariance)
    ids = tuple(
        _clip_ids(rows, None if clips is None else clips[side]) for side, rows in enumerate((first, second))
    )
    if paired and set(ids[0].tolist()) != set(ids[1].tolist()):
        raise InputError("clips", "the two sets hold different clips, so they cannot be drawn in pairs")
    value = _exact(_Moments(first, covariance), _Moments(second, covariance))
    low = high = None
    draws: list[float] = []
    if resamples and min(np.unique(side).size for side in ids) >= 3:
        for counts in _drawn(ids, paired, resamples, np.random.default_rng(seed)):
            sums = [int(count.sum()) for count in counts]
            if min(sums) < (2 if covariance == "unbiased" else 1):
                continue
            draws.append(
                _exact(
                    _Moments(first, covariance, counts[0]),
                    _Moments(second, covariance, counts[1]),
                )
            )
    if draws:
        tail = (1 - level) / 2
        lowest, highest = np.quantile(draws, [tail, 1 - tail])
        low = max(0.0, value + float(lowest) - float(np.mean(draws)))
        high = value + float(highest) - float(np.mean(draws))
    samples = (first.shape[0], second.shape[0])
    return FrechetResult(value, low, high, samples, first.shape[1], covariance, len(draws))


class _Moments:
    """Mean (d,) and a root of the covariance: `root` (r d) with root' root = covariance, r = min(n, d)."""

    def __init__(self, rows: np.ndarray, covariance: Covariance, counts: np.ndarray | None = None) -> None:
        if counts is None:
            counts = np.ones(rows.shape[0])
        else:
            rows, counts = rows[counts > 0], counts[counts > 0]
        number = float(counts.sum())
        self.mean = counts @ rows / number
        scale = np.sqrt(counts / (number - 1 if covariance == "unbiased" else number))
        root = (rows - self.mean) * scale[:, None]
        # a triangular factor has the same root' root and no more rows than dimensions
        self.root = np.linalg.qr(root, mode="r") if root.shape[0] > root.shape[1] else root
        self.trace = float(np.square(root).sum())


def _exact(first: _Moments, second: _Moments) -> float:
    shared = float(np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum())
    apart = float(np.square(first.mean - second.mean).sum())
    return max(0.0, apart + first.trace + second.trace - 2 * shared)


def _by_matrix_root(first: np.ndarray, second: np.ndarray, covariance: Covariance) -> float:
    from scipy.linalg import sqrtm

    freedom = 1 if covariance == "unbiased" else 0
    spreads = [np.atleast_2d(np.cov(rows, rowvar=False, ddof=freedom)) for rows in (first, second)]
    root = np.asarray(sqrtm(spreads[0] @ spreads[1]))
    if not np.isfinite(root).all():
        shift = _REGULARISER * np.eye(first.shape[1])
        root = np.asarray(sqrtm((spreads[0] + shift) @ (spreads[1] + shift)))
    if not np.isfinite(root).all():
        raise InputError("features", "their covariances have no finite matrix root", "Use the exact method")
    if np.iscomplexobj(root):
        if float(np.abs(np.diagonal(root).imag).max()) > _IMAGINARY:
            raise InputError("features", "the matrix root is not real", "Use the exact method")
        root = root.real
    apart = float(np.square(first.mean(axis=0) - second.mean(axis=0)).sum())
    return apart + float(np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * np.trace(root))


def _checked(first: np.ndarray, second: np.ndarray, covariance: str) -> tuple[np.ndarray, np.ndarray]:
    if covariance not in ("unbiased", "biased"):
        raise OptionError("covariance", f"{covariance!r} is unknown", "Allowed are unbiased and biased")
    least = 2 if covariance == "unbiased" else 1
    sets = []
    for which, rows in (("first", first), ("second", second)):
        try:
            rows = np.asarray(rows, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{which} set", f"holds no numbers ({error})") from error
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise InputError(f"{which} set", f"has the shape {rows.shape}, not (samples, features)")
        if rows.shape[0] < least:
            raise InputError(
                f"{which} set",
                f"{rows.shape[0]} samples; a Frechet distance needs at least {least}",
                "Give more frames or clips",
            )
        if not np.isfinite(rows).all():
            raise InputError(f"{which} set", "its features hold NaN or infinity", "Check the clips and weights")
        sets.append(rows)
    if sets[0].shape[1] != sets[1].shape[1]:
        lengths = f"{sets[0].shape[1]} and {sets[1].shape[1]}"
        raise InputError("features", f"the two sets have features of {lengths} numbers", "Use one network")
    return sets[0], sets[1]


def _clip_ids(rows: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    if given is None:
        return np.arange(rows.shape[0])
    ids = np.asarray(given)
    if ids.shape != (rows.shape[0],):
        raise InputError("clips", f"{ids.shape} clip numbers for {rows.shape[0]} rows; one a row is needed")
    return ids


def _drawn(
    ids: tuple[np.ndarray, ...], paired: bool, resamples: int, generator: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """For each draw and set: how often each row counts."""
    known = [np.unique(side, return_inverse=True) for side in ids]
    sizes = [names.size for names, _ in known]
    for _ in range(resamples):
        drawn = [np.bincount(generator.integers(0, size, size), minlength=size) for size in sizes]
        if paired:
            drawn[1] = drawn[0]  # sorted names are equal, so places are too
        yield [times[place].astype(float) for times, (_, place) in zip(drawn, known, strict=True)]
