"""`xdyna compare`: the paper's tables for any systems, from their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdyna.errors import OptionError
from xdyna.evaluation.metrics import split_name, title_of
from xdyna.evaluation.report import Report, best_of, cell, number, tex_text
from xdyna.media.files import whole_file, write_failure

ARROWS = {"more": "up", "less": "down", "one": "to 1"}


@dataclass(frozen=True)
class Table:
    """One of the paper's tables.

    Attributes:
        name: of its files.
        title: what stands above it.
        columns: full names of metrics, in the paper's order. Of alternatives parted by "|", the first that any report
            has is taken.
    """

    name: str
    title: str
    columns: tuple[str, ...]


TABLES = (
    Table("table1", "Table 1: dynamics (DTFVD)", ("fg:dtfvd[16]", "bg:dtfvd[16]", "dtfvd[16]")),
    Table(
        "table2",
        "Table 2: quality",
        (
            "fg:l1_disco|l1_disco", "fg:psnr|psnr", "fg:lpips[vgg,unit]|lpips[vgg,unit]", "fg:ssim_disco|ssim_disco",
            "face_cos[adaface-ir101]|face_cos[adaface-ir50]", "face_det[mtcnn]", "fg:fid|fid", "fg:cd_fvd|cd_fvd",
            "bg:fid", "bg:cd_fvd",
        ),
    ),
    Table(
        "table4",
        "Table 4: ablations",
        ("fg:dtfvd[16]", "bg:dtfvd[16]", "dtfvd[16]", "face_cos[adaface-ir101]|face_cos[adaface-ir50]"),
    ),
    Table("table5", "Table 5: cross-driving", ("dtfvd[16]", "fid", "face_exp_mp51")),
    Table(
        "offline",
        "What needs no file of others",
        (
            "psnr", "ssim_disco", "dtfvd[synth]", "fg:dtfvd[synth]", "bg:dtfvd[synth]", "face_cos[sface]",
            "face_det[yunet]", "face_exp_mp51", "scene_motion_ratio", "false_motion", "flicker_ratio",
            "joint_error_pct",
        ),
    ),
)  # fmt: skip


def compare(reports: Sequence[str | Path], output: str | Path | None = None) -> str:
    """The tables of several systems.

    Args:
        reports: report.json files, or the folders that they lie in.
        output: folder for compare.md and TABLE.tex; None writes nothing.

    Returns:
        the Markdown text.

    Raises:
        InputError: a file that is no report.
        OptionError: nothing to compare, or two systems of one name.
        OutputError: the folder cannot be written.
    """
    read = [Report.read(path) for path in reports]
    if len(read) < 1:
        raise OptionError("xdyna compare", "needs reports", "xdyna compare A/report.json B/report.json")
    names = [report.name for report in read]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(
            "xdyna compare", f"{len(read)} reports, of which several are called {', '.join(twice)}",
            "Name each with xdyna evaluate --name",
        )  # fmt: skip
    text = _warnings(read)
    everything = Table("all", "All metrics", tuple(dict.fromkeys(n for r in read for n in r.metrics)))
    for table in (*TABLES, everything):
        columns = chosen_columns(table, read)
        if columns:
            text += f"\n## {table.title}\n\n{markdown(columns, read)}"
            if output is not None:
                _write(Path(output) / f"{table.name}.tex", latex(columns, read))
    if output is not None:
        _write(Path(output) / "compare.md", text)
    return text


def chosen_columns(table: Table, reports: Sequence[Report]) -> list[str]:
    """The columns of which any report has a value."""
    there = {
        name for report in reports for name, found in report.metrics.items() if found["value"] is not None
    }
    chosen = []
    for column in table.columns:
        name = next((name for name in column.split("|") if name in there), None)
        if name is not None:
            chosen.append(name)
    return chosen


def markdown(columns: Sequence[str], reports: Sequence[Report]) -> str:
    """One row a system, intervals in brackets, the best in bold."""
    heads = [f"{title_of(name)} ({_arrow(name)})" for name in columns]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(columns)]
    best = {name: best_of(name, reports) for name in columns}
    for report in reports:
        cells = []
        for name in columns:
            found = report.metrics.get(name)
            text = "-" if found is None else cell(name, found)
            bold = report.name in best[name] and len(reports) > 1
            cells.append(f"**{text}**" if bold else text)
        lines.append(f"| {report.name.replace('|', '/')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def latex(columns: Sequence[str], reports: Sequence[Report]) -> str:
    """A tabular, the best in bold."""
    signs = {"up": r"$\uparrow$", "down": r"$\downarrow$", "to 1": r"$\to 1$"}
    lines = [
        r"\begin{tabular}{l" + "c" * len(columns) + "}",
        "Method & "
        + " & ".join(f"{tex_text(title_of(n))} {signs[_arrow(n)]}" for n in columns)
        + r" \\ \hline",
    ]
    best = {name: best_of(name, reports) for name in columns}
    for report in reports:
        cells = [tex_text(report.name)]
        for name in columns:
            value = report.metrics.get(name, {}).get("value")
            text = "--" if value is None else number(name, value)
            cells.append(rf"\textbf{{{text}}}" if report.name in best[name] and len(reports) > 1 else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _arrow(name: str) -> str:
    metric, _ = split_name(name)
    return ARROWS[metric.better if metric else "less"]


def _warnings(reports: Sequence[Report]) -> str:
    """What makes numbers of different reports incomparable."""
    lines = []
    for label, key in (("clips", "clips"), ("frames", "frames"), ("sizes", "sizes")):
        values = {str(report.about[key]) for report in reports}
        if len(values) > 1:
            told = "; ".join(f"{report.name}: {report.about[key]}" for report in reports)
            lines.append(f"- **Not the same {label}**: {told}")
    for name in sorted({n for r in reports for n in r.metrics}):
        held = [(r.name, r.metrics[name]) for r in reports if name in r.metrics]
        hashes = {found.get("weights_sha256") for _, found in held}
        if len(hashes) > 1:
            lines.append(
                f"- **{title_of(name)}: not the same network file** in {', '.join(n for n, _ in held)}"
            )
    return "\n".join(lines) + ("\n" if lines else "")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path.parent, error) from None
    with whole_file(path, overwrite=True) as place:
        place.write_text(text, encoding="utf-8")
