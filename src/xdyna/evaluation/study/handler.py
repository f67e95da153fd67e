"""What the study's server answers to one request."""

from __future__ import annotations

import json
import logging
import re
import socket
import sqlite3
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from xdyna.evaluation.study.answers import AnswerStore, TooManyParticipants
from xdyna.evaluation.study.blinding import participant_code
from xdyna.evaluation.study.questions import HIGHEST, KEYS, LOWEST, QUESTIONS
from xdyna.evaluation.study.study_set import BlindStudy

log = logging.getLogger(__name__)

LARGEST_BODY = 2048
"""Bytes; an answer is about 150."""
IDLE_SECONDS = 15
"""How long a connection may say nothing, or take nothing, before it is closed."""

_CHUNK = 1 << 16
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
}
_HEADERS = {
    # videos are fetched whole and played from memory, hence blob:
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGE = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg"}
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class _Refused(Exception):
    """A request that gets an error: status and what the participant's page may show."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Body(NamedTuple):
    """Bytes of a small answer, and what they are."""

    data: bytes
    kind: str


@dataclass(frozen=True)
class Served:
    """Everything that can be asked for.

    Attributes:
        study: the study; answers: where answers go.
        page: path -> page file's content.
        media: name -> file.
        videos: rated video -> its case.
    """

    study: BlindStudy
    answers: AnswerStore
    page: dict[str, Body]
    media: dict[str, Path]
    videos: dict[str, str]

    @staticmethod
    def of(study: BlindStudy, answers: AnswerStore) -> Served:
        """All of a study; the page's files are read once."""
        folder = resources.files("xdyna.evaluation.study") / "page"
        page = {
            path: Body((folder / name).read_bytes(), _TYPES[Path(name).suffix])
            for path, name in _PAGE.items()
        }
        return Served(study, answers, page, study.files, study.videos)


class Handler(BaseHTTPRequestHandler):
    """One connection; its server has `served`, a `Served`."""

    server: Any
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    # headers and body leave in two writes, which Nagle's algorithm would delay
    disable_nagle_algorithm = True

    @property
    def served(self) -> Served:
        """What the server serves."""
        served: Served = self.server.served
        return served

    def do_GET(self) -> None:
        """A page, a media file or a participant's session."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """One answer."""
        self._answer(self._post)

    def _answer(self, respond: Callable[[], None]) -> None:
        try:
            self._check_host()
            respond()
        except _Refused as refused:
            self._send_problem(refused.status, refused.reason)
            if self.close_connection:
                self._drain()
        except (TimeoutError, ConnectionError):
            self.close_connection = True
        except sqlite3.Error:
            log.exception("an answer could not be saved or read")
            self.close_connection = True
            self._send_problem(503, "not saved: the database cannot be used just now")
        except Exception:
            log.exception("a request could not be answered")
            self._send_problem(500, "internal error")

    # ------------------------------------------------------------------------------------------ requests

    def _get(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise _Refused(400, "this request has no body")
        path, _, query = self.path.partition("?")
        if path in self.served.page:
            self._send(200, self.served.page[path])
        elif path.startswith("/media/") and (file := self.served.media.get(path[len("/media/") :])):
            self._send_file(file)
        elif path == "/api/session":
            self._send(200, _json(self._session(query)))
        else:
            raise _Refused(404, "there is no such page")

    def _session(self, query: str) -> dict[str, Any]:
        try:
            fields = urllib.parse.parse_qs(query, strict_parsing=True, max_num_fields=1, errors="strict")
        except ValueError:
            fields = {}
        code = participant_code(fields.get("participant", [None])[0])
        if code is None:
            raise _Refused(
                400, "a code is 1 to 32 letters, digits, - and _, and begins with a letter or digit"
            )
        cases = [
            {
                "id": case.name,
                "reference": f"/media/{case.reference}",
                "driving": f"/media/{case.driving}",
                "videos": [{"id": video, "file": f"/media/{case.videos[video]}"} for video in videos],
            }
            for case, videos in self.served.study.ordered(code)
        ]
        return {
            "participant": code,
            "title": self.served.study.title,
            "lowest": LOWEST,
            "highest": HIGHEST,
            "questions": [{"key": q.key, "label": q.label, "text": q.text} for q in QUESTIONS],
            "cases": cases,
            "answers": self.served.answers.of(code),
        }

    def _post(self) -> None:
        # whatever is refused before the body was read ends the connection: its rest is no next request
        self.close_connection, stays = True, not self.close_connection
        if self.path != "/api/answers":
            raise _Refused(404, "there is no such page")
        answer = self._answer_of(self._body())
        self.close_connection = not stays
        try:
            self.served.answers.save(*answer)
        except TooManyParticipants:
            raise _Refused(403, "this study has all the participants it can have") from None
        self._send(200, _json({"saved": True}))

    def _body(self) -> bytes:
        origin, host = self.headers.get("Origin"), self.headers.get("Host")
        if origin is not None and origin != f"http://{host}":
            raise _Refused(403, "answers come from the study's own page only")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(415, "an answer is application/json")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1:
            raise _Refused(411, "an answer says its length, once")
        if not re.fullmatch(r"[0-9]{1,9}", lengths[0]):
            raise _Refused(400, "the length is no number")
        if int(lengths[0]) > LARGEST_BODY:
            raise _Refused(413, f"an answer has at most {LARGEST_BODY} bytes")
        body = self.rfile.read(int(lengths[0]))
        if len(body) != int(lengths[0]):
            raise ConnectionAbortedError("the body was cut short")
        return body

    def _answer_of(self, body: bytes) -> tuple[str, str, str, int]:
        """(participant, video, question, rating) of a body, all of them checked."""
        try:
            fields = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            raise _Refused(400, "an answer is a JSON object") from None
        if not isinstance(fields, dict) or set(fields) != {
            "participant",
            "case",
            "video",
            "question",
            "rating",
        }:
            raise _Refused(400, "an answer has participant, case, video, question and rating")
        code, video, rating = participant_code(fields["participant"]), fields["video"], fields["rating"]
        if code is None:
            raise _Refused(400, "no such participant's code can be")
        if not isinstance(video, str) or video not in self.served.videos:
            raise _Refused(404, "there is no such video")
        if fields["case"] != self.served.videos[video]:
            raise _Refused(404, "there is no such case, or it does not show this video")
        if not isinstance(fields["question"], str) or fields["question"] not in KEYS:
            raise _Refused(400, f"the question is one of {', '.join(KEYS)}")
        if type(rating) is not int or not LOWEST <= rating <= HIGHEST:
            raise _Refused(400, f"the rating is a whole number from {LOWEST} to {HIGHEST}")
        return code, video, fields["question"], rating

    def _check_host(self) -> None:
        # a page elsewhere whose name is made to lead here (DNS rebinding) still says its own name
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            self.close_connection = True
            raise _Refused(403, "this server is spoken to as 127.0.0.1 or localhost")

    # ----------------------------------------------------------------------------------------- responses

    def _send(self, status: int, body: Body) -> None:
        self._head(status, body.kind, len(body.data), {"Cache-Control": "no-store"})
        if self.command != "HEAD":
            self.wfile.write(body.data)

    def _send_problem(self, status: int, reason: str) -> None:
        try:
            self._send(status, _json({"error": reason}))
        except OSError:
            self.close_connection = True

    def _drain(self) -> None:
        """Take what a refused request still sends, within limits: closing on it would destroy our answer."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            for _ in range(32):
                if not self.connection.recv(_CHUNK):
                    break
        except OSError:
            log.debug("a refused connection went away")

    def _send_file(self, path: Path) -> None:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            start, stop, status = 0, size, 200
            extra = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
            if (span := _span(self.headers.get("Range", ""), size)) is not None:
                start, stop = span
                if start >= stop:
                    self._head(416, "text/plain", 0, {"Content-Range": f"bytes */{size}"})
                    return
                status = 206
                extra["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            self._head(status, _TYPES[path.suffix], stop - start, extra)
            if self.command == "HEAD":
                return
            file.seek(start)
            left = stop - start
            while left and (data := file.read(min(_CHUNK, left))):
                self.wfile.write(data)
                left -= len(data)
            if left:
                self.close_connection = True

    def _head(self, status: int, kind: str, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(length), **_HEADERS, **extra}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses (no HTTP, unknown method): never an echo of the request."""
        self.close_connection = True
        if not hasattr(self, "headers"):
            self.command, self.request_version = "GET", "HTTP/1.1"
        self._send_problem(code, "this is not a request that the study answers")

    def version_string(self) -> str:
        """Says no versions."""
        return "xdyna"

    def log_message(self, format: str, *args: Any) -> None:
        """To the log, on one line and cut, whatever was sent."""
        log.debug("%.200r", format % args)


def _span(text: str, size: int) -> tuple[int, int] | None:
    """(start, stop) that a Range header asks for (RFC 9110, 14.1.2); start >= stop when there is no such part.

    None where the whole file is sent: no header, several ranges, another unit, or none that makes sense.
    """
    asked = _RANGE.fullmatch(text.strip())
    first, last = asked.groups() if asked else ("", "")
    if first:
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last) + 1, size) if last else size
    if not last:
        return None
    return max(0, size - int(last)), size


def _json(value: Any) -> Body:
    return Body(json.dumps(value).encode(), "application/json")
