from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.study.conftest import METHODS, write_case, write_video
from xdyna import media
from xdyna.errors import InputError, OptionError, OutputError, XdynaError
from xdyna.evaluation.study import cases as cases_module
from xdyna.evaluation.study.blinding import participant_code, shuffled
from xdyna.evaluation.study.cases import read_cases
from xdyna.evaluation.study.making import make_study
from xdyna.evaluation.study.options import MakeOptions
from xdyna.evaluation.study.study_set import load_key, load_study

CODES = [f"P{number:03d}" for number in range(200)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_key_names_every_video_and_pixels_prove_it(cases: Path, study: Path) -> None:
    blind = load_study(study)
    key = load_key(study, None, blind)
    assert key.methods == METHODS
    assert key.cases == ("dance 0", "dance 1", "dance 2")
    files = {video: case.videos[video] for case in blind.cases.values() for video in case.videos}
    for video, (case, method) in key.videos.items():
        shown = media.read_clip(study / "media" / files[video]).frames
        source = media.read_clip(cases / case / f"{method}.mp4").frames
        assert shown.shape == source.shape
        assert np.abs(shown.astype(int) - source).mean() < 2
        others = [m for m in METHODS if m != method]
        apart = [media.read_clip(cases / case / f"{m}.mp4").frames for m in others]
        assert all(np.abs(shown.astype(int) - other).mean() > 10 for other in apart)


def test_nothing_that_may_be_served_tells_a_name(study: Path) -> None:
    names = [*METHODS, "dance 0", "driving", "cases"]
    for name, data in contents(study).items():
        text = name.encode() + data
        if name.endswith(".json"):
            text = text.replace(b'"driving":', b"").replace(b'"cases":', b"")
        assert not [word for word in names if word.lower().encode() in text.lower()], name
    assert study.with_name("study.key.json").stat().st_mode & 0o077 == 0


def test_a_seed_makes_the_set_and_another_seed_another(cases: Path, study: Path, tmp_path: Path) -> None:
    options = MakeOptions(seed=7, title="<script>alert(1)</script>")
    make_study(cases, tmp_path / "again", options=options)
    make_study(cases, tmp_path / "other", options=MakeOptions(seed=8))
    assert contents(study) == contents(tmp_path / "again")
    assert not set(contents(study / "media")) & set(contents(tmp_path / "other" / "media"))
    make_study(cases, tmp_path / "drawn")
    make_study(cases, tmp_path / "drawn2")
    seeds = {json.loads((tmp_path / f"{n}.key.json").read_text())["seed"] for n in ("drawn", "drawn2")}
    assert len(seeds) == 2


def test_orders_follow_from_code_and_are_spread_evenly(study: Path) -> None:
    blind = load_study(study)
    assert blind.ordered("P1") == load_study(study).ordered("P1")
    first_cases = [blind.ordered(code)[0][0].name for code in CODES]
    first_videos = [
        next(videos[0] for case, videos in blind.ordered(code) if case.name == first_cases[0])
        for code in CODES
    ]
    for firsts in (first_cases, first_videos):
        counts = [firsts.count(name) for name in set(firsts)]
        # 200 draws of one in three: 66.7 expected, standard deviation 6.7
        assert len(counts) == 3
        assert max(abs(count - 200 / 3) for count in counts) < 27
    # the order of videos in one case tells nothing of that in another
    both = [tuple(blind.ordered(code)[i][1][0] for i in (0, 1)) for code in CODES]
    assert len(set(both)) > 15


def test_orders_never_change() -> None:
    """A study goes on with later versions of everything; this order is what openssl's HMAC gives."""
    assert shuffled("0" * 64, ["a", "b", "c", "d"], "P1") == ["c", "b", "a", "d"]


def test_a_driving_video_is_cut_to_what_is_shown(study: Path) -> None:
    for case in load_study(study).cases.values():
        assert media.count_frames(study / "media" / case.driving) == 8


def test_lists_give_what_folders_give(cases: Path, tmp_path: Path) -> None:
    wanted = read_cases(cases)
    rows = [
        [case.name, case.reference, case.driving, method, video]
        for case in wanted
        for method, video in case.videos.items()
    ]
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["case", "reference", "driving", "method", "video"], *rows])
    entries = [
        {
            "case": case.name,
            "reference": str(case.reference),
            "driving": str(case.driving),
            "videos": {method: str(video) for method, video in case.videos.items()},
        }
        for case in wanted
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert read_cases(tmp_path / "list.csv") == wanted
    assert read_cases(tmp_path / "list.json") == wanted


def test_relative_paths_of_a_list_count_from_its_folder(cases: Path, tmp_path: Path) -> None:
    shutil.copytree(cases / "dance 0", tmp_path / "c")
    entry = {"case": "c", "reference": "c/reference.png", "driving": "c/driving.mp4"}
    (tmp_path / "list.json").write_text(json.dumps([{**entry, "videos": {m: f"c/{m}.mp4" for m in METHODS}}]))
    (case,) = read_cases(tmp_path / "list.json")
    assert case.videos["X-Dyna"] == tmp_path / "c" / "X-Dyna.mp4"


def test_everything_missing_is_named_before_any_work(cases: Path, tmp_path: Path) -> None:
    shutil.copytree(cases, tmp_path / "cases")
    for name in ("dance 0/X-Dyna.mp4", "dance 1/reference.png", "dance 2/driving.mp4"):
        (tmp_path / "cases" / name).unlink()
    with pytest.raises(InputError, match="3 files are missing") as caught:
        make_study(tmp_path / "cases", tmp_path / "study")
    for name in ("dance 0/X-Dyna.mp4", "dance 1/reference.png", "dance 2/driving.mp4"):
        assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]


