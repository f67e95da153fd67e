"""The whole command on a tiny model of the real classes, with ready keypoints."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import dancer, noise_frames, tiny_model, tiny_pipeline, write_video
from xdyna import media
from xdyna.animate import animate_file, repeat_settings
from xdyna.cli import main
from xdyna.errors import InputError, OptionError, OutputError, ResourceError
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline
from xdyna.sampling import still

FRAMES = 21


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, a picture, a driving video of several windows, and keypoints for both."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(noise_frames(1, (120, 90), seed=1)[0]).save(folder / "person.png")
    write_video(folder / "dance.mp4", noise_frames(FRAMES))
    dancer(FRAMES).save(folder / "dance.npz")
    dancer(1, (120, 90)).save(folder / "person.npz")
    return {
        "model": tiny_model(folder / "model"),
        "image": folder / "person.png",
        "video": folder / "dance.mp4",
        "keypoints": folder / "dance.npz",
        "reference_keypoints": folder / "person.npz",
    }


def options(inputs: dict[str, Path], **changes: object) -> AnimateOptions:
    settings: dict = {
        "model": str(inputs["model"]),
        "keypoints": str(inputs["keypoints"]),
        "reference_keypoints": str(inputs["reference_keypoints"]),
        "window": 8,
        "overlap": 2,
    }
    return AnimateOptions(**(settings | changes))


def run(inputs: dict[str, Path], output: Path, **changes: object) -> Path:
    return animate_file(inputs["image"], inputs["video"], output, options=options(inputs, **changes)).video


def test_all_frames_in_the_reference_s_aspect_at_the_driver_s_rate(inputs: dict, tmp_path: Path) -> None:
    info = media.probe(run(inputs, tmp_path / "out.mp4"))
    assert (info.frames, info.fps) == (FRAMES, Fraction(8))
    assert info.height / info.width == pytest.approx(120 / 90, abs=0.15)


def test_same_seed_same_bytes_another_seed_others(inputs: dict, tmp_path: Path) -> None:
    first, again, other = (
        run(inputs, tmp_path / name, seed=seed) for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2))
    )
    assert (media.read_clip(first).frames == media.read_clip(again).frames).all()
    assert (media.read_clip(first).frames != media.read_clip(other).frames).any()


def test_settings_file_repeats_the_run(inputs: dict, tmp_path: Path) -> None:
    first = run(inputs, tmp_path / "a.mp4", seed=5, frames=9, steps=3)
    record = json.loads(first.with_suffix(".json").read_text())
    assert record["ai_generated"] is True
    assert record["result"]["frames"] == 9
    assert len(record["model"]["sha256"]) == 64
    assert set(record["seconds"]) >= {"prepare", "denoise", "decode", "total"}
    assert (
        main(["animate", "--from", str(first.with_suffix(".json")), "-o", str(tmp_path / "b.mp4"), "-q"]) == 0
    )
    again = media.read_clip(tmp_path / "b.mp4").frames
    assert (media.read_clip(first).frames == again).all()


def test_a_changed_input_is_not_repeated_silently(inputs: dict, tmp_path: Path) -> None:
    image = tmp_path / "person.png"
    image.write_bytes(inputs["image"].read_bytes())
    result = animate_file(image, inputs["video"], tmp_path / "a.mp4", options=options(inputs, frames=2))
    Image.new("RGB", (90, 120)).save(image)
    with pytest.raises(InputError, match="has changed since"):
        repeat_settings(result.settings)


def test_a_small_face_is_made_again_and_put_back(inputs: dict, tmp_path: Path) -> None:
    with_it, without = (
        frames_of(run(inputs, tmp_path / f"{refine}", size="96x128", refine_face=refine))
        for refine in (True, False)
    )
    assert with_it.shape == without.shape
    changed = np.abs(with_it - without).max((0, 3))
    assert changed[:48, 24:72].max() > 10, "the head"
    assert changed[64:].max() == 0, "nothing else"
    told = json.loads((tmp_path / "True.json").read_text())
    assert told["options"]["refine_face"] is True
    assert told["seconds"]["refine"] > 0


def test_what_stands_still_is_the_picture(
    inputs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an untrained model's clip is nowhere near the picture
    monkeypatch.setattr(still, "STILL", 1e3)
    monkeypatch.setattr(still, "ALIVE", 2e3)
    held, free = (
        frames_of(run(inputs, tmp_path / f"{hold}", size="96x128", steps=1, hold_still=hold))
        for hold in (True, False)
    )
    moved, moved_free = (np.abs(np.diff(frames, axis=0)).mean((0, 3)) for frames in (held, free))
    assert moved[:, :24].max() == 0, "far from the head"
    assert moved_free[:, :24].min() > 0
    assert moved[:48, 24:72].max() > 0.5 * moved_free[:48, 24:72].max(), "the head"
    assert json.loads((tmp_path / "True.json").read_text())["options"]["hold_still"] is True


def frames_of(folder: Path) -> np.ndarray:
    return np.stack([media.read_image(path) for path in sorted(folder.glob("*.png"))]).astype(int)


def test_comparison_and_sheet(inputs: dict, tmp_path: Path) -> None:
    result = animate_file(
        inputs["image"], inputs["video"], tmp_path / "a.mp4", options=options(inputs, frames=5, compare=True)
    )
    assert result.comparison is not None
    assert result.sheet is not None
    plain, beside = media.probe(result.video), media.probe(result.comparison)
    assert beside.frames == plain.frames == 5
    assert beside.width > 4 * plain.width
    assert media.read_image(result.sheet).shape[1] > plain.width * 5


def test_stride_and_fps(inputs: dict, tmp_path: Path) -> None:
    strided = media.probe(run(inputs, tmp_path / "a.mp4", stride=4, steps=1))
    assert (strided.frames, strided.fps) == (6, Fraction(2))
    retimed = media.probe(run(inputs, tmp_path / "b.mp4", fps=4.0, steps=1))
    assert (retimed.frames, retimed.fps) == (11, Fraction(4))
    slow = media.probe(run(inputs, tmp_path / "c.mp4", fps=16.0, frames=30, steps=1))
    assert (slow.frames, slow.fps) == (30, Fraction(16))


def test_asked_size(inputs: dict, tmp_path: Path) -> None:
    info = media.probe(run(inputs, tmp_path / "a.mp4", size="104x72", frames=2, steps=1))
    assert (info.width, info.height) == (104, 72)


@pytest.mark.parametrize("align", ["retarget", "rigid", "none"])
def test_every_alignment_gives_its_own_result(inputs: dict, tmp_path: Path, align: str) -> None:
    clip = media.read_clip(run(inputs, tmp_path / "a.mp4", align=align, frames=3))
    assert len(clip) == 3


def test_more_frames_than_there_are(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"dance.mp4: {FRAMES + 1} frames were asked for and there are {FRAMES}"
    ):
        run(inputs, tmp_path / "a.mp4", frames=FRAMES + 1)
    assert list(tmp_path.iterdir()) == []


def test_start_beyond_the_end(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Lower --start"):
        run(inputs, tmp_path / "a.mp4", start=99)


def test_existing_output_is_kept(inputs: dict, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        run(inputs, tmp_path / "a.mp4")
    assert (tmp_path / "a.json").read_text() == "mine"
    assert not (tmp_path / "a.mp4").exists()


def test_a_failure_halfway_leaves_nothing(inputs: dict, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(part: str, done: int, total: int | None) -> None:
        if part == "decoding" and done == 3:
            raise Stop

    with pytest.raises(Stop):
        animate_file(
            inputs["image"], inputs["video"], tmp_path / "a.mp4", options=options(inputs), progress=stop
        )
    assert list(tmp_path.iterdir()) == []


def test_window_longer_than_the_model_sees(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="24 at most"):
        run(inputs, tmp_path / "a.mp4", window=25)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"device": "tpu"}, OptionError, "allowed are auto, cpu, cuda"),
        ({"dtype": "float16", "device": "cpu"}, OptionError, "Use --dtype float32"),
        ({"device": "cuda:99"}, ResourceError, "cuda:99 was asked for"),
        ({"scheduler": "magic"}, OptionError, "--scheduler"),
        ({"keypoints": "nowhere.npz"}, InputError, "nowhere.npz"),
    ],
)
def test_wrong_machine_or_option(inputs: dict, tmp_path: Path, changes: dict, kind: type, words: str) -> None:
    with pytest.raises(kind, match=r"--|nowhere") as caught:
        run(inputs, tmp_path / "a.mp4", **changes)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_model_part_is_named(
    inputs: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    broken = tmp_path / "model"
    shutil.copytree(inputs["model"], broken)
    shutil.rmtree(broken / "vae")
    arguments = ["animate", str(inputs["image"]), str(inputs["video"]), "-o", str(tmp_path / "a.mp4"), "-q"]
    assert main([*arguments, "--model", str(broken)]) == 2
    message = capsys.readouterr().err
    assert "WeightsError" in message
    assert "vae" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "command", [["animate"], ["animate", "a.png", "b.mp4"], ["conditions", "b.mp4", "-o", "x"]]
)
def test_a_user_s_mistake_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("xdyna: ")


def test_python_call_takes_arrays_and_returns_frames() -> None:
    pipeline = tiny_pipeline()
    seen: list[str] = []
    output = pipeline(
        noise_frames(1, (64, 64))[0],
        noise_frames(5),
        options=AnimateOptions(align="none", face_mode="official"),
        frames=4,
        detector="given",
        keypoints=_saved(dancer(5)),
        progress=lambda part, done, total: seen.append(part),
    )
    assert output.frames.shape == (4, 80, 80, 3)
    assert output.frames.dtype == np.uint8
    assert list(dict.fromkeys(seen)) == ["preparing pose and face", "denoising", "decoding"]
    with pytest.raises(TypeError, match="stepz"):
        pipeline(noise_frames(1)[0], noise_frames(5), stepz=3)


def test_offload_gives_the_same_pixels(inputs: dict, tmp_path: Path) -> None:
    plain = media.read_clip(run(inputs, tmp_path / "a.mp4", frames=3)).frames
    off = media.read_clip(run(inputs, tmp_path / "b.mp4", frames=3, offload=True)).frames
    assert (plain == off).all()


def test_a_pipeline_is_loaded_once_and_used_again(inputs: dict, tmp_path: Path) -> None:
    pipeline = XDynaPipeline.from_pretrained(inputs["model"], device="cpu")
    for name in ("a.mp4", "b.mp4"):
        animate_file(
            inputs["image"],
            inputs["video"],
            tmp_path / name,
            options=options(inputs, frames=2),
            pipeline=pipeline,
        )
    assert (tmp_path / "b.mp4").exists()


def test_fused_networks_give_the_same_pixels(inputs: dict) -> None:
    def frames(fusing: str) -> np.ndarray:
        pipeline = XDynaPipeline.from_pretrained(inputs["model"], device="cpu", fusing=fusing)
        keypoints = _saved(dancer(3))
        return pipeline(
            noise_frames(1)[0], noise_frames(3), align="none", detector="given", keypoints=keypoints
        ).frames.astype(int)

    assert np.abs(frames("always") - frames("never")).max() <= 1
    with pytest.raises(OptionError, match="fusing"):
        XDynaPipeline.from_pretrained(inputs["model"], device="cpu", fusing="quick")


def _saved(keypoints: object) -> str:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "k.npz"
    keypoints.save(path)  # type: ignore[attr-defined]
    return str(path)
