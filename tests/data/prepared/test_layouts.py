from __future__ import annotations

import json
from pathlib import Path

import pytest

from xdyna.data.prepared.options import PrepareOptions
from xdyna.data.prepared.sources import Source, list_sources
from xdyna.errors import InputError, OptionError


def tree(root: Path, *names: str) -> None:
    """Files with nothing in them: listing does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, *places: Path, **options: object) -> list[str]:
    sources = list_sources([*places] or [root], PrepareOptions(**options))
    return [source.path.relative_to(root).as_posix() for source in sources]


def test_files_and_folders(tmp_path: Path) -> None:
    tree(
        tmp_path, "a.mp4", "notes.txt", ".hidden.mp4", "more/b.MOV", "more/deep/c.webm", "shot/2.png", "shot/1.png",
        "beside/thumb.jpg", "beside/d.mp4",
    )  # fmt: skip
    assert found(tmp_path, kind="scene") == [
        "a.mp4",
        "beside/d.mp4",
        "more/b.MOV",
        "more/deep/c.webm",
        "shot",
    ]
    assert found(tmp_path, tmp_path / "notes.txt", kind="scene") == ["notes.txt"], "a named file is tried"
    twice = found(tmp_path, tmp_path / "a.mp4", tmp_path / "more" / ".." / "a.mp4", kind="human")
    assert twice == ["a.mp4"]


def test_nothing_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no videos found"):
        list_sources([tmp_path], PrepareOptions(kind="scene"))
    with pytest.raises(InputError, match="no such file or folder"):
        list_sources([tmp_path / "none"], PrepareOptions(kind="scene"))
    with pytest.raises(OptionError, match="--kind"):
        PrepareOptions()


def test_names_are_readable_and_differ() -> None:
    sources = [
        Source(Path("/a/My dance (1).mp4"), "human"),
        Source(Path("/b/My dance (1).mp4"), "human"),
        Source(Path("/a/My dance (1).mp4"), "human", 0, 10),
        Source(Path("/a/舞.mp4"), "human"),
    ]
    names = [source.name for source in sources]
    assert len(set(names)) == 4
    assert names[0].startswith("My-dance-1-")
    assert names[3].startswith("clip-")


def test_humanvid(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "pexels-my-h/videos/10.mp4", "pexels-my-h/dwpose/10.mp4", "pexels-my-h/camera/10.txt",
        "pexels-my-v/videos/11.mp4",
        "ubc/train/videos/u1.mp4", "ubc/train/dwpose/u1.mp4", "ubc/test/videos/u2.mp4",
        "training_video/3d_video_1/mp4/s.mp4", "training_video/3d_video_1/dwpose/s.mp4",
    )  # fmt: skip
    train = [
        "pexels-my-h/videos/10.mp4", "pexels-my-v/videos/11.mp4", "training_video/3d_video_1/mp4/s.mp4",
        "ubc/train/videos/u1.mp4",
    ]  # fmt: skip
    assert found(tmp_path, layout="humanvid") == train
    assert found(tmp_path, layout="humanvid", split="test") == ["ubc/test/videos/u2.mp4"]
    assert len(found(tmp_path, layout="humanvid", split="all")) == 5


def test_humanvids_json_lists(tmp_path: Path) -> None:
    tree(tmp_path, "videos/10.mp4")
    entries = [
        {"video_path": "videos/10.mp4", "kps_path": "dwpose/10.mp4", "start_frame": 0, "end_frame": 240},
        {"video_path": "videos/10.mp4", "kps_path": "dwpose/10.mp4", "start_frame": 240, "end_frame": 480},
        {"video_path": "videos/gone.mp4", "kps_path": "dwpose/gone.mp4"},
    ]
    meta = tmp_path / "lists" / "meta.json"
    meta.parent.mkdir()
    meta.write_text(json.dumps(entries))
    sources = list_sources([meta], PrepareOptions(layout="humanvid"))
    assert [(s.path.name, s.start, s.end) for s in sources] == [
        ("10.mp4", 0, 240), ("10.mp4", 240, 480), ("gone.mp4", 0, None),
    ]  # fmt: skip
    assert sources[0].path == tmp_path / "videos" / "10.mp4"
    assert {s.kind for s in sources} == {"human"}


def test_ubc(tmp_path: Path) -> None:
    tree(tmp_path, "UBC/train/a.mp4", "UBC/train_dwpose/a.mp4", "UBC/test/b.mp4", "UBC/readme.txt")
    assert found(tmp_path, layout="ubc") == ["UBC/train/a.mp4"]
    assert found(tmp_path, layout="ubc", split="test") == ["UBC/test/b.mp4"]
    assert found(tmp_path, layout="ubc", split="all") == ["UBC/test/b.mp4", "UBC/train/a.mp4"]
    assert found(tmp_path, tmp_path / "UBC" / "train", layout="ubc") == ["UBC/train/a.mp4"]


def test_tiktok(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "00001/images/0001.png", "00001/masks/0001.png", "00001/densepose/0001.png",
        "00334/0000.png", "00334/groundsam/000001.png.mask.jpg", "00335/images/0001.png", "00340/images/0001.png",
    )  # fmt: skip
    assert found(tmp_path, layout="tiktok") == ["00001/images", "00334"]
    assert found(tmp_path, layout="tiktok", split="test") == ["00335/images", "00340/images"]


def test_tiktok_with_named_parts(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "TikTok-v4/train_set/001/0001.png", "TikTok-v4/pose_map_train_set/001/0001.png",
        "TikTok-v4/train_set/336/0001.png", "TikTok-v4/disco_test_set/002/0001.png",
        "TikTok-v4/pose_map_disco_test_set/002/0001.png",
    )  # fmt: skip
    assert found(tmp_path, layout="tiktok") == ["TikTok-v4/train_set/001", "TikTok-v4/train_set/336"]
    assert found(tmp_path, layout="tiktok", split="test") == ["TikTok-v4/disco_test_set/002"]


def test_moore(tmp_path: Path) -> None:
    tree(tmp_path, "fashion/a.mp4", "fashion/b.mp4")
    absolute = {"video_path": str(tmp_path / "fashion" / "b.mp4"), "kps_path": "x"}
    meta = tmp_path / "data" / "fashion_meta.json"
    meta.parent.mkdir()
    meta.write_text(
        json.dumps([{"video_path": "fashion/a.mp4", "kps_path": "fashion_dwpose/a.mp4"}, absolute])
    )
    assert found(tmp_path, meta, layout="moore") == ["fashion/a.mp4", "fashion/b.mp4"]
    with pytest.raises(InputError, match="json lists"):
        found(tmp_path, layout="moore")


def test_animatediff(tmp_path: Path) -> None:
    tree(tmp_path, "videos/1.mp4", "videos/000_050/2.mp4")
    table = tmp_path / "results.csv"
    table.write_text('videoid,name,page_dir\n1,"A sea, at dusk",x\n2,"Fire",000_050\n3,"Gone",y\n')
    places = (table, tmp_path / "videos")
    assert found(tmp_path, *places, layout="animatediff") == [
        "videos/1.mp4", "videos/000_050/2.mp4", "videos/3.mp4",
    ]  # fmt: skip
    assert found(tmp_path, table, layout="animatediff")[0] == "videos/1.mp4"
    assert {s.kind for s in list_sources(places, PrepareOptions(layout="animatediff"))} == {"scene"}
    as_people = list_sources(places, PrepareOptions(layout="animatediff", kind="human"))
    assert {s.kind for s in as_people} == {"human"}


@pytest.mark.parametrize(
    ("layout", "name", "text", "words"),
    [
        ("moore", "m.json", "{", "is not valid JSON"),
        ("moore", "m.json", "{}", "is not a list"),
        ("moore", "m.json", '[{"video": "a"}]', "entry 0: has no video_path"),
        ("humanvid", "m.json", '[{"video_path": "a", "start_frame": -1}]', "start_frame is -1"),
        ("animatediff", "t.csv", "id,name\n1,2\n", "does not name videoid"),
        ("animatediff", "t.csv", "videoid,name,page_dir\n,2,3\n", "line 2: has no videoid"),
        ("animatediff", "t.txt", "1", "is no .csv list"),
        ("ubc", "t.txt", "1", "is not a folder"),
        ("tiktok", "t.txt", "1", "is not a folder"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, layout: str, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name) as caught:
        list_sources([tmp_path / name], PrepareOptions(layout=layout))
    assert words in str(caught.value)
