from __future__ import annotations

import numpy as np
import pytest

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.frechet import frechet_distance, frechet_with_interval


def features(rows: int, length: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((length, length))
    return generator.standard_normal((rows, length)) @ mixing + shift


@pytest.mark.parametrize("covariance", ["unbiased", "biased"])
@pytest.mark.parametrize(("rows", "others"), [(80, 60), (200, 9)])
def test_the_exact_form_is_scipys_where_scipy_is_exact(covariance: str, rows: int, others: int) -> None:
    first, second = features(rows, 8), features(others, 8, seed=1, shift=0.3)
    exact = frechet_distance(first, second, covariance=covariance)
    assert frechet_distance(first, second, covariance=covariance, method="sqrtm") == pytest.approx(
        exact, rel=1e-7
    )


def test_fewer_samples_than_dimensions() -> None:
    first, second = features(9, 40), features(7, 40, seed=1)
    # scipy's root of a singular product is near, not exact
    assert frechet_distance(first, second, method="sqrtm") == pytest.approx(
        frechet_distance(first, second), rel=1e-3
    )


def test_known_distances() -> None:
    rows = features(50, 12)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 0.5) == pytest.approx(12 * 0.25)
    # a set scaled by s has the covariance s^2 S and the mean s m
    expected = np.square(rows.mean(axis=0)).sum() + rows.var(axis=0, ddof=1).sum()
    assert frechet_distance(rows, 2 * rows) == pytest.approx(expected)
    assert frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0], [1.0]])) == pytest.approx(2)


def test_it_does_not_matter_which_side_is_which_or_how_tall_the_sets_are() -> None:
    first, second = features(300, 6), features(4, 6, seed=3)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_a_large_common_offset_costs_no_digits() -> None:
    first, second = features(30, 5), features(20, 5, seed=1)
    assert frechet_distance(first + 1e6, second + 1e6) == pytest.approx(
        frechet_distance(first, second), rel=1e-6
    )


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "1 samples"),
        (np.zeros((0, 3)), np.zeros((5, 3)), "0 samples"),
        (np.zeros((4, 3)), np.zeros((5, 2)), "3 and 2 numbers"),
        (np.full((4, 3), np.nan), np.zeros((5, 3)), "NaN"),
        (np.zeros((4, 3)), np.full((5, 3), np.inf), "second set"),
        (np.zeros(4), np.zeros((5, 3)), "shape"),
        (np.array([["a"]]), np.zeros((5, 3)), "no numbers"),
    ],
)
def test_what_has_no_distance_is_an_error(first: np.ndarray, second: np.ndarray, problem: str) -> None:
    for method in ("exact", "sqrtm"):
        with pytest.raises(InputError, match=problem):
            frechet_distance(first, second, method=method)


def test_unknown_options() -> None:
    rows = np.zeros((3, 2))
    with pytest.raises(OptionError, match="covariance"):
        frechet_distance(rows, rows, covariance="some")
    with pytest.raises(OptionError, match="method"):
        frechet_distance(rows, rows, method="some")
    with pytest.raises(OptionError, match="level"):
        frechet_with_interval(rows, rows, level=1.0)
    with pytest.raises(OptionError, match="resamples"):
        frechet_with_interval(rows, rows, resamples=-1)


def test_constant_sets() -> None:
    assert frechet_distance(np.ones((5, 4)), np.ones((6, 4))) == 0
    assert frechet_distance(np.ones((5, 4)), np.zeros((6, 4))) == pytest.approx(4)
    assert frechet_distance(np.ones((1, 4)), np.zeros((1, 4)), covariance="biased") == pytest.approx(4)


def test_the_interval_holds_the_distance_and_comes_from_the_seed() -> None:
    first, second = features(40, 4), features(30, 4, seed=1, shift=0.4)
    result = frechet_with_interval(first, second, resamples=60, seed=5)
    assert result.value == frechet_distance(first, second)
    assert result.low is not None
    assert result.high is not None
    assert 0 <= result.low < result.value < result.high
    assert (result.samples, result.dimensions, result.resamples) == ((40, 30), 4, 60)
    assert result == frechet_with_interval(first, second, resamples=60, seed=5)
    assert result != frechet_with_interval(first, second, resamples=60, seed=6)


def test_the_interval_is_as_wide_as_new_clips_make_it() -> None:
    def sets(seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        return generator.normal(0, 1, (60, 3)), generator.normal(0.8, 1.3, (60, 3))

    spread = np.std([frechet_distance(*sets(seed)) for seed in range(100)])
    widths = []
    for seed in range(10):
        result = frechet_with_interval(*sets(1000 + seed), resamples=100)
        assert result.low is not None
        assert result.high is not None
        widths.append(result.high - result.low)
    assert np.mean(widths) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.35)


def test_rows_of_one_clip_are_drawn_together() -> None:
    # 6 clips of 20 equal rows each: as rows they look like 120 samples, as clips there are 6
    generator = np.random.default_rng(0)
    first = np.repeat(generator.standard_normal((6, 3)), 20, axis=0)
    second = np.repeat(generator.standard_normal((6, 3)) + 1, 20, axis=0)
    clips = np.repeat(np.arange(6), 20)
    by_row = frechet_with_interval(first, second, resamples=100)
    by_clip = frechet_with_interval(first, second, clips=(clips, clips), resamples=100)
    paired = frechet_with_interval(first, second, clips=(clips, clips), paired=True, resamples=100)
    assert by_row.value == by_clip.value == paired.value
    assert by_row.high is not None
    assert by_row.low is not None
    assert by_clip.high is not None
    assert by_clip.low is not None
    assert by_clip.high - by_clip.low > 2 * (by_row.high - by_row.low)


def test_no_interval_from_two_clips() -> None:
    rows = features(8, 3)
    clips = np.repeat([0, 1], 4)
    result = frechet_with_interval(rows, rows + 1, clips=(clips, clips))
    assert (result.low, result.high, result.resamples) == (None, None, 0)
    assert frechet_with_interval(rows, rows + 1, resamples=0).low is None


def test_clip_numbers_have_to_fit() -> None:
    rows = features(8, 3)
    with pytest.raises(InputError, match="clip numbers"):
        frechet_with_interval(rows, rows, clips=(np.arange(7), np.arange(8)))
    with pytest.raises(InputError, match="different clips"):
        frechet_with_interval(rows, rows, clips=(np.arange(8), np.arange(1, 9)), paired=True)
