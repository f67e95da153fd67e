"""The page in a real headless browser. Skipped where there is no Chromium with its driver (Debian: chromium-driver)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluation.study.browser import CHROMIUM, DRIVER, Browser, until
from xdyna.evaluation.study.making import make_study
from xdyna.evaluation.study.options import MakeOptions
from xdyna.evaluation.study.server import StudyServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver on this machine"),
]

ENTER, LEFT, RIGHT, UP, DOWN = "\ue007", "\ue012", "\ue014", "\ue013", "\ue015"
PLAYING = "return document.querySelector('#play')?.textContent === 'Pause'"
WAITING = "return document.activeElement?.id === 'code'"
SAVED = "return document.querySelector('.saved')?.textContent === 'all saved'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, server: StudyServer) -> Browser:
    """The page, opened by nobody yet. Whatever the last test left in the tab is gone: another port, another page."""
    browser.log()
    browser.open(server.url)
    browser.wait(WAITING)
    return browser


def enter(page: Browser, code: str) -> None:
    page.press(*code, ENTER)
    page.wait(PLAYING)


def chosen(page: Browser) -> list[int]:
    """Places of the chosen buttons, from left to right and top to bottom."""
    script = "return [...document.querySelectorAll('.scale button')].map((b, i) => b.ariaChecked === 'true' ? i : -1)"
    return [place for place in page.run(script) if place >= 0]


def times(page: Browser) -> list[float]:
    return list(page.run("return [...document.querySelectorAll('video')].map(video => video.currentTime)"))


def test_a_participant_answers_everything_by_keyboard(page: Browser, server: StudyServer) -> None:
    enter(page, "p07")
    assert page.text("h1") == "Case 1 of 3"
    assert page.run("return [...document.querySelectorAll('figcaption')].map(c => c.textContent)") == [
        "Reference", "Driving video", "Video A", "Video B", "Video C",
    ]  # fmt: skip
    given = {}
    for number, (case, videos) in enumerate(server.study.ordered("P07")):
        page.wait(f"return document.querySelector('h1').textContent === 'Case {number + 1} of 3'")
        page.wait(PLAYING)
        for place, video in enumerate(videos):
            for key, rating in zip(("FG", "BG", "ID"), (place, 5 - place, number), strict=True):
                page.press(str(rating))
                given[("P07", video, key)] = rating
        assert page.text("#next") == "Next case", case.name
        page.wait(SAVED)
        page.press("n")
    page.wait("return document.querySelector('.welcome h1').textContent === 'Thank you, that was all'")
    assert page.text("#count") == "27 of 27 answers"
    assert server.answers.rows() == sorted((*names, rating) for names, rating in given.items())
    assert [entry for entry in page.log() if entry["level"] == "SEVERE"] == []


def test_videos_play_in_step_and_pause_together(page: Browser) -> None:
    enter(page, "p")
    first = times(page)
    page.wait("return document.querySelectorAll('video')[2].currentTime > 0.3")
    seen = [times(page) for _ in range(20)]
    # the driving video was cut to the length of the others, so all four run together
    apart = [max(now) - min(now) for now in seen]
    assert sorted(apart)[len(apart) // 2] < 0.1
    assert times(page) != first
    page.press(" ")
    page.wait("return document.querySelector('#play').textContent === 'Play'")
    still = times(page)
    assert page.run("return [...document.querySelectorAll('video')].every(video => video.paused)")
    assert max(still) - min(still) < 0.02
    assert times(page) == still
    page.press("r")
    page.wait(PLAYING)
    # and it begins again by itself at the end
    page.run(
        "window.ends = 0; document.querySelectorAll('video')[1].addEventListener('ended', () => window.ends++)"
    )
    page.wait("return window.ends >= 2", seconds=20)


def test_a_reload_and_another_day_go_on_where_it_was(page: Browser, server: StudyServer) -> None:
    enter(page, "p1")
    page.press("1", "2", "3", "4")
    page.wait(SAVED)
    before = chosen(page)
    assert len(before) == 4
    page.open(server.url)
    page.wait(PLAYING)
    assert chosen(page) == before
    page.click(".bar button")
    page.wait(WAITING)
    enter(page, "P1")
    assert page.text("h1") == "Case 1 of 3"
    assert chosen(page) == before
    # the next answer goes to the first open place: the fifth
    page.press("5")
    assert chosen(page) == [*before, 6 * 4 + 5]
    page.click(".bar button")
    page.wait(WAITING)
    enter(page, "somebody-else")
    assert chosen(page) == []


def test_mouse_arrows_and_a_change_of_mind(page: Browser, server: StudyServer) -> None:
    enter(page, "p2")
    page.click('[data-video="1"][data-question="2"] [data-rating="4"]')
    page.press(LEFT, UP, "0")
    assert chosen(page) == [6 * 1 + 0, 6 * 5 + 4]
    # a key held down repeats; that is no answer for the next questions
    page.run("dispatchEvent(new KeyboardEvent('keydown', {key: '3', repeat: true, cancelable: true}))")
    assert len(chosen(page)) == 2
    page.run("dispatchEvent(new KeyboardEvent('keydown', {key: '0', cancelable: true}))")
    page.press(RIGHT, DOWN, DOWN)
    page.click('[data-video="1"][data-question="2"] [data-rating="1"]')
    page.wait(SAVED)
    videos = server.study.ordered("P2")[0][1]
    wanted = [("P2", videos[0], "BG", 0), ("P2", videos[0], "ID", 0), ("P2", videos[1], "ID", 1)]
    assert sorted(server.answers.rows()) == sorted(wanted)
    page.press("n")
    page.wait("return document.querySelector('h1').textContent === 'Case 2 of 3'")
    page.press("p")
    page.wait("return document.querySelector('h1').textContent === 'Case 1 of 3'")
    page.press("n", "n", "n")
    page.wait("return document.querySelectorAll('.open button').length === 3")
    page.click(".open button")
    page.wait("return document.querySelector('h1').textContent === 'Case 1 of 3'")


def test_answers_wait_for_a_server_that_is_away(browser: Browser, study: Path) -> None:
    first = StudyServer(study)
    thread = threading.Thread(target=first.serve_forever)
    thread.start()
    browser.open(first.url)
    browser.wait(WAITING)
    enter(browser, "p3")
    browser.press("1")
    browser.wait(SAVED)
    first.stop()
    thread.join(timeout=10)
    first.close()
    browser.press("2", "3")
    browser.wait("return document.querySelector('.saved').textContent.startsWith('not saved yet')")
    # meanwhile nothing is lost and nothing is called saved; then it comes back at the same place
    with StudyServer(study, port=first.port) as again:
        assert len(again.answers.rows()) == 1
        thread = threading.Thread(target=again.serve_forever)
        thread.start()
        try:
            browser.wait(SAVED)
            until(lambda: len(again.answers.rows()) == 3, seconds=10)
        finally:
            again.stop()
            thread.join(timeout=10)


def test_scripts_in_names_stay_text(page: Browser) -> None:
    """The study's title is <script>alert(1)</script>."""
    enter(page, "p4")
    assert page.run("return document.title") == "<script>alert(1)</script>"
    assert page.run("return document.querySelectorAll('script').length") == 1
    refused = page.run(
        "const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s);"
        "return window.hit === undefined"
    )
    assert refused, "the policy lets inline scripts run"


