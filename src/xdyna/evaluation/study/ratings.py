"""Ratings as a table, from a CSV or from a served study and its key."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.study.answers import AnswerStore
from xdyna.evaluation.study.questions import HIGHEST, KEYS, LOWEST
from xdyna.evaluation.study.study_set import ANSWERS, load_key, load_study
from xdyna.media.files import existing_file

COLUMNS = ("participant", "case", "method", *KEYS)
MOST_CELLS = 50_000_000
"""Participants x cases x methods above this are no study, and would not fit into memory."""
MOST_NAME = 100

Row = tuple[str, str, str, tuple[float, ...]]
"""participant, case, method, one number a question (NaN: no answer)."""


@dataclass(frozen=True)
class Ratings:
    """Everything that was answered.

    Attributes:
        participants, cases, methods: names, in the order of the axes of `values`.
        values: (p c m 3) float64, from 0 to 5, questions as in `KEYS`; NaN where there is no answer.
    """

    participants: tuple[str, ...]
    cases: tuple[str, ...]
    methods: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.participants), len(self.cases), len(self.methods), len(KEYS))
        if self.values.shape != shape:
            raise ValueError(f"Ratings.values is (p c m {len(KEYS)}), here {shape}; got {self.values.shape}")

    @property
    def overall(self) -> np.ndarray:
        """(p c m): mean of the answers about a video; NaN where one of them is missing."""
        return np.asarray(self.values.mean(-1))


def read_ratings(source: str | Path, *, key: str | Path | None = None) -> Ratings:
    """Ratings of a CSV, or of a study folder with its key.

    Args:
        source: a .csv with the columns participant, case, method, FG, BG, ID, or a folder that `xdyna study make`
            wrote and `serve` served.
        key: the file that un-blinds a folder; by default FOLDER.key.json beside it.

    Raises:
        InputError: not such a file or folder, a row or answer that cannot be, or no answers at all.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return ratings_of_study(path, key=key)
    if key is not None:
        raise InputError(path, "is a file, and --key goes with a study's folder", "Leave --key away")
    return ratings_of_csv(path)


def ratings_of_csv(path: str | Path) -> Ratings:
    """Ratings of a CSV in UTF-8 with a header: participant, case, method, FG, BG, ID in any order.

    An empty field, or a row that is absent, is a missing answer.

    Raises:
        InputError: names the line and what is wrong with it.
    """
    path = existing_file(path, "a CSV of ratings")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(path, "is not text in UTF-8", "Export it as CSV, UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            problem = f"has the columns {_listed(header)}, needed are exactly {', '.join(COLUMNS)}"
            raise InputError(path, problem, "Rename, add or remove columns")
        rows: list[Row] = []
        lines: dict[tuple[str, str, str], int] = {}
        for fields in reader:
            if not fields:
                continue
            row = _row(path, reader.line_num, header, fields)
            before = lines.setdefault(row[:3], reader.line_num)
            if before != reader.line_num:
                problem = (
                    f"line {reader.line_num} rates the same video of the same participant as line {before}"
                )
                raise InputError(path, problem, "Keep one of the two")
            rows.append(row)
    except csv.Error as error:
        raise InputError(path, f"line {reader.line_num} is no CSV ({error})", "Mend the line") from None
    return _table(path, rows)


def ratings_of_study(folder: Path, *, key: str | Path | None = None) -> Ratings:
    """Ratings of a study folder; the key gives anonymous videos their methods' names back.

    Raises:
        InputError: folder, answers or key are missing, damaged, or of different studies.
    """
    study = load_study(folder)
    named = load_key(folder if key is None else None, key, study)
    answers = folder / ANSWERS
    if not answers.exists():
        raise InputError(answers, "is not there: nobody has answered", f"Run: xdyna study serve {folder}")
    with AnswerStore(answers, study.study, create=False) as store:
        given = store.rows()
    found: dict[tuple[str, str, str], list[float]] = {}
    for participant, video, question, rating in given:
        if video not in named.videos or question not in KEYS:
            raise InputError(answers, f"has an answer about {video!r}, which the study does not hold")
        case, method = named.videos[video]
        row = found.setdefault((participant, case, method), [float("nan")] * len(KEYS))
        row[KEYS.index(question)] = float(rating)
    rows = [(*names, tuple(values)) for names, values in found.items()]
    return _table(answers, rows, cases=named.cases, methods=named.methods)


def csv_of(ratings: Ratings) -> str:
    """The ratings as a CSV that `ratings_of_csv` reads; videos without any answer have no row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p, c, m in np.argwhere(~np.isnan(ratings.values).all(-1)):
        values = [_written(value) for value in ratings.values[p, c, m]]
        writer.writerow([ratings.participants[p], ratings.cases[c], ratings.methods[m], *values])
    return text.getvalue()


def _written(value: float) -> str:
    return "" if np.isnan(value) else str(int(value)) if value == int(value) else repr(float(value))


def _row(path: Path, line: int, header: list[str], fields: list[str]) -> Row:
    if len(fields) != len(header):
        raise InputError(path, f"line {line} has {len(fields)} fields, the header {len(header)}")
    named = dict(zip(header, (field.strip() for field in fields), strict=True))
    for name in COLUMNS[:3]:
        if not named[name] or len(named[name]) > MOST_NAME or not named[name].isprintable():
            problem = f"line {line} has no {name}, or one that is longer than {MOST_NAME} or not printable"
            raise InputError(path, problem, "Give every row a short plain name")
    values = tuple(_value(path, line, key, named[key]) for key in KEYS)
    return named["participant"], named["case"], named["method"], values


def _value(path: Path, line: int, key: str, text: str) -> float:
    if not text:
        return float("nan")
    try:
        value = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        value = float("nan")
    if not LOWEST <= value <= HIGHEST:
        problem = f"line {line} has {text[:30]!r} for {key}, allowed are {LOWEST} to {HIGHEST}, or nothing"
        raise InputError(path, problem, "Mend the line")
    return value


def _table(
    path: Path, rows: Iterable[Row], *, cases: Iterable[str] = (), methods: Iterable[str] = ()
) -> Ratings:
    """Rows as a table; names in the order given or, where none is, as they come."""
    rows = list(rows)
    if not rows:
        raise InputError(path, "holds no answers", "Let somebody answer first")
    axes = (
        tuple(dict.fromkeys(row[0] for row in rows)),
        tuple(dict.fromkeys([*cases, *(row[1] for row in rows)])),
        tuple(dict.fromkeys([*methods, *(row[2] for row in rows)])),
    )
    shape = tuple(len(names) for names in axes)
    if np.prod(shape, dtype=np.float64) > MOST_CELLS:
        problem = "names {} participants, {} cases and {} methods, too many to be one table".format(*shape)
        raise InputError(path, problem, "Check that the columns are what their header says")
    values = np.full((*shape, len(KEYS)), np.nan)
    places = [{name: place for place, name in enumerate(names)} for names in axes]
    for participant, case, method, answers in rows:
        values[places[0][participant], places[1][case], places[2][method]] = answers
    return Ratings(axes[0], axes[1], axes[2], values)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:30]) for name in names[:10])
    return shown + (", ..." if len(names) > 10 else "") if names else "none"
