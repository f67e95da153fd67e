"""Requests that no participant makes. After all of them the server serves, and holds what was rightly answered."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.evaluation.study.client import Client, Reply, an_answer
from tests.evaluation.study.conftest import METHODS
from xdyna.evaluation.study import answers, handler, server
from xdyna.evaluation.study.server import StudyServer


@pytest.fixture
def visitor(shared_server: StudyServer) -> Iterator[Client]:
    """A client of a server that other tests use too; it must find its answers as it left them."""
    with Client(shared_server.port) as client:
        yield client


SECRETS = [b"root:", b"seed", b"dance 0", b"Traceback", b"/work", *(m.encode() for m in METHODS)]


def leaks(data: bytes) -> list[bytes]:
    return [word for word in SECRETS if word in data]


def unharmed(client: Client, served: StudyServer, wanted: list) -> None:
    """The server answers, and the database is sound and holds exactly these answers."""
    with Client(client.port) as fresh:
        assert fresh.get("/").status == 200
    assert served.answers.rows() == wanted
    connection = sqlite3.connect(served.answers.path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../study.key.json", "/media/../study.json", "/media/../../study.key.json", "/study.json",
        "/answers.sqlite", "/media/../answers.sqlite", "/media/%2e%2e/study.json", "/media/..%2fstudy.json",
        "/media//etc/passwd", "//etc/passwd", "/media/....//....//etc/passwd", "/media/..\\study.json",
        "/media/%00", "/media/", "/media", "/page.js/../../server.py", "/./", "/page/index.html", "/api",
        "/api/session/", "http://elsewhere/media/x", "/%2e%2e/%2e%2e/etc/passwd", "/media/" + "a" * 5000,
        "/media/0000000000000000.mp4", "/<script>alert(1)</script>", "/?../../study.key.json#",
    ],
)  # fmt: skip
def test_path_tricks(visitor: Client, shared_server: StudyServer, path: str) -> None:
    before = shared_server.answers.rows()
    reply = visitor.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    if path.startswith("/?"):
        assert reply.startswith(b"HTTP/1.1 200")
    else:
        assert reply.startswith(b"HTTP/1.1 404")
    assert not leaks(reply)
    assert b"<script>alert" not in reply
    unharmed(visitor, shared_server, before)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "%00",
        "<script>",
        "..%2f..",
        "a%20b",
        "a" * 33,
        "%ff",
        "p&participant=q",
        "%F0%9F%98%80",
        "a%0d%0aX:1",
    ],
)
def test_codes_that_are_none(visitor: Client, shared_server: StudyServer, code: str) -> None:
    before = shared_server.answers.rows()
    reply = visitor.get(f"/api/session?participant={code}")
    assert reply.status == 400
    assert not leaks(reply.body)
    for query in ("", "?", "?participant", "?code=p", "?participant[]=p"):
        assert visitor.get(f"/api/session{query}").status == 400
    unharmed(visitor, shared_server, before)


def test_scripts_in_names_come_out_as_json_text_only(visitor: Client) -> None:
    reply = visitor.get("/api/session?participant=p")
    assert reply.json["title"] == "<script>alert(1)</script>"
    assert reply.headers["content-type"] == "application/json"
    assert b"alert(1)" not in visitor.get("/").body


@pytest.mark.parametrize(
    "change",
    [
        {"rating": 6}, {"rating": -1}, {"rating": 2.5}, {"rating": "3"}, {"rating": True}, {"rating": None},
        {"rating": [3]}, {"rating": 10**400}, {"question": "Overall"}, {"question": ""}, {"question": ["FG"]},
        {"question": "FG' OR 1=1"}, {"participant": ""}, {"participant": 7}, {"participant": "'; DROP TABLE answers;"},
        {"participant": "<b>"}, {"extra": 1}, {"video": "X-Dyna"}, {"video": None}, {"video": {"a": 1}},
        {"video": "../x"}, {"case": "0" * 16}, {"case": None},
    ],
    ids=lambda change: json.dumps(change)[:40],
)  # fmt: skip
def test_answers_that_cannot_be(visitor: Client, shared_server: StudyServer, change: dict) -> None:
    session = visitor.session("p1")
    good = an_answer(session)
    assert visitor.post(good).status == 200
    reply = visitor.post({**good, **change})
    assert reply.status in (400, 404)
    assert "error" in reply.json
    assert not leaks(reply.body)
    without = {name: value for name, value in good.items() if name not in change}
    if set(without) != set(good):
        assert visitor.post(without).status == 400
    unharmed(visitor, shared_server, [("P1", good["video"], "FG", 3)])


def test_a_video_of_another_case(visitor: Client, shared_server: StudyServer) -> None:
    before = shared_server.answers.rows()
    session = visitor.session("p1")
    mixed = {**an_answer(session, case=0), "case": session["cases"][1]["id"]}
    assert visitor.post(mixed).status == 404
    unharmed(visitor, shared_server, before)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"3", b"null", b'"text"', b"{}", b"\xff\xfe", b"\x00" * 50, b"[" * 2000, b'{"a":' * 400,
        b"participant=p", b'{"rating": NaN}', b"1" * 2000,
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_bodies_that_are_no_answer(visitor: Client, shared_server: StudyServer, body: bytes) -> None:
    before = shared_server.answers.rows()
    reply = visitor.post(body)
    assert reply.status == 400
    assert not leaks(reply.body)
    unharmed(visitor, shared_server, before)


def post(headers: str, body: bytes = b"{}", *, path: str = "/api/answers") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body


JSON = "Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(JSON + "Content-Length: 1000000\r\n", b"x" * 1_000_000), 413),
        (post(JSON + "Content-Length: 99999999999999999999\r\n"), 400),
        (post(JSON + "Content-Length: -5\r\n"), 400),
        (post(JSON + "Content-Length: 2x\r\n"), 400),
        (post(JSON + "Content-Length: 2\r\nContent-Length: 3\r\n"), 411),
        (post(JSON), 411),
        (post(JSON + "Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"), 411),
        (post("Content-Type: text/plain\r\nContent-Length: 2\r\n"), 415),
        (post("Content-Length: 2\r\n"), 415),
        (post(JSON + "Origin: http://evil.example\r\nContent-Length: 2\r\n"), 403),
        (post(JSON + "Origin: null\r\nContent-Length: 2\r\n"), 403),
        (post(JSON + "Content-Length: 2\r\n", path="/"), 404),
        (post(JSON + "Content-Length: 2\r\n", path="/api/session?participant=p"), 404),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nGET /", 400),
        (b"DELETE /media/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 501),
        (b"<script>alert(1)</script>\r\n\r\n", 400),
        (b"GET /<script>alert(1)</script> HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else str(value),
)
def test_requests_that_are_none(
    visitor: Client, shared_server: StudyServer, request_bytes: bytes, status: int
) -> None:
    before = shared_server.answers.rows()
    reply = visitor.raw(request_bytes)
    if b" HTTP/" in request_bytes:
        assert reply.startswith(f"HTTP/1.1 {status}".encode())
    assert b'"error"' in reply
    assert not leaks(reply)
    assert b"alert(1)" not in reply
    assert reply.count(b"HTTP/1.1") <= 1, "what followed was taken for a request of its own"
    unharmed(visitor, shared_server, before)


def test_bodies_that_never_come(client: Client, server: StudyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing more is closed, and holds nobody up meanwhile."""
    monkeypatch.setattr(handler.Handler, "timeout", 0.5)
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as slow:
        slow.sendall(post(JSON + "Content-Length: 100\r\n", b'{"participant"'))
        with Client(client.port) as other:
            assert other.get("/").status == 200
        assert slow.recv(100) == b""
    assert time.monotonic() - begin < 8
    unharmed(client, server, [])


