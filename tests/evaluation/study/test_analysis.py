from __future__ import annotations

import csv
import json
import math
import os
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.study.client import Client, an_answer
from tests.evaluation.study.conftest import METHODS
from tests.metrics_parity.runner import run_folder
from xdyna.errors import InputError, OutputError
from xdyna.evaluation.study import ratings as ratings_module
from xdyna.evaluation.study.analysis import Analysis, analyse
from xdyna.evaluation.study.options import AnalyseOptions
from xdyna.evaluation.study.ratings import Ratings, csv_of, ratings_of_csv, read_ratings
from xdyna.evaluation.study.report import analyse_files
from xdyna.evaluation.study.study_set import load_key, load_study

SHARED = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[4] / "shared"))
FIXTURES = SHARED / "reference" / "metrics-parity"
HEADER = "participant,case,method,FG,BG,ID\n"
GOOD = HEADER + "p,c,a,1,2,3\np,c,b,4,5,\nq,c,a,0,0,0\nq,c,b,1.5,2,2\n"


def random_ratings(p: int = 12, c: int = 6, m: int = 4, *, missing: float = 0.0, seed: int = 0) -> Ratings:
    random = np.random.default_rng(seed)
    values = random.integers(0, 6, (p, c, m, 3)).astype(float)
    values[random.random(values.shape) < missing] = np.nan
    names = [tuple(f"{letter}{i}" for i in range(n)) for letter, n in (("p", p), ("c", c), ("m", m))]
    return Ratings(names[0], names[1], names[2], values)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not on this machine")
def test_our_numbers_are_the_references() -> None:
    results = list(run_folder(FIXTURES, only=("g9_anova",)))
    assert len(results) >= 5
    assert [result for result in results if not result.passed] == []


def test_an_independent_count_of_the_design() -> None:
    analysis = analyse(random_ratings(100, 50, 5))
    for score in analysis.scores:
        assert (score.one_way.df_between, score.one_way.df_within) == (4, 495)
        assert score.one_way_on_ratings.df_within == 24995
        assert (score.repeated_measures.df_num, score.repeated_measures.df_den) == (4, 396)
        assert len(score.pairs) == 10
    overall = analysis.score("Overall")
    wanted = np.mean(
        [[c.of_participants.mean for c in analysis.score(k).methods] for k in ("FG", "BG", "ID")], 0
    )
    assert [c.of_participants.mean for c in overall.methods] == pytest.approx(list(wanted))


def test_missing_answers() -> None:
    ratings = random_ratings(4, 2, 2)
    values = ratings.values
    values[0, :, 0, 0] = np.nan  # p0 never rated m0 on FG
    values[1, 0, 1, 2] = np.nan  # p1 left out ID of one video
    analysis = analyse(ratings)
    foreground, identity = analysis.score("FG"), analysis.score("ID")
    assert [cell.of_participants.n for cell in foreground.methods] == [3, 4]
    assert foreground.one_way.df_within == 5
    assert foreground.repeated_measures.participants == foreground.pairs[0].test.participants == 3
    assert identity.methods[1].participant_means[1] == values[1, 1, 1, 2]
    # a video of which an answer is missing has no Overall
    overall = analysis.score("Overall").methods[1].participant_means[1]
    assert overall == pytest.approx(values[1, 1, 1].mean())
    assert math.isnan(analysis.score("Overall").methods[0].participant_means[0])
    assert analysis.missing == {"m0": 2, "m1": 1}
    whole = analyse(ratings, AnalyseOptions(missing="complete"))
    assert whole.left_out == ("p0", "p1")
    assert whole.ratings.participants == ("p2", "p3")
    assert set(whole.missing.values()) == {0}


def test_nobody_is_complete() -> None:
    ratings = random_ratings(2, 2, 2)
    ratings.values[:, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="no participant has answered everything"):
        analyse(ratings, AnalyseOptions(missing="complete"))
    ratings.values[:] = np.nan
    with pytest.raises(InputError, match="hold no answers"):
        analyse(ratings)
    with pytest.raises(InputError, match="of 1 method"):
        analyse(random_ratings(m=1))


