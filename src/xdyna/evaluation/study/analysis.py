"""What the ratings say: the paper's Tables 3 and 6, and the tests that suit the design better.

A participant's ratings of one method and question are averaged over cases first; everything is then computed on
these *participant means*. The published degrees of freedom, F(4, 495) with 100 participants and 5 methods, are those
of this aggregation; without it they would be (4, 24995). A one-way analysis ignores that the same people judge all
methods, so repeated measures, Friedman's test and Holm-corrected pairs stand beside it.

Missing answers: a participant mean is over what is there. Overall exists for a video only where all questions about
it are answered. The one-way analysis takes every participant mean there is; the tests within participants take those
who have one for every method.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.study.options import AnalyseOptions
from xdyna.evaluation.study.questions import KEYS, OVERALL
from xdyna.evaluation.study.ratings import Ratings
from xdyna.evaluation.study.statistics import (
    Friedman,
    Mean,
    OneWay,
    Paired,
    RepeatedMeasures,
    friedman,
    holm,
    mean_interval,
    one_way,
    paired,
    repeated_measures,
)


@dataclass(frozen=True)
class MethodScore:
    """One cell of Table 3.

    Attributes:
        method: its name.
        of_participants: mean of participant means with its interval.
        of_ratings: mean of all ratings; the same when nothing is missing.
        ratings: how many ratings.
        participant_means: (p,) NaN where a participant rated none.
    """

    method: str
    of_participants: Mean
    of_ratings: float
    ratings: int
    participant_means: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two methods compared; `p_holm` and `p_signed_rank_holm` are corrected over all pairs of the score."""

    first: str
    second: str
    test: Paired
    p_holm: float
    p_signed_rank_holm: float


@dataclass(frozen=True)
class Score:
    """All that is computed of one question, or of Overall.

    Attributes:
        key: FG, BG, ID or Overall.
        methods: Table 3's column.
        one_way: Table 6's row, on participant means.
        repeated_measures, friedman: of participants who have a mean for every method.
        pairs: every pair of methods, of the same participants.
        one_way_on_ratings, one_way_on_case_means: the same analysis of other aggregations, to show what they do.
    """

    key: str
    methods: tuple[MethodScore, ...]
    one_way: OneWay
    repeated_measures: RepeatedMeasures
    friedman: Friedman
    pairs: tuple[Pair, ...]
    one_way_on_ratings: OneWay
    one_way_on_case_means: OneWay


@dataclass(frozen=True)
class Analysis:
    """The whole of a study.

    Attributes:
        ratings: what was analysed.
        confidence: of all intervals.
        missing: answers that participants did not give, by method.
        left_out: participants left out because answers of theirs are missing.
        scores: FG, BG, ID, Overall.
    """

    ratings: Ratings
    confidence: float
    missing: dict[str, int]
    left_out: tuple[str, ...]
    scores: tuple[Score, ...]

    def score(self, key: str) -> Score:
        """One score by its key."""
        return next(score for score in self.scores if score.key == key)

    @property
    def answers(self) -> int:
        """How many answers were analysed."""
        return int((~np.isnan(self.ratings.values)).sum())


def analyse(ratings: Ratings, options: AnalyseOptions | None = None) -> Analysis:
    """Analyse ratings.

    Raises:
        InputError: fewer than two methods, or nobody is left.
    """
    options = options or AnalyseOptions()
    if np.isnan(ratings.values).all():
        raise InputError("ratings", "hold no answers", "Let somebody answer first")
    if len(ratings.methods) < 2:
        raise InputError("ratings", f"are of {len(ratings.methods)} method, two or more can be compared")
    kept = ratings
    left_out: tuple[str, ...] = ()
    if options.missing == "complete":
        kept, left_out = _complete(ratings)
    missing = np.isnan(kept.values).sum((0, 1, 3))
    by_question = {key: kept.values[..., i] for i, key in enumerate(KEYS)} | {OVERALL: kept.overall}
    return Analysis(
        kept,
        options.confidence,
        {method: int(count) for method, count in zip(kept.methods, missing, strict=True)},
        left_out,
        tuple(_score(key, values, kept.methods, options.confidence) for key, values in by_question.items()),
    )


def participant_means(values: np.ndarray) -> np.ndarray:
    """(p c m) with NaN -> (p m), each the mean over the cases that were rated; NaN where none was."""
    return _mean(values, axis=1)


def _complete(ratings: Ratings) -> tuple[Ratings, tuple[str, ...]]:
    whole = ~np.isnan(ratings.values).any((1, 2, 3))
    left_out = tuple(name for name, kept in zip(ratings.participants, whole, strict=True) if not kept)
    if not whole.any():
        raise InputError(
            "--missing complete", "no participant has answered everything", "Use --missing available"
        )
    kept = tuple(name for name, stays in zip(ratings.participants, whole, strict=True) if stays)
    return Ratings(kept, ratings.cases, ratings.methods, ratings.values[whole]), left_out


def _score(key: str, values: np.ndarray, methods: tuple[str, ...], confidence: float) -> Score:
    means = participant_means(values)
    together = means[~np.isnan(means).any(1)]
    return Score(
        key,
        tuple(_method(name, values[:, :, m], means[:, m], confidence) for m, name in enumerate(methods)),
        one_way(_columns(means)),
        repeated_measures(together),
        friedman(together),
        _pairs(together, methods, confidence),
        one_way(_columns(values.reshape(-1, len(methods)))),
        one_way(_columns(_mean(values, axis=0))),
    )


def _method(name: str, values: np.ndarray, means: np.ndarray, confidence: float) -> MethodScore:
    given = values[~np.isnan(values)]
    return MethodScore(
        name,
        mean_interval(means[~np.isnan(means)], confidence=confidence),
        float(given.mean()) if given.size else float("nan"),
        int(given.size),
        means,
    )


def _pairs(together: np.ndarray, methods: tuple[str, ...], confidence: float) -> tuple[Pair, ...]:
    places = list(itertools.combinations(range(len(methods)), 2))
    tests = [paired(together[:, i], together[:, j], confidence=confidence) for i, j in places]
    adjusted = holm([test.p for test in tests])
    ranked = holm([test.p_signed_rank for test in tests])
    return tuple(
        Pair(methods[i], methods[j], test, p, rank)
        for (i, j), test, p, rank in zip(places, tests, adjusted, ranked, strict=True)
    )


def _columns(table: np.ndarray) -> list[np.ndarray]:
    return [column[~np.isnan(column)] for column in table.T]


def _mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """The mean over one axis without NaN; NaN, and no warning, where nothing is left."""
    given = ~np.isnan(values)
    count = given.sum(axis)
    total = np.where(given, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
