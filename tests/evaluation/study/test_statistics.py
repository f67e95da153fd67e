from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from xdyna.evaluation.study.statistics import (
    friedman,
    greenhouse_geisser,
    holm,
    mean_interval,
    one_way,
    paired,
    repeated_measures,
)

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("sizes", [(5, 5, 5), (3, 9, 4, 30), (2, 2)])
def test_one_way_is_scipys(sizes: tuple[int, ...]) -> None:
    groups = [RANDOM.normal(size=size) + i / 3 for i, size in enumerate(sizes)]
    result, wanted = one_way(groups), stats.f_oneway(*groups)
    assert result.f == pytest.approx(wanted.statistic, rel=1e-12)
    assert result.p == pytest.approx(wanted.pvalue, rel=1e-9)
    everything = np.concatenate(groups)
    total = np.square(everything - everything.mean()).sum()
    assert result.ss_between + result.ss_within == pytest.approx(total)
    assert result.eta_squared == pytest.approx(result.ss_between / total)


def test_the_papers_f_gives_its_p() -> None:
    """Table 6; 100 participants and 5 methods are df (4, 495)."""
    from xdyna.evaluation.study.statistics import f_tail

    for f, p in ((7.495, 0.000007), (5.327, 0.000331), (4.685, 0.001016), (5.617, 0.000199)):
        assert round(f_tail(f, 4, 495), 6) == p


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("shape", [(7, 3), (40, 5), (5, 2)])
def test_friedman_is_scipys_with_and_without_ties(shape: tuple[int, int], decimals: int | None) -> None:
    table = RANDOM.normal(size=shape) + np.arange(shape[1])
    if decimals is not None:
        table = np.round(table, decimals)
    result = friedman(table)
    if shape[1] > 2:
        wanted = stats.friedmanchisquare(*table.T)
        assert result.chi2 == pytest.approx(wanted.statistic, rel=1e-12)
        assert result.p == pytest.approx(wanted.pvalue, rel=1e-9)
    assert 0 <= result.kendall_w <= 1
    assert result.df == shape[1] - 1


def test_friedman_sees_ties_through_rounding_errors() -> None:
    table = np.array([[0.1 + 0.2, 0.3, 1.0], [2.0, 1.0, 3.0], [1.0, 2.0, 3.0]])
    same = np.array([[0.3, 0.3, 1.0], [2.0, 1.0, 3.0], [1.0, 2.0, 3.0]])
    assert friedman(table).chi2 == friedman(same).chi2
    assert friedman(table, round_ties=False).chi2 != friedman(same).chi2
    assert friedman(np.tile(np.arange(4.0), (6, 1))).kendall_w == pytest.approx(1)


def test_repeated_measures_of_two_conditions_is_the_paired_t_test() -> None:
    table = RANDOM.normal(size=(12, 2)) + [0, 0.7]
    result, wanted = repeated_measures(table), stats.ttest_rel(table[:, 0], table[:, 1])
    assert result.f == pytest.approx(wanted.statistic**2)
    assert result.p == pytest.approx(wanted.pvalue)
    assert result.epsilon == pytest.approx(1)
    assert result.p_corrected == pytest.approx(result.p)
    pair = paired(table[:, 0], table[:, 1])
    assert pair.p == pytest.approx(wanted.pvalue, rel=1e-9)
    low, high = wanted.confidence_interval(0.95)
    assert (pair.low, pair.high) == (pytest.approx(low), pytest.approx(high))


def test_repeated_measures_by_hand() -> None:
    """4 people x 3 conditions: SS conditions 26.17, error 9.17 by the table of sums."""
    table = np.array([[8.0, 7, 6], [9, 5, 2], [6, 2, 3], [5, 3, 1]])
    n, k = table.shape
    correction = table.sum() ** 2 / (n * k)
    conditions = (table.sum(0) ** 2).sum() / n - correction
    people = (table.sum(1) ** 2).sum() / k - correction
    error = (table**2).sum() - correction - conditions - people
    result = repeated_measures(table)
    assert result.f == pytest.approx((conditions / 2) / (error / 6))
    assert result.partial_eta_squared == pytest.approx(conditions / (conditions + error))
    assert (result.df_num, result.df_den, result.participants) == (2, 6, 4)


def test_epsilon_has_its_bounds() -> None:
    n, k = 4000, 4
    spherical = np.random.default_rng(0).normal(size=(n, k))
    assert greenhouse_geisser(spherical) == pytest.approx(1, abs=0.01)
    one_factor = np.outer(np.random.default_rng(1).normal(size=n), [0.0, 1, 2, 3])
    assert greenhouse_geisser(one_factor) == pytest.approx(1 / (k - 1))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9])[:1] == [1.0]
    assert math.isnan(holm([0.5, math.nan, 0.9])[1])
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_intervals_hold_their_level() -> None:
    """95 % intervals of 2000 samples of 8: 1900 hold the mean, standard deviation 9.7."""
    samples = np.random.default_rng(5).normal(2.0, 1.0, size=(2000, 8))
    held = sum(m.low <= 2.0 <= m.high for m in map(mean_interval, samples))
    assert abs(held - 1900) < 40
    one = mean_interval(np.array([3.0]))
    assert (one.mean, one.n) == (3.0, 1)
    assert math.isnan(one.low)
    assert mean_interval(np.array([])).n == 0


def test_signed_ranks_are_scipys() -> None:
    first, second = RANDOM.normal(size=(2, 20))
    assert paired(first, second).p_signed_rank == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert paired(first, first).p_signed_rank == 1.0


@pytest.mark.parametrize(
    "table",
    [
        np.ones((4, 3)), np.ones((1, 3)), np.ones((3, 1)), np.zeros((0, 3)), np.full((3, 4), 0.1),
        np.tile([0.1, 0.2, 0.3], (5, 1)), np.array([[1.0, 2, 3]]),
    ],
)  # fmt: skip
def test_nothing_to_tell_apart_is_undefined_or_infinite_not_noise(table: np.ndarray) -> None:
    spread = table.shape[0] > 1 and table.shape[1] > 1 and np.ptp(table) > 0
    within, once, ranks = repeated_measures(table), one_way(list(table.T)), friedman(table)
    if spread:
        assert math.isinf(within.f)
        assert within.p == 0
        assert math.isinf(once.f)
        assert ranks.kendall_w == pytest.approx(1)
        assert math.isinf(paired(table[:, 0], table[:, 1]).t)
    else:
        assert math.isnan(within.f)
        assert math.isnan(within.p)
        assert math.isnan(once.f)
        assert math.isnan(ranks.chi2)