def test_csv_in_any_order_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(
        "\ufeffID,method,participant,case,FG,BG\r\n3,a,p,c,1,2\r\n\r\n,b,p,d, 4 ,5.0\r\n", encoding="utf-8"
    )
    ratings = ratings_of_csv(path)
    assert (ratings.participants, ratings.cases, ratings.methods) == (("p",), ("c", "d"), ("a", "b"))
    assert ratings.values[0, 0, 0].tolist() == [1, 2, 3]
    assert ratings.values[0, 1, 1, :2].tolist() == [4, 5]
    assert np.isnan(ratings.values).sum() == 7


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_csv_round_trip(tmp_path: Path, missing: float) -> None:
    ratings = random_ratings(missing=missing)
    ratings.values[0, 0, 0, 0] = 7 / 3
    (tmp_path / "r.csv").write_text(csv_of(ratings))
    again = ratings_of_csv(tmp_path / "r.csv")
    assert again.methods == ratings.methods
    assert np.array_equal(again.values, ratings.values, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,2\n", "has the columns 'a', 'b'"),
        (HEADER.replace("ID", "ID,Overall"), "has the columns"),
        (HEADER, "holds no answers"),
        (GOOD + "p,c,a,1,2,3\n", "line 6 rates the same video of the same participant as line 2"),
        (GOOD + "r,c,a,1,2\n", "line 6 has 5 fields"),
        (GOOD + ",c,a,1,2,3\n", "line 6 has no participant"),
        (GOOD + "r,c,a,6,2,3\n", "line 6 has '6' for FG"),
        (GOOD + "r,c,a,-1,2,3\n", "'-1' for FG"),
        (GOOD + "r,c,a,nan,2,3\n", "'nan' for FG"),
        (GOOD + "r,c,a,inf,2,3\n", "'inf' for FG"),
        (GOOD + "r,c,a,1_0,2,3\n", "'1_0' for FG"),
        (GOOD + "r,c,a,five,2,3\n", "'five' for FG"),
        (GOOD + "r,c,a\x00,1,2,3\n", "line 6"),
        (GOOD + "r,c," + "a" * 200 + ",1,2,3\n", "longer than 100"),
        (GOOD + 'r,c,"a,1,2,3\n', "line 6"),
    ],
)
def test_csvs_that_are_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=match):
        ratings_of_csv(tmp_path / "r.csv")


def test_files_that_are_no_csv(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(b"\xff\xfe\x00p")
    with pytest.raises(InputError, match="UTF-8"):
        ratings_of_csv(tmp_path / "r.csv")
    with pytest.raises(InputError, match="no such file"):
        read_ratings(tmp_path / "none.csv")


def test_a_table_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings_module, "MOST_CELLS", 1000)
    rows = "".join(f"p{i},c{i},m{i},1,1,1\n" for i in range(20))
    (tmp_path / "r.csv").write_text(HEADER + rows)
    with pytest.raises(InputError, match="20 participants, 20 cases and 20 methods"):
        ratings_of_csv(tmp_path / "r.csv")


# ------------------------------------------------------------------------------------- from served to tables


def answer_by_method(client: Client, study: Path, codes: list[str]) -> dict[tuple[str, str, str], list[int]]:
    """Let people answer over HTTP, each rating drawn for its method; returns what was answered, by name."""
    videos = load_key(study, None, load_study(study)).videos
    random, given = np.random.default_rng(1), {}
    for code in codes:
        session = client.session(code)
        for c, case in enumerate(session["cases"]):
            for v, video in enumerate(case["videos"]):
                name, method = videos[video["id"]]
                drawn = [int(x) for x in random.integers(0, 4, 3) + METHODS.index(method)]
                given[(code, name, method)] = drawn
                for key, rating in zip(("FG", "BG", "ID"), drawn, strict=True):
                    assert (
                        client.post(an_answer(session, case=c, video=v, question=key, rating=rating)).status
                        == 200
                    )
    return given


def test_answers_come_back_under_their_methods_names(client: Client, study: Path, tmp_path: Path) -> None:
    given = answer_by_method(client, study, ["P1", "P2", "P3", "P4"])
    analysis, folder = analyse_files(study)
    assert folder == tmp_path / "study-analysis"
    ratings = analysis.ratings
    assert ratings.methods == METHODS
    for (code, case, method), values in given.items():
        place = ratings.participants.index(code), ratings.cases.index(case), ratings.methods.index(method)
        assert ratings.values[place].tolist() == values
    report = json.loads((folder / "report.json").read_text())
    wanted = np.mean([values[0] for (_, _, method), values in given.items() if method == "X-Dyna"])
    assert report["scores"]["FG"]["means"]["X-Dyna"]["mean"] == pytest.approx(wanted)
    assert (report["participants"], report["cases"], report["answers"]) == (4, 3, 108)
    # while the study goes on, again
    with pytest.raises(OutputError, match="--overwrite"):
        analyse_files(study)
    analyse_files(study, options=AnalyseOptions(overwrite=True))


def test_the_unblinded_csv_gives_the_same_report(client: Client, study: Path, tmp_path: Path) -> None:
    answer_by_method(client, study, ["P1", "P2", "P3"])
    _, first = analyse_files(study)
    _, second = analyse_files(first / "ratings.csv", tmp_path / "again")
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (first, second))
    assert one["scores"] == two["scores"]
    assert (first / "means.svg").read_bytes() == (second / "means.svg").read_bytes()