def test_files_that_are_no_media_are_named(cases: Path, tmp_path: Path) -> None:
    shutil.copytree(cases, tmp_path / "cases")
    (tmp_path / "cases" / "dance 1" / "X-Dyna.mp4").write_bytes(b"no video")
    (tmp_path / "cases" / "dance 2" / "reference.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 files cannot be used") as caught:
        make_study(tmp_path / "cases", tmp_path / "study")
    assert "dance 1/X-Dyna.mp4" in str(caught.value)
    assert "dance 2/reference.png" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]


def test_methods_can_be_chosen(cases: Path, tmp_path: Path) -> None:
    made = make_study(cases, tmp_path / "study", options=MakeOptions(methods="X-Dyna, MagicPose"))
    assert made.methods == ("X-Dyna", "MagicPose")
    assert len(load_study(tmp_path / "study").videos) == 6
    assert "Next: xdyna study serve" in made.lines()[-1]


@pytest.mark.parametrize(
    ("methods", "error", "match"),
    [
        ("X-Dyna,Nobody", OptionError, "'Nobody'"),
        ("X-Dyna,X-Dyna", OptionError, "twice"),
        ("X-Dyna", InputError, "has 1 methods"),
    ],
)
def test_methods_that_cannot_be_chosen(
    cases: Path, methods: str, error: type[XdynaError], match: str
) -> None:
    with pytest.raises(error, match=match):
        read_cases(cases, methods=methods.split(","))


def test_six_methods_are_too_many_to_see(tmp_path: Path) -> None:
    write_case(tmp_path / "cases" / "c", tuple("abcdef"))
    with pytest.raises(InputError, match=r"has 6 methods.*--methods A,B,C"):
        read_cases(tmp_path / "cases")
    assert len(read_cases(tmp_path / "cases", methods=tuple("fbdae"))[0].videos) == 5