def test_thousands_of_requests_lose_nothing(client: Client, server: StudyServer) -> None:
    """Eight people answer everything, over and over, while others knock with nonsense."""
    sessions = [client.session(f"p{number}") for number in range(8)]
    statuses: list[int] = []

    def answer_all(session: dict) -> None:
        with Client(client.port) as own:
            for turn in range(12):
                for case in range(3):
                    for video in range(3):
                        for question in ("FG", "BG", "ID"):
                            rating = (turn + case + video) % 6
                            reply = own.post(
                                an_answer(session, case=case, video=video, question=question, rating=rating)
                            )
                            statuses.append(reply.status)

    def knock(number: int) -> None:
        with Client(client.port) as own:
            for turn in range(60):
                path = ("/media/../x", "/nothing", "/api/session?participant=<>")[turn % 3]
                assert own.get(path).status in (400, 404)
                with Client(client.port) as once:
                    assert once.post(b"{nonsense").status == 400

    with ThreadPoolExecutor(12) as pool:
        for done in [*pool.map(answer_all, sessions), *pool.map(knock, range(4))]:
            assert done is None
    assert statuses == [200] * (8 * 12 * 27)
    wanted = sorted(
        (s["participant"], a["video"], q, a["rating"])
        for s in sessions
        for c in range(3)
        for v in range(3)
        for q in ("FG", "BG", "ID")
        for a in [an_answer(s, case=c, video=v, rating=(11 + c + v) % 6)]
    )
    unharmed(client, server, wanted)


