"""Reading lists of clips: ours, and the official repository's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.batch.conftest import ENTRY, write_list
from xdyna.batch import check_job, read_jobs
from xdyna.cli import main
from xdyna.errors import InputError, OptionError, XdynaError


def test_paths_begin_at_the_list_s_folder_and_options_have_their_names(inputs: Path, tmp_path: Path) -> None:
    path = write_list(inputs, "named", ENTRY | {"output": "a/b", "seed": 3}, ENTRY | {"steps": None})
    with path.open("a") as file:
        file.write("\n# a remark\n" + json.dumps({"image": "person.png", "driving": "dance.mp4"}) + "\n")
    first, second, third = read_jobs(path, tmp_path, defaults={"steps": 7, "pose_scale": 0.5})
    assert (first.image, first.video) == (inputs / "person.png", inputs / "dance.mp4")
    assert first.output == tmp_path / "a" / "b.mp4"
    assert first.options.keypoints == str(inputs / "dance.npz")
    assert first.options.model == str(inputs / "model")
    assert (first.options.seed, first.options.steps, first.options.pose_scale) == (3, 1, 0.5)
    assert second.options.steps is None
    assert third.options.steps == 7
    assert third.options.model == "embedded"
    assert (second.output.name, third.output.name) == ("person_dance.mp4", "person_dance-2.mp4")
    assert [job.where for job in (first, second, third)] == [f"{path}:{line}" for line in (1, 2, 5)]
    assert check_job(first) == f"3 frames to {tmp_path / 'a' / 'b.mp4'}"


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ('{"image": "a.png", "video": "b.mp4", "stepz": 3}', OptionError, r":2: unknown name 'stepz'"),
        ('{"image": "a.png", "video": "b.mp4", "steps": "3"}', OptionError, r":2: --steps: got '3'"),
        ('{"image": "a.png", "video": "b.mp4", "window": 4, "overlap": 4}', OptionError, r":2: --overlap"),
        ('{"image": "a.png", "video": "b.mp4", "device": "cpu"}', OptionError, r":2: device"),
        ('{"image": "a.png", "video": "b.mp4", "model": 3}', OptionError, r":2: --model"),
        ('{"image": "a.png", "video": "b.mp4", "driving": "c.mp4"}', InputError, r":2: video and driving"),
        ('{"video": "b.mp4"}', InputError, r":2: no image is named"),
        ('{"image": "a.png", "video": 7}', InputError, r":2: video: got 7"),
        ('{"image": "a.png", "video": "b.mp4", "keypoints": [1]}', InputError, r":2: keypoints: got"),
        (
            '{"image": "a.png", "video": "b.mp4", "output": "../x"}',
            InputError,
            r":2: output: '../x' leads out",
        ),
        ('{"image": "a.png", "video": "b.mp4", "output": "/x"}', InputError, r":2: output: '/x' leads out"),
        ('{"image": "a.png", "video": "b.mp4", "output": "first.gif"}', InputError, r"that of .*:1 too"),
        ('{"image": "a.png"', InputError, r":2: is not valid JSON"),
        ('"a.png"', InputError, r":2: got 'a.png', a clip is an object"),
        ("[" * 100000, InputError, r"no JSON|not valid JSON"),
    ],
)
def test_a_bad_line_is_named(line: str, kind: type[XdynaError], words: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"image": "a.png", "video": "b.mp4", "output": "first.mp4"}\n' + line + "\n")
    with pytest.raises(kind, match=words):
        read_jobs(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n# nothing\n", b"\xff\xfe\x00x", b"[]"])
def test_a_list_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"jobs\.jsonl"):
        read_jobs(path, tmp_path)


def official(folder: Path) -> Path:
    """A tree as the official repository's: paths in the list begin at its root."""
    for name in ("people/anna.jpg", "poses/dance/pose.mp4", "videos/dance.mp4"):
        (folder / "assets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "assets" / name).touch()
    entries = [
        {
            "image_path": "./assets/people/anna.jpg", "caption": "a dancer",
            "target_no_head_poses": "./assets/poses/dance/pose.mp4", "target_videos": "./assets/videos/dance.mp4",
        },
        {
            "image_path": "assets/people/anna.jpg", "caption": None,
            "target_no_head_poses": "assets/poses/dance/pose.mp4",
        },
    ]  # fmt: skip
    path = folder / "examples" / "example.json"
    path.parent.mkdir()
    path.write_text(json.dumps(entries, indent=2))
    return path


def test_the_official_list(tmp_path: Path) -> None:
    path = official(tmp_path)
    both, posed = read_jobs(path, tmp_path / "out", defaults={"seed": 42})
    assets = tmp_path / "assets"
    assert (both.image, both.video) == (assets / "people/anna.jpg", assets / "videos/dance.mp4")
    assert both.options.keypoints == str(assets / "poses/dance/pose.mp4")
    assert (both.options.prompt, both.options.seed) == ("a dancer", 42)
    assert posed.video == assets / "poses/dance/pose.mp4"
    assert posed.options.prompt == ""
    assert (both.output.name, posed.output.name) == ("anna_dance.mp4", "anna_pose.mp4")
    with pytest.raises(InputError, match="no video is named"):
        read_jobs(path, tmp_path / "out", poses="video")
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    (found,) = read_jobs(path, tmp_path / "out", poses="video")
    assert found.options.keypoints is None


def test_dry_run_looks_at_everything_and_makes_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "text.png").write_text("no picture")
    path = write_list(
        inputs, "dry", ENTRY, ENTRY | {"image": "nobody.png"}, ENTRY | {"image": "text.png"},
        ENTRY | {"frames": 99}, ENTRY | {"model": "no-such-model"}, ENTRY | {"keypoints": "nothing.npz"},
    )  # fmt: skip
    assert main(["batch", str(path), "-o", str(tmp_path / "out"), "--dry-run", "-q"]) == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}:1: 3 frames to {tmp_path / 'out' / 'person_dance.mp4'}"
    for line, words in zip(
        lines[1:6],
        ["nobody.png: no such file", "text.png", "99 frames", "no-such-model", "nothing.npz"],
        strict=True,
    ):
        assert words in line
    assert lines[6] == "6 clips: 5 cannot be made; nothing was written"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers"),
        (["--gpus", "99"], "--gpus"),
        (["--device", "cpu", "--gpus", "2", "--workers", "2"], "--workers"),
        (["--ray", "auto", "--gpus", "0,1"], "--gpus"),
        (["--stepz"], "stepz"),
    ],
)
def test_a_user_s_mistake_is_told(
    words: list[str], message: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_list(inputs, "mistake", ENTRY)
    try:
        status = main(["batch", str(path), "-o", str(tmp_path / "out"), *words])
    except SystemExit as ended:  # argparse's own
        status = int(ended.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
