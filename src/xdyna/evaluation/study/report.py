"""An analysis as files: JSON with everything, markdown to read, CSV for tables, SVG plots."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xdyna import __version__
from xdyna.errors import InputError, OutputError
from xdyna.evaluation.study.analysis import Analysis, Score, analyse
from xdyna.evaluation.study.options import AnalyseOptions
from xdyna.evaluation.study.plots import plot_means, plot_pairs
from xdyna.evaluation.study.questions import LABELS
from xdyna.evaluation.study.ratings import csv_of, read_ratings
from xdyna.media.files import whole_file, write_json

AGGREGATION = (
    "A participant's ratings of one method and question are averaged over cases; everything is computed on these "
    "participant means. Overall is the mean of the three questions about one video."
)
MISSING = {
    "available": "Missing answers: a participant mean is over the answers there are; Overall needs all three answers "
    "about a video. The one-way analysis takes every participant mean; repeated measures, Friedman and pairs "
    "take the participants who have one for every method.",
    "complete": "Missing answers: participants who left out any answer do not count.",
}
TEXTS = ("report.md", "ratings.csv", "means.csv", "tests.csv", "pairs.csv", "means.svg", "pairs.svg")


def analyse_files(
    source: str | Path, output: str | Path | None = None, *, options: AnalyseOptions | None = None
) -> tuple[Analysis, Path]:
    """Read ratings, analyse them, and write the report.

    Args:
        source: a CSV or a study's folder, see `read_ratings`.
        output: the folder to write to; by default SOURCE-analysis beside the source.
        options: see `AnalyseOptions`.

    Returns:
        the analysis, and the folder with report.json, report.md, ratings.csv, means.csv, tests.csv, pairs.csv,
        means.svg and pairs.svg.

    Raises:
        InputError: see `read_ratings` and `analyse`; or the output lies in the study's folder.
        OutputError: results are there and `overwrite` is off, or they cannot be written.
    """
    options = options or AnalyseOptions()
    source = Path(source).expanduser()
    place = source.absolute()
    folder = Path(output).expanduser() if output else place.with_name(f"{place.stem}-analysis")
    if source.is_dir() and source.resolve() in (folder.resolve(), *folder.resolve().parents):
        problem = (
            "lies in the study's folder, which may be given to whoever serves it; results name the methods"
        )
        raise InputError(folder, problem, "Choose another place with -o")
    taken = [name for name in ("report.json", *TEXTS) if (folder / name).exists()]
    if taken and not options.overwrite:
        raise OutputError(folder / taken[0], "exists already", "Choose another folder, or pass --overwrite")
    analysis = analyse(read_ratings(source, key=options.key), options)
    write_report(analysis, folder, options=options, source=source)
    return analysis, folder


def write_report(analysis: Analysis, folder: Path, *, options: AnalyseOptions, source: Path) -> None:
    """Write all files of a report into a folder, replacing those that are there."""
    texts = (
        markdown(analysis, options=options),
        csv_of(analysis.ratings),
        _csv(_mean_rows(analysis)),
        _csv(_test_rows(analysis)),
        _csv(_pair_rows(analysis)),
        plot_means(analysis),
        plot_pairs(analysis),
    )
    for name, text in zip(TEXTS, texts, strict=True):
        with whole_file(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / "report.json", as_json(analysis, options=options, source=source))


def as_json(analysis: Analysis, *, options: AnalyseOptions, source: Path) -> dict[str, Any]:
    """Everything as plain values. JSON knows no NaN and no infinity: undefined is null, infinite is "inf"."""
    ratings = analysis.ratings
    return {
        "format": "xdyna-study-report/1",
        "xdyna": __version__,
        "source": str(source),
        "options": dataclasses.asdict(options),
        "aggregation": AGGREGATION,
        "missing_answers": MISSING[options.missing],
        "participants": len(ratings.participants),
        "cases": len(ratings.cases),
        "methods": list(ratings.methods),
        "answers": analysis.answers,
        "missing": analysis.missing,
        "left_out": list(analysis.left_out),
        "scores": {score.key: _score_json(score) for score in analysis.scores},
    }


def markdown(analysis: Analysis, *, options: AnalyseOptions) -> str:
    """The report to read."""
    ratings, level = analysis.ratings, f"{100 * analysis.confidence:g} %"
    absent = sum(analysis.missing.values())
    lines = [
        "# User study",
        "",
        f"{len(ratings.participants)} participants, {len(ratings.cases)} cases, {len(ratings.methods)} methods, "
        f"{analysis.answers} answers; {absent} missing"
        + (f" ({_listed(analysis.missing)})" if absent else "")
        + (f"; left out: {len(analysis.left_out)} participants" if analysis.left_out else "")
        + ".",
        "",
        f"{AGGREGATION} {MISSING[options.missing]}",
        "",
        f"## Means (paper, Table 3), {level} interval over participants, best in bold",
        "",
        _table(["method", *(LABELS[s.key] for s in analysis.scores)], _mean_cells(analysis)),
        "",
        "![means](means.svg)",
        "",
        "## One-way analysis of variance on participant means (paper, Table 6)",
        "",
        _table(
            ["score", "F", "df", "p", "eta squared"],
            [
                [LABELS[s.key], _number(a.f), f"{a.df_between}, {a.df_within}", _p(a.p), _number(a.eta_squared)]
                for s in analysis.scores
                for a in [s.one_way]
            ],
        ),
        "",
        "It takes the methods' ratings for those of different people. The same people rated all methods, so these suit "
        "better:",
        "",
        _table(
            ["score", "n", "repeated measures F", "df", "p", "epsilon", "p corrected", "Friedman chi2", "df", "p", "W"],
            [_within_cells(score) for score in analysis.scores],
        ),
        "",
        "Epsilon: Greenhouse and Geisser's; corrected p needs no sphericity. W: Kendall's concordance.",
        "",
        "## Pairs, within participants",
        "",
        "p corrected by Holm over the pairs of a score: paired t test, and Wilcoxon's signed ranks beside it.",
        "",
        _table(
            ["score", "pair", "difference", f"{level} interval", "t", "p (Holm)", "signed ranks p (Holm)", "d_z"],
            [
                [
                    LABELS[score.key], f"{_name(pair.first)} - {_name(pair.second)}", _number(test.difference),
                    f"{_number(test.low)} to {_number(test.high)}", f"{_number(test.t)} ({test.df})",
                    _p(pair.p_holm), _p(pair.p_signed_rank_holm), _number(test.effect),
                ]
                for score in analysis.scores
                for pair in score.pairs
                for test in [pair.test]
            ],
        ),
        "",
        "![pairs](pairs.svg)",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "means": {
            cell.method: {
                **_plain(cell.of_participants),
                "mean_of_all_ratings": _value(cell.of_ratings),
                "ratings": cell.ratings,
            }
            for cell in score.methods
        },
        "one_way": _plain(score.one_way),
        "repeated_measures": _plain(score.repeated_measures),
        "friedman": _plain(score.friedman),
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                **_plain(pair.test),
                "p_holm": _value(pair.p_holm),
                "p_signed_rank_holm": _value(pair.p_signed_rank_holm),
            }
            for pair in score.pairs
        ],
        "other_aggregations": {
            "one_way_without_aggregation": _plain(score.one_way_on_ratings),
            "one_way_on_case_means": _plain(score.one_way_on_case_means),
        },
    }


def _mean_cells(analysis: Analysis) -> list[list[str]]:
    best = {
        score.key: max(
            (c.of_participants.mean for c in score.methods if c.of_participants.n), default=math.nan
        )
        for score in analysis.scores
    }

    def cell(score: Score, m: int) -> str:
        mean = score.methods[m].of_participants
        text = _number(mean.mean, 2)
        if mean.mean == best[score.key]:
            text = f"**{text}**"
        return text if math.isnan(mean.low) else f"{text} [{mean.low:.2f}, {mean.high:.2f}]"

    methods = enumerate(analysis.ratings.methods)
    return [[_name(name), *(cell(score, m) for score in analysis.scores)] for m, name in methods]


def _within_cells(score: Score) -> list[str]:
    a, f = score.repeated_measures, score.friedman
    return [
        LABELS[score.key], str(a.participants), _number(a.f), f"{a.df_num}, {a.df_den}", _p(a.p),
        _number(a.epsilon), _p(a.p_corrected), _number(f.chi2), str(f.df), _p(f.p), _number(f.kendall_w),
    ]  # fmt: skip


def _mean_rows(analysis: Analysis) -> list[dict[str, Any]]:
    return [
        {
            "score": score.key, "method": cell.method, **_plain(cell.of_participants),
            "mean_of_all_ratings": _value(cell.of_ratings), "ratings": cell.ratings,
        }
        for score in analysis.scores
        for cell in score.methods
    ]  # fmt: skip


def _test_rows(analysis: Analysis) -> list[dict[str, Any]]:
    return [
        {"score": score.key, **{f"{name}_{key}": value for name, test in (
            ("one_way", score.one_way), ("repeated", score.repeated_measures), ("friedman", score.friedman),
        ) for key, value in _plain(test).items()}}
        for score in analysis.scores
    ]  # fmt: skip


def _pair_rows(analysis: Analysis) -> list[dict[str, Any]]:
    return [{"score": s.key, **pair} for s in analysis.scores for pair in _score_json(s)["pairs"]]


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plain(result: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in dataclasses.asdict(result).items()}


def _value(value: float | int) -> float | int | str | None:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _number(value: float, places: int = 3) -> str:
    return "undefined" if math.isnan(value) else f"{value:.{places}f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return f"{value:.6f}" if value >= 5e-7 else f"{value:.1e}" if value > 0 else "below 1e-300"


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(text: str) -> str:
    """A method's name as text: it cannot end a cell, nor begin markup or HTML."""
    return re.sub(r"([\\|`\[\]<>*_#&!])", r"\\\1", text)


def _listed(missing: dict[str, int]) -> str:
    return ", ".join(f"{_name(method)} {count}" for method, count in missing.items() if count)
