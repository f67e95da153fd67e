"""Answers in SQLite: each is one transaction, written ahead and synced before it counts as saved."""

from __future__ import annotations

import datetime
import sqlite3
import threading
from pathlib import Path
from types import TracebackType

from xdyna.errors import InputError, OutputError
from xdyna.evaluation.study.questions import HIGHEST, KEYS, LOWEST

MOST_PARTICIPANTS = 10_000
"""More codes than this are no participants but somebody filling the disk."""

_APPLICATION = 0x78647953
_SCHEMA = f"""
CREATE TABLE study (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE participants (code TEXT PRIMARY KEY, begun_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE answers (
    participant TEXT NOT NULL REFERENCES participants (code),
    video TEXT NOT NULL,
    question TEXT NOT NULL CHECK (question IN ({", ".join(f"'{key}'" for key in KEYS)})),
    rating INTEGER NOT NULL CHECK (typeof(rating) = 'integer' AND rating BETWEEN {LOWEST} AND {HIGHEST}),
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    changes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (participant, video, question)
) WITHOUT ROWID;
"""
_SAVE = """
INSERT INTO answers (participant, video, question, rating, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (participant, video, question) DO UPDATE
SET rating = excluded.rating, last_at = excluded.last_at, changes = changes + 1
WHERE rating <> excluded.rating
"""


class TooManyParticipants(Exception):
    """There are `MOST_PARTICIPANTS` codes already."""


class AnswerStore:
    """The answers of one study; a context manager, used by many threads.

    The same answer twice is one answer; another rating for the same video and question replaces the first, and
    `changes` counts it.

    Args:
        path: the database.
        study: the study's anonymous name; answers of another study are refused.
        create: whether to make the database when it is not there.

    Raises:
        InputError: the file is no such database, or holds another study's answers.
        OutputError: it cannot be opened or made.
    """

    def __init__(self, path: str | Path, study: str, *, create: bool = True) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        address = f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            self._connection = sqlite3.connect(
                address, uri=True, timeout=10, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise OutputError(self.path, f"cannot be opened ({error})", "Check folder and rights") from None
        try:
            self._prepare(study)
        except sqlite3.DatabaseError as error:
            self.close()
            kind = OutputError if isinstance(error, sqlite3.OperationalError) else InputError
            raise kind(self.path, f"cannot be used as answers ({error})", "Move the file away") from None
        except BaseException:
            self.close()
            raise

    def _prepare(self, study: str) -> None:
        run = self._connection.execute
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA journal_mode = WAL")
        # FULL: an answer that was acknowledged survives a power cut
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")
        (application,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                run(statement)
            run("INSERT INTO study VALUES (?)", (study,))
            run(f"PRAGMA application_id = {_APPLICATION}")
        elif application != _APPLICATION:
            raise InputError(self.path, "is a database of something else", "Move the file away")
        elif run("SELECT id FROM study").fetchall() != [(study,)]:
            raise InputError(self.path, "holds the answers of another study", "Move the file away")
        run("COMMIT")

    def save(self, participant: str, video: str, question: str, rating: int) -> None:
        """Save one answer; when this returns, it is on the disk.

        Raises:
            sqlite3.Error: it is not saved.
            TooManyParticipants: likewise.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with self._lock:
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            try:
                if run("SELECT 1 FROM participants WHERE code = ?", (participant,)).fetchone() is None:
                    (known,) = run("SELECT count(*) FROM participants").fetchone()
                    if known >= MOST_PARTICIPANTS:
                        raise TooManyParticipants
                    run("INSERT INTO participants VALUES (?, ?)", (participant, now))
                run(_SAVE, (participant, video, question, rating, now, now))
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    def of(self, participant: str) -> dict[str, dict[str, int]]:
        """A participant's answers: video -> question -> rating."""
        answers: dict[str, dict[str, int]] = {}
        with self._lock:
            found = self._connection.execute(
                "SELECT video, question, rating FROM answers WHERE participant = ?", (participant,)
            ).fetchall()
        for video, question, rating in found:
            answers.setdefault(video, {})[question] = rating
        return answers

    def rows(self) -> list[tuple[str, str, str, int]]:
        """All answers as (participant, video, question, rating), in a fixed order."""
        with self._lock:
            return self._connection.execute(
                "SELECT participant, video, question, rating FROM answers "
                "ORDER BY participant, video, question"
            ).fetchall()

    def counts(self) -> tuple[int, int]:
        """(participants, answers)."""
        with self._lock:
            participants, answers = self._connection.execute(
                "SELECT (SELECT count(*) FROM participants), (SELECT count(*) FROM answers)"
            ).fetchone()
        return participants, answers

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
