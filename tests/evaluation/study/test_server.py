from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.evaluation.study.client import Client, an_answer
from tests.evaluation.study.conftest import METHODS
from xdyna.errors import InputError, OptionError, OutputError
from xdyna.evaluation.study.answers import AnswerStore
from xdyna.evaluation.study.server import StudyServer


def test_the_page_and_its_rules(client: Client) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        reply = client.get(path)
        assert reply.status == 200
        assert reply.headers["content-type"].startswith(kind)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["server"] == "xdyna"
    page = client.get("/").body
    assert page.count(b"<script") == 1
    assert b"onclick" not in page
    assert b"style=" not in page


def test_a_session_shows_all_and_names_nothing(client: Client) -> None:
    session = client.session("p07")
    assert session["participant"] == "P07"
    assert len(session["cases"]) == 3
    assert {len(case["videos"]) for case in session["cases"]} == {3}
    assert [question["key"] for question in session["questions"]] == ["FG", "BG", "ID"]
    assert session["answers"] == {}
    text = json.dumps(session).lower()
    assert not [name for name in (*METHODS, "dance", "seed", "order") if name.lower() in text]
    assert client.session("P07") == session
    assert any(client.session(f"q{i}")["cases"] != session["cases"] for i in range(5))


def test_every_file_shown_can_be_had(client: Client, study: Path) -> None:
    for case in client.session("a")["cases"]:
        for path in (case["reference"], case["driving"], *(video["file"] for video in case["videos"])):
            reply = client.get(path)
            assert reply.status == 200
            assert reply.body == (study / path[1:]).read_bytes()
            assert reply.headers["content-type"] == ("image/png" if path.endswith("png") else "video/mp4")


def test_ranges(client: Client, study: Path) -> None:
    path = client.session("a")["cases"][0]["driving"]
    whole = (study / path[1:]).read_bytes()
    size = len(whole)
    for asked, start, stop in [
        ("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=100-", 100, size), ("bytes=-7", size - 7, size),
        (f"bytes=10-{10**17}", 10, size), (f"bytes=-{size + 5}", 0, size),
    ]:  # fmt: skip
        reply = client.get(path, Range=asked)
        assert reply.status == 206, asked
        assert reply.body == whole[start:stop]
        assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for asked in (f"bytes={size}-", "bytes=-0"):
        reply = client.get(path, Range=asked)
        assert (reply.status, reply.body) == (416, b"")
        assert reply.headers["content-range"] == f"bytes */{size}"
    for asked in ("bytes=9-5", "bytes=-", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", f"bytes=0-{10**30}"):
        reply = client.get(path, Range=asked)
        assert (reply.status, reply.body) == (200, whole), asked
    head = client.request("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(size))
    assert head.headers["accept-ranges"] == "bytes"


def test_an_answer_is_on_the_disk_when_it_is_acknowledged(client: Client, study: Path) -> None:
    session = client.session("p1")
    answer = an_answer(session)
    assert client.post(answer).json == {"saved": True}
    # another connection sees what is committed, and nothing else
    with sqlite3.connect(study / "answers.sqlite") as other:
        rows = other.execute("SELECT participant, video, question, rating, changes FROM answers").fetchall()
    other.close()
    assert rows == [("P1", answer["video"], "FG", 3, 0)]
    assert (study / "answers.sqlite-wal").stat().st_size > 0
    assert client.session("p1")["answers"] == {answer["video"]: {"FG": 3}}
    assert client.session("p2")["answers"] == {}


def test_double_posts_are_one_answer_and_changes_are_counted(client: Client, study: Path) -> None:
    answer = an_answer(client.session("p1"))
    for _ in range(5):
        assert client.post(answer).status == 200
    assert client.post({**answer, "rating": 5}).status == 200
    assert client.post({**answer, "rating": 5, "participant": " p1 "}).status == 200
    connection = sqlite3.connect(study / "answers.sqlite")
    assert connection.execute("SELECT rating, changes FROM answers").fetchall() == [(5, 1)]
    assert connection.execute("SELECT count(*) FROM participants").fetchall() == [(1,)]
    connection.close()


def test_answers_survive_the_server(client: Client, server: StudyServer, study: Path) -> None:
    answer = an_answer(client.session("p1"), question="ID", rating=0)
    client.post(answer)
    with StudyServer(study) as second:
        thread = threading.Thread(target=second.serve_forever)
        thread.start()
        with Client(second.port) as other:
            assert other.session("p1")["answers"] == {answer["video"]: {"ID": 0}}
        second.stop()
        thread.join(timeout=10)
    with pytest.raises(OptionError, match="cannot be used"):
        StudyServer(study, port=server.port)


def test_the_database_itself_refuses_what_cannot_be(study: Path) -> None:
    with AnswerStore(study / "answers.sqlite", "s") as store:
        store.save("P", "v", "FG", 5)
        for question, rating in (("FG", 6), ("FG", -1), ("FG", 2.5), ("FG", "x"), ("XX", 3)):
            with pytest.raises(sqlite3.IntegrityError):
                store.save("Q", "v", question, rating)  # type: ignore[arg-type]
        assert store.counts() == (1, 1)
        assert store.rows() == [("P", "v", "FG", 5)]


def test_databases_of_something_else(study: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    AnswerStore(path, "one").close()
    with pytest.raises(InputError, match="another study"):
        AnswerStore(path, "two")
    path.write_bytes(b"this is no database, but it is long enough to look at" * 100)
    with pytest.raises(InputError, match="cannot be used as answers"):
        AnswerStore(path, "one")
    connection = sqlite3.connect(tmp_path / "b.sqlite")
    connection.execute("CREATE TABLE people (name)")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="something else"):
        AnswerStore(tmp_path / "b.sqlite", "one")
    with pytest.raises(OutputError, match="cannot be opened"):
        AnswerStore(tmp_path / "no" / "such" / "a.sqlite", "one")


def test_missing_media_are_told_before_anybody_comes(study: Path) -> None:
    next((study / "media").glob("*.mp4")).unlink()
    with pytest.raises(InputError, match="1 media files are missing"):
        StudyServer(study)
    with pytest.raises(InputError, match="is no folder"):
        StudyServer(study / "nowhere")