def test_visible_differences_are_told(cases: Path, tmp_path: Path) -> None:
    shutil.copytree(cases / "dance 0", tmp_path / "cases" / "c")
    write_video_again = tmp_path / "cases" / "c" / "X-Dyna.mp4"
    write_video_again.unlink()
    write_video(write_video_again, frames=16, size=(64, 96))
    notes = make_study(tmp_path / "cases", tmp_path / "study").notes
    assert "MagicPose 1.00 s, Secret-Method 1.00 s, X-Dyna 2.00 s" in notes[0]
    assert "X-Dyna 96x64" in notes[1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[]", "holds no cases"),
        ("{}", "entry 1 is not an object"),
        ('[{"case": "a"}]', "entry 1 is not an object"),
        ('[{"case": 1, "reference": "r", "driving": "d", "videos": {}}]', "no text"),
        (
            '[{"case": "a", "reference": "r", "driving": "d", "videos": {"driving": "x"}}]',
            "names a file of every",
        ),
        ("[", "not valid JSON"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=match):
        read_cases(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("case,method\n", "has the columns case, method"),
        ("case,reference,driving,method,video\na,r,d,m\n", "line 2"),
        ("case,reference,driving,method,video\na,r,d,m,v,x\n", "line 2"),
        (
            "case,reference,driving,method,video\na,r,d,m,v\na,r,d,m,w\n",
            "line 3 names the same case and method",
        ),
        ("case,reference,driving,method,video\na,r,d,m,v\na,r2,d,n,w\n", "two files for 'reference'"),
    ],
)
def test_csv_lists_that_are_none(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        read_cases(tmp_path / "list.csv")


def test_two_files_for_one_method(tmp_path: Path) -> None:
    write_case(tmp_path / "cases" / "c")
    shutil.copy(tmp_path / "cases/c/X-Dyna.mp4", tmp_path / "cases/c/X-Dyna.mov")
    with pytest.raises(InputError, match="which of the two"):
        read_cases(tmp_path / "cases")
    (tmp_path / "cases/c/X-Dyna.mov").unlink()
    (tmp_path / "cases/c/.X-Dyna.mp4").write_bytes(b"")
    (tmp_path / "cases/c/notes.txt").write_text("kept")
    assert len(read_cases(tmp_path / "cases")) == 1
    assert cases_module.VIDEOS[0] == ".mp4"


def test_a_study_is_never_replaced(cases: Path, study: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="never replaced"):
        make_study(cases, study)
    (tmp_path / "new.key.json").write_text("{}")
    with pytest.raises(OutputError, match="never replaced"):
        make_study(cases, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_key_stays_out_of_the_folder(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="inside the study's folder"):
        make_study(cases, tmp_path / "s", options=MakeOptions(key=str(tmp_path / "s" / "key.json")))
    make_study(cases, tmp_path / "s", options=MakeOptions(key=str(tmp_path / "safe" / "key.json")))
    assert (tmp_path / "safe" / "key.json").exists()
    assert not (tmp_path / "s.key.json").exists()


def test_an_interrupted_make_leaves_nothing(cases: Path, tmp_path: Path) -> None:
    def stop(part: str, done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_study(cases, tmp_path / "study", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["cases"][0].update(reference="../../etc/passwd"), "as reference"),
        (lambda d: d["cases"][0]["videos"][0].update(file="../key.mp4"), "as file"),
        (lambda d: d["cases"][0]["videos"][0].update(file=d["cases"][0]["driving"]), "names something twice"),
        (lambda d: d["cases"].append(d["cases"][0]), "names something twice"),
        (lambda d: d.update(order="short"), "as order"),
        (lambda d: d.update(extra=1), "exactly the fields"),
        (lambda d: d.update(cases=[]), "holds no cases"),
        (lambda d: d.update(format="other"), "not of the format"),
        (lambda d: d["cases"][0].update(videos=d["cases"][0]["videos"][:1]), "1 videos"),
    ],
)
def test_a_study_file_that_was_meddled_with(study: Path, change: object, match: str) -> None:
    data = json.loads((study / "study.json").read_text())
    change(data)  # type: ignore[operator]
    (study / "study.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=match):
        load_study(study)


def test_codes() -> None:
    assert participant_code(" p-07_a ") == "P-07_A"
    for bad in ("", "-p", "p q", "p/..", "é", "ſ", "p\n1", "a" * 33, None, 7, "<b>", "=1+1"):
        assert participant_code(bad) is None