def test_a_wrong_code_is_told_and_nothing_starts(page: Browser) -> None:
    page.press(*"a b", ENTER)
    page.wait("return document.querySelector('.problem').textContent.includes('1 to 32 letters')")
    assert page.run("return document.querySelectorAll('video').length") == 0


def test_all_is_seen_at_once(cases: Path, browser: Browser, tmp_path: Path) -> None:
    """Two and three methods on a usual screen: no sideways scrolling, nothing over anything else."""
    for methods in ("X-Dyna,MagicPose", None):
        folder = tmp_path / str(methods)
        make_study(cases, folder, options=MakeOptions(seed=1, methods=methods))
        with StudyServer(folder) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                browser.open(server.url)
                browser.wait(WAITING)
                enter(browser, "p")
                assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
                boxes = browser.run(
                    "return [...document.querySelectorAll('.tile')].map(t => [t.getBoundingClientRect().left,"
                    "t.getBoundingClientRect().right, t.getBoundingClientRect().top])"
                )
                assert len({top for _, _, top in boxes}) == 1
                assert all(a[1] <= b[0] for a, b in zip(boxes, boxes[1:], strict=False))
                assert browser.screenshot(tmp_path / "page.png").stat().st_size > 10_000
            finally:
                server.stop()
                thread.join(timeout=10)
