"""Analyses of variance and what goes beside them: numbers in, numbers out.

Formulas after Winer, *Statistical Principles in Experimental Design*; agreement with scipy 1.17 and
statsmodels 0.15 is tested (fixture g9). What is undefined comes out as NaN (no variance at all) or infinite
(groups differ and nothing varies inside them), never as an exception.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAN = math.nan


@dataclass(frozen=True)
class OneWay:
    """A one-way analysis of variance of independent groups.

    Attributes:
        f, p: the statistic and its upper tail.
        df_between, df_within: degrees of freedom.
        ss_between, ss_within: sums of squares; their sum is the total.
        eta_squared: share of the total that lies between groups.
    """

    f: float
    p: float
    df_between: int
    df_within: int
    ss_between: float
    ss_within: float
    eta_squared: float


@dataclass(frozen=True)
class RepeatedMeasures:
    """A one-way analysis of variance in which every participant saw every condition.

    Attributes:
        f, p: the statistic and its upper tail, sphericity taken for granted.
        df_num, df_den: degrees of freedom.
        epsilon: Greenhouse and Geisser's estimate of how far sphericity fails, from 1/(k-1) to 1 (holds).
        p_corrected: the tail with both degrees of freedom times epsilon.
        partial_eta_squared: effect over effect and error.
        participants: how many.
    """

    f: float
    p: float
    df_num: int
    df_den: int
    epsilon: float
    p_corrected: float
    partial_eta_squared: float
    participants: int


@dataclass(frozen=True)
class Friedman:
    """Friedman's rank test, corrected for ties.

    Attributes:
        chi2, p: the statistic and its upper tail.
        df: degrees of freedom.
        kendall_w: agreement of the participants' rankings, 0 to 1.
        participants: how many.
    """

    chi2: float
    p: float
    df: int
    kendall_w: float
    participants: int


@dataclass(frozen=True)
class Paired:
    """Two conditions compared within participants.

    Attributes:
        difference: mean of first minus second; low, high: its confidence interval.
        t, p: paired t test, two-sided; df: its degrees of freedom.
        p_signed_rank: Wilcoxon's signed-rank test, two-sided, ties and zeros after Pratt.
        effect: difference over the differences' standard deviation (Cohen's d_z).
        participants: how many.
    """

    difference: float
    low: float
    high: float
    t: float
    df: int
    p: float
    p_signed_rank: float
    effect: float
    participants: int


@dataclass(frozen=True)
class Mean:
    """A mean over participants with its t interval.

    Attributes:
        mean: the mean; low, high: its interval, NaN with fewer than two values.
        sd: standard deviation, n - 1 in the denominator.
        n: how many values.
    """

    mean: float
    low: float
    high: float
    sd: float
    n: int


def f_tail(f: float, df_between: float, df_within: float) -> float:
    """Upper tail of the F distribution; NaN for a NaN, 0 for infinity."""
    from scipy.special import fdtrc

    if math.isnan(f) or df_between <= 0 or df_within <= 0:
        return NAN
    return 0.0 if math.isinf(f) else float(fdtrc(df_between, df_within, f))


def one_way(groups: Sequence[np.ndarray]) -> OneWay:
    """Compare the means of independent groups (the paper's Table 6).

    Args:
        groups: one array of numbers a group, of any sizes; empty ones do not count.

    Returns:
        the analysis; NaN where fewer than two groups, or no degree of freedom within them, are left.
    """
    arrays = [np.asarray(group, np.float64).ravel() for group in groups]
    arrays = [array for array in arrays if array.size]
    count = sum(array.size for array in arrays)
    df_between, df_within = len(arrays) - 1, count - len(arrays)
    if df_between < 1:
        return OneWay(NAN, NAN, max(df_between, 0), max(df_within, 0), NAN, NAN, NAN)
    everything = np.concatenate(arrays)
    grand = float(everything.mean())
    between = _clean(
        float(sum(array.size * (float(array.mean()) - grand) ** 2 for array in arrays)), everything
    )
    within = float(sum(_squares(array) for array in arrays))
    f = _ratio(between / df_between, within / df_within) if df_within > 0 else NAN
    return OneWay(
        f, f_tail(f, df_between, df_within), df_between, df_within, between, within,
        _ratio(between, between + within),
    )  # fmt: skip


def repeated_measures(table: np.ndarray) -> RepeatedMeasures:
    """Compare conditions that every participant saw.

    Args:
        table: (n k), participants by conditions, without NaN.

    Returns:
        the analysis; NaN with fewer than two participants or conditions.
    """
    table = np.asarray(table, np.float64)
    n, k = table.shape
    df_num, df_den = max(k - 1, 0), max((k - 1) * (n - 1), 0)
    if n < 2 or k < 2:
        return RepeatedMeasures(NAN, NAN, df_num, df_den, NAN, NAN, NAN, n)
    grand = table.mean()
    effect = _clean(float(n * np.square(table.mean(0) - grand).sum()), table)
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + grand
    error = _clean(float(np.square(residual).sum()), table)
    f = _ratio(effect / df_num, error / df_den)
    epsilon = greenhouse_geisser(table)
    return RepeatedMeasures(
        f, f_tail(f, df_num, df_den), df_num, df_den, epsilon,
        f_tail(f, df_num * epsilon, df_den * epsilon) if not math.isnan(epsilon) else NAN,
        _ratio(effect, effect + error), n,
    )  # fmt: skip


def greenhouse_geisser(table: np.ndarray) -> float:
    """Greenhouse and Geisser's epsilon of (n k): 1 where sphericity holds, 1/(k-1) where it fails most.

    NaN where the conditions' differences do not vary.
    """
    k = table.shape[1]
    covariance = np.cov(table, rowvar=False)
    centred = covariance - covariance.mean(0) - covariance.mean(1, keepdims=True) + covariance.mean()
    squares = (k - 1) * float(np.square(centred).sum())
    trace = _clean(float(np.trace(centred)), table)
    return min(1.0, trace**2 / squares) if trace > 0 and squares > 0 else NAN


def friedman(table: np.ndarray, *, round_ties: bool = True) -> Friedman:
    """Friedman's test of conditions that every participant saw.

    Args:
        table: (n k), participants by conditions, without NaN.
        round_ties: take values that agree to 12 decimals for equal. Two means of the same ratings may differ in
            their last bit by the order of summation alone; scipy ranks them apart (chi2 64.232 instead of 64.451
            in fixture g9). False does as scipy does.

    Returns:
        the test; NaN with fewer than two participants or conditions, or when everybody ties everything.
    """
    from scipy.special import chdtrc
    from scipy.stats import rankdata

    table = np.asarray(table, np.float64)
    n, k = table.shape
    if n < 2 or k < 2:
        return Friedman(NAN, NAN, max(k - 1, 0), NAN, n)
    ranks = rankdata(np.round(table, 12) if round_ties else table, axis=1)
    spread = float(np.square(ranks.sum(0) - n * (k + 1) / 2).sum())
    # the sum of squared ranks carries the correction for ties
    own = float(np.square(ranks).sum()) - n * k * (k + 1) ** 2 / 4
    chi2 = (k - 1) * spread / own if own > 0 else NAN
    p = float(chdtrc(k - 1, chi2)) if not math.isnan(chi2) else NAN
    return Friedman(chi2, p, k - 1, chi2 / (n * (k - 1)), n)


def paired(first: np.ndarray, second: np.ndarray, *, confidence: float = 0.95) -> Paired:
    """Compare two conditions within participants.

    Args:
        first, second: (n,) values of the same participants, without NaN.
        confidence: of the interval, between 0 and 1.
    """
    from scipy.special import stdtr

    differences = np.round(np.asarray(first, np.float64) - np.asarray(second, np.float64), 12)
    mean = mean_interval(differences, confidence=confidence)
    df = max(mean.n - 1, 0)
    t = _ratio(mean.mean, mean.sd / math.sqrt(mean.n)) if df else NAN
    p = NAN if math.isnan(t) else 0.0 if math.isinf(t) else 2 * float(stdtr(df, -abs(t)))
    return Paired(
        mean.mean, mean.low, mean.high, t, df, p, _signed_rank(differences),
        _ratio(mean.mean, mean.sd) if df else NAN, mean.n,
    )  # fmt: skip


def mean_interval(values: np.ndarray, *, confidence: float = 0.95) -> Mean:
    """Mean of (n,) values with Student's interval; NaN for what too few values do not give."""
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    n = values.size
    mean = float(values.mean()) if n else NAN
    if n < 2:
        return Mean(mean, NAN, NAN, NAN, n)
    sd = math.sqrt(_squares(values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Mean(mean, mean - half, mean + half, sd, n)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p in the order given. A NaN stays one and does not count."""
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])
    adjusted, highest = [NAN] * len(p), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p[i]))
        adjusted[i] = highest
    return adjusted


def _signed_rank(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 when nothing differs."""
    from scipy.stats import wilcoxon

    if differences.size < 2:
        return NAN
    if not differences.any():
        return 1.0
    ties = len(np.unique(np.abs(differences))) < differences.size or not differences.all()
    method = "exact" if differences.size <= 50 and not ties else "asymptotic"
    return float(wilcoxon(differences, zero_method="pratt", method=method).pvalue)


def _squares(values: np.ndarray) -> float:
    """Sum of squared deviations from the mean; exactly 0 for equal values."""
    return _clean(float(np.square(values - values.mean()).sum()), values)


def _clean(squares: float, values: np.ndarray) -> float:
    """A sum of squares; 0 where it is no more than rounding: else F of equal values would be noise over noise."""
    scale = float(np.abs(values).max(initial=0.0)) * 2.0**-48
    return squares if squares > values.size * scale**2 else 0.0


def _ratio(top: float, bottom: float) -> float:
    """top / bottom: NaN for 0/0, infinite for a number over 0."""
    if bottom != 0:
        return top / bottom
    return NAN if top == 0 or math.isnan(top) else math.copysign(math.inf, top)