def test_without_the_right_key_nothing_is_unblinded(client: Client, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no answers"):
        analyse_files(study)
    client.post(an_answer(client.session("p")))
    key = tmp_path / "study.key.json"
    data = json.loads(key.read_text())
    key.rename(tmp_path / "safe.json")
    with pytest.raises(InputError, match=r"is not there.*--key"):
        analyse_files(study)
    assert read_ratings(study, key=tmp_path / "safe.json").participants == ("P",)
    key.write_text(json.dumps({**data, "study": "0" * 16}))
    with pytest.raises(InputError, match="key of another study"):
        analyse_files(study)
    data["cases"][0]["videos"].pop()
    key.write_text(json.dumps(data))
    with pytest.raises(InputError, match="does not name the study's videos"):
        analyse_files(study)


def test_results_stay_out_of_what_is_served(client: Client, study: Path) -> None:
    client.post(an_answer(client.session("p")))
    for place in (study, study / "results"):
        with pytest.raises(InputError, match="lies in the study's folder"):
            analyse_files(study, place)


# -------------------------------------------------------------------------------------------------- report


def report(ratings: Ratings, folder: Path) -> tuple[Analysis, Path]:
    folder.mkdir(exist_ok=True)
    (folder / "in.csv").write_text(csv_of(ratings))
    return analyse_files(folder / "in.csv", folder / "out")


def test_the_files_of_a_report(tmp_path: Path) -> None:
    analysis, folder = report(random_ratings(missing=0.1), tmp_path)
    text = (folder / "report.md").read_text()
    for key in ("FG", "BG", "ID", "Overall"):
        best = max(cell.of_participants.mean for cell in analysis.score(key).methods)
        assert f"**{best:.2f}**" in text
        assert f"{analysis.score(key).one_way.f:.3f}" in text
    assert f"{sum(analysis.missing.values())} missing" in text
    rows = {
        name: list(csv.DictReader((folder / name).read_text().splitlines()))
        for name in ("means.csv", "tests.csv", "pairs.csv")
    }
    assert [len(rows[name]) for name in rows] == [16, 4, 24]
    assert float(rows["tests.csv"][0]["one_way_f"]) == analysis.score("FG").one_way.f
    assert float(rows["pairs.csv"][0]["p_holm"]) == analysis.score("FG").pairs[0].p_holm
    for name in ("means.svg", "pairs.svg"):
        root = xml.parse(folder / name).getroot()
        assert root.tag.endswith("svg")
    bars = xml.parse(folder / "means.svg").getroot().iter("{http://www.w3.org/2000/svg}rect")
    heights = [float(bar.get("height", "0")) for bar in bars if bar.get("fill-opacity") == "0.75"]
    means = [cell.of_participants.mean for score in analysis.scores for cell in score.methods]
    assert heights == pytest.approx([260 * mean / 5 for mean in means], abs=0.06)


@pytest.mark.parametrize(("p", "c", "m"), [(1, 1, 2), (1, 3, 5), (2, 1, 2), (3, 2, 9)])
def test_small_studies_are_undefined_in_words(tmp_path: Path, p: int, c: int, m: int) -> None:
    _, folder = report(random_ratings(p, c, m), tmp_path)
    text = (folder / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    if p == 1:
        assert json.loads(text)["scores"]["FG"]["repeated_measures"]["f"] is None
        assert "undefined" in (folder / "report.md").read_text()
        assert "nan" not in (folder / "means.svg").read_text()


def test_everybody_says_the_same(tmp_path: Path) -> None:
    ratings = random_ratings(4, 2, 3)
    ratings.values[:] = np.array([1.0, 2.0, 3.0])[:, None]
    _, folder = report(ratings, tmp_path)
    score = json.loads((folder / "report.json").read_text())["scores"]["FG"]
    assert score["one_way"]["f"] == "inf"
    assert score["one_way"]["p"] == 0
    assert score["means"]["m1"]["low"] == score["means"]["m1"]["high"] == 2


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    ratings = random_ratings(5, 3, 2)
    hostile = Ratings(ratings.participants, ratings.cases, ("<script>x</script>|", "a*b`&"), ratings.values)
    _, folder = report(hostile, tmp_path)
    text = (folder / "report.md").read_text()
    assert "<script>" not in text.replace("\\<", "")
    table = [line for line in text.splitlines() if line.startswith("| \\<script")]
    assert table
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
    svg = (folder / "means.svg").read_text()
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    xml.fromstring(svg)


def test_a_score_without_any_answer(tmp_path: Path) -> None:
    ratings = random_ratings(4, 2, 3)
    ratings.values[..., 1] = np.nan
    _, folder = report(ratings, tmp_path)
    scores = json.loads((folder / "report.json").read_text())["scores"]
    assert scores["BG"]["means"]["m0"]["mean"] is None
    assert scores["Overall"]["one_way"]["f"] is None
    assert scores["FG"]["one_way"]["f"] is not None
