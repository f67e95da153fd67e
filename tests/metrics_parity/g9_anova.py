"""The user study: means, analyses of variance, Friedman's test, on tables and on a CSV."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.metrics_parity.fixture import Case, Check, UnknownCase, exact, relative
from xdyna.evaluation.study.analysis import Analysis, analyse
from xdyna.evaluation.study.questions import KEYS, OVERALL
from xdyna.evaluation.study.ratings import Ratings, ratings_of_csv
from xdyna.evaluation.study.statistics import f_tail, friedman, one_way

NUMBER, TAIL = 1e-9, 1e-6


def check(case: Case) -> Iterator[Check]:
    """One case, by what it gives."""
    if "ratings" in case.inputs:
        yield from _scores(_analysis_of_table(case), case.output("results"))
    elif "csv" in case.inputs:
        yield from _scores(_analysis_of_csv(case), case.output("results"))
    elif "groups" in case.inputs:
        result = one_way([np.asarray(group) for group in case.input("groups")])
        yield relative("F", result.f, case.output("F"), 1e-10)
        yield relative("p", result.p, case.output("p"), NUMBER)
        yield exact("df", [result.df_between, result.df_within], case.output("df"))
    elif "F_d1_d2" in case.inputs:
        tails = [f_tail(f, df_between, df_within) for f, df_between, df_within in case.input("F_d1_d2")]
        yield relative("p", tails, case.output("p"), NUMBER)
    elif case.inputs and set(case.inputs) == set(case.outputs):
        for name in case.inputs:
            result = one_way([np.asarray(group) for group in case.input(name)])
            yield _same_class(name, [result.f, result.p], case.output(name))
    else:
        raise UnknownCase(f"inputs {sorted(case.inputs)}")


GROUPS = {"g9_anova": check}


def _analysis_of_table(case: Case) -> Analysis:
    values = np.asarray(case.input("ratings"), np.float64)
    participants, cases, methods, questions = values.shape
    if questions != len(KEYS):
        raise UnknownCase(f"{questions} questions")
    names = [tuple(f"{letter}{i}" for i in range(count)) for letter, count in (
        ("p", participants), ("c", cases), ("m", methods),
    )]  # fmt: skip
    return analyse(Ratings(names[0], names[1], names[2], values))


def _analysis_of_csv(case: Case) -> Analysis:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.csv"
        path.write_text(case.input("csv"), encoding="utf-8")
        return analyse(ratings_of_csv(path))


def _scores(analysis: Analysis, wanted: dict[str, Any]) -> Iterator[Check]:
    if set(wanted) != {*KEYS, OVERALL}:
        raise UnknownCase(f"scores {sorted(wanted)}")
    for key, results in wanted.items():
        got = _flat(analysis, key)
        unknown = sorted(set(results) - set(got))
        if unknown:
            raise UnknownCase(f"result {unknown[0]!r}")
        for name, value in results.items():
            yield from _compare(f"{key} {name}", got[name], value)


def _flat(analysis: Analysis, key: str) -> dict[str, Any]:
    score = analysis.score(key)
    means = [cell.of_participants for cell in score.methods]
    every, cases, once = score.one_way_on_ratings, score.one_way_on_case_means, score.one_way
    repeated = score.repeated_measures
    # the reference ranks means apart that differ in their last bit only; our default does not
    table = np.stack([cell.participant_means for cell in score.methods], axis=1)
    ranks = friedman(table[~np.isnan(table).any(1)], round_ties=False)
    of_one_way = {
        name: {"F": a.f, "p": a.p, "df_between": a.df_between, "df_within": a.df_within}
        for name, a in (
            ("oneway", once), ("oneway_without_aggregation", every), ("oneway_on_case_means", cases),
        )
    }  # fmt: skip
    return {
        **of_one_way,
        "F": once.f,
        "p": once.p,
        "method_mean": [cell.of_ratings for cell in score.methods],
        "mean_of_all_ratings": [cell.of_ratings for cell in score.methods],
        "mean_of_participant_means": [mean.mean for mean in means],
        "n_per_method": [mean.n for mean in means],
        "method_sd_of_participant_means_ddof1": [mean.sd for mean in means],
        "friedman_on_participant_means": {"chi2": ranks.chi2, "p": ranks.p, "df": ranks.df},
        "repeated_measures": {
            "F": repeated.f, "p": repeated.p, "df_num": repeated.df_num, "df_den": repeated.df_den,
        },
        "sums_of_squares": {
            "between": once.ss_between, "within": once.ss_within, "total": once.ss_between + once.ss_within,
        },
    }  # fmt: skip


def _compare(label: str, got: Any, wanted: Any) -> Iterator[Check]:
    if isinstance(wanted, dict):
        if set(got) != set(wanted):
            yield exact(f"{label} holds", sorted(got), sorted(wanted))
            return
        for name, value in wanted.items():
            yield from _compare(f"{label} {name}", got[name], value)
    elif label.endswith(" p") and 0 < wanted < 1e-30:
        # so small that its logarithm is what can be compared
        yield relative(label, math.log10(got) if got > 0 else -math.inf, math.log10(wanted), TAIL)
    else:
        yield relative(label, got, wanted, TAIL if label.endswith(" p") else NUMBER)


def _same_class(label: str, got: list[float], wanted: list[Any]) -> Check:
    """Both NaN, both infinite, or equal."""
    return exact(label, [repr(float(value)) for value in got], [repr(float(value)) for value in wanted])