def test_more_connections_than_there_are_places(client: Client, server: StudyServer) -> None:
    """Above the limit a connection is told to come back; those inside go on, and places become free again."""
    held = []
    try:
        for _ in range(server_limit()):
            connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            held.append(connection)
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as late:
            assert late.recv(100).startswith(b"HTTP/1.1 503")
    finally:
        for connection in held:
            connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            unharmed(client, server, [])
            return
        except (ConnectionError, AssertionError):
            time.sleep(0.05)
    unharmed(client, server, [])


def server_limit() -> int:
    return server.MOST_CONNECTIONS


def test_the_disk_does_not_fill_with_codes(
    client: Client, server: StudyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_PARTICIPANTS", 2)
    session = client.session("p")
    replies: list[Reply] = [client.post({**an_answer(session), "participant": f"p{i}"}) for i in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 403, 403]
    assert client.post({**an_answer(session, rating=5), "participant": "p0"}).status == 200
    video = an_answer(session)["video"]
    unharmed(client, server, [("P0", video, "FG", 5), ("P1", video, "FG", 3)])


def test_a_database_that_fails_is_not_called_saved(
    client: Client, server: StudyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody holds the database longer than we wait: 503, nothing saved; then the same answer again is."""
    answer = an_answer(client.session("p"))
    other = sqlite3.connect(server.answers.path, isolation_level=None)
    server.answers._connection.execute("PRAGMA busy_timeout = 100")
    other.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.CRITICAL):
        reply = client.post(answer)
    assert reply.status == 503
    assert reply.json["error"].startswith("not saved")
    other.execute("ROLLBACK")
    other.close()
    assert server.answers.rows() == []
    assert client.post(answer).status == 200
    unharmed(client, server, [("P", answer["video"], "FG", 3)])


def test_two_threads_change_one_answer(client: Client, server: StudyServer, study: Path) -> None:
    session = client.session("p")

    def change(rating: int) -> None:
        with Client(client.port) as own:
            for _ in range(30):
                assert own.post(an_answer(session, rating=rating)).status == 200

    threads = [threading.Thread(target=change, args=(rating,)) for rating in (1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((participant, video, question, rating),) = server.answers.rows()
    assert (participant, question) == ("P", "FG")
    assert rating in (1, 4)
    unharmed(client, server, [(participant, video, question, rating)])
