from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.texture import SEED, SPOILED, measure, spoil
from safetensors.torch import load_file, save_file

from xdyna.data.synthetic import SCENES
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.frechet import frechet_distance
from xdyna.evaluation.networks.texture import (
    ASSET,
    FRAMES,
    KINDS,
    SCENE_KINDS,
    SIDE,
    TEMPOS,
    WIDTH,
    TextureNet,
    change_of,
    load_texture_net,
    prepare_clip,
    read_clips,
    save_texture_net,
    sixteen,
    texture_features,
)
from xdyna.training.texture import CHUNK, render_textures

Held = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def held_out() -> Held:
    """48 clips that no training sees: frames (n 16 64 64 3), masks (n 16 64 64), kinds, still ones."""
    batches = [render_textures(SEED + 900_000 + chunk, size=64) for chunk in range(4)]
    frames = torch.cat([batch.frames for batch in batches])
    return (
        (frames * 255).round().byte().permute(0, 1, 3, 4, 2).numpy(),
        torch.cat([batch.mask for batch in batches])[:, :, 0].numpy(),
        torch.cat([batch.scene for batch in batches]).numpy(),
        torch.cat([batch.still & ~batch.human for batch in batches]).numpy(),
    )


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_its_scenes_are_those_of_the_synthetic_world() -> None:
    assert SCENE_KINDS == SCENES
    assert len(KINDS) == len(SCENES) + 1


def test_what_comes_out_has_the_stated_shapes() -> None:
    reading = TextureNet().eval()(torch.rand(2, 3, FRAMES, SIDE, SIDE))
    assert reading.features.shape == (2, WIDTH)
    assert reading.kinds.shape == (2, len(KINDS))
    assert reading.tempos.shape == (2, len(TEMPOS))
    assert reading.energy.shape == (2,)
    assert reading.features.min() >= 0


@pytest.mark.parametrize(
    ("count", "start"), [(1, [0, 0, 0]), (2, [0, 1, 0, 1]), (5, [0, 1, 2, 3, 4, 3, 2, 1, 0, 1])]
)
def test_short_clips_are_played_forth_and_back(count: int, start: list[int]) -> None:
    order = sixteen(count)
    assert len(order) == FRAMES
    assert order[: len(start)] == start
    assert max(np.abs(np.diff(order))) <= 1


def test_sixteen_frames_are_taken_as_they_are() -> None:
    assert sixteen(16) == list(range(16))


@pytest.mark.parametrize("count", [0, 17])
def test_other_lengths_are_an_error(count: int) -> None:
    with pytest.raises(InputError, match="1 to 16"):
        sixteen(count)


@pytest.mark.parametrize("shape", [(16, 64, 64), (5, 100, 60), (1, 33, 256), (3, 1, 1)])
def test_clips_of_any_size_and_length(shape: tuple[int, int, int]) -> None:
    features = texture_features([noise(*shape)])
    assert features.shape == (1, WIDTH)
    assert features.dtype == np.float64
    assert np.isfinite(features).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_clips_give_numbers(level: int) -> None:
    clip = np.full((16, 32, 32, 3), level, np.uint8)
    assert np.isfinite(texture_features([clip])).all()


def test_clips_of_several_sizes_come_one_row_each_whatever_the_batch() -> None:
    clips = [noise(16, 64, 64), noise(4, 80, 50), noise(16, 20, 20)]
    together = texture_features(iter(clips))
    assert together.shape == (3, WIDTH)
    alone = np.concatenate([texture_features([clip], batch=1) for clip in clips])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_no_clips_give_no_rows() -> None:
    assert texture_features([]).shape == (0, WIDTH)


def test_parts_are_what_the_mask_says() -> None:
    clip = np.full((16, 64, 64, 3), 200, np.uint8)
    mask = np.zeros((16, 64, 64), bool)
    mask[:, 16:32] = True
    front = prepare_clip(clip, mask=mask, part="fg")
    back = prepare_clip(clip, mask=mask, part="bg")
    assert front[:, :, 16:32].min() == pytest.approx(200 / 255)
    assert front[:, :, :16].max() == front[:, :, 32:].max() == 0
    torch.testing.assert_close(front + back, prepare_clip(clip))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_masks_of_other_types_say_the_same(kind: type) -> None:
    clip, mask = noise(16, 40, 40), np.random.default_rng(1).random((16, 40, 40)) < 0.5
    other = mask.astype(kind) * kind(255 if kind is np.uint8 else 1)
    torch.testing.assert_close(
        prepare_clip(clip, mask=mask, part="fg"), prepare_clip(clip, mask=other[..., None], part="fg")
    )


@pytest.mark.parametrize(
    ("clip", "mask", "part", "problem"),
    [
        (noise(16, 8, 8).astype(np.float32), None, "all", "uint8"),
        (noise(16, 8, 8)[0], None, "all", "uint8"),
        (noise(0, 8, 8), None, "all", "shape"),
        (noise(17, 8, 8), None, "all", "1 to 16"),
        (noise(2, 8, 8), None, "fg", "masks"),
        (noise(2, 8, 8), np.zeros((2, 8, 9), bool), "bg", "does not go with"),
        (noise(2, 8, 8), np.full((2, 8, 8), np.nan), "bg", "not allowed"),
        (noise(2, 8, 8), np.full((2, 8, 8), 3, np.int64), "bg", "not allowed"),
    ],
)
def test_bad_clips_and_masks_are_errors(
    clip: np.ndarray, mask: np.ndarray | None, part: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        texture_features([clip], masks=None if mask is None else [mask], part=part)  # type: ignore[arg-type]


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(OptionError, match="all, fg, bg"):
        texture_features([noise(2, 8, 8)], part="sky")  # type: ignore[arg-type]


def test_a_batch_below_one_is_an_error() -> None:
    with pytest.raises(OptionError, match="batch"):
        texture_features([noise(2, 8, 8)], batch=0)


@pytest.mark.parametrize("masks", [1, 3])
def test_masks_must_be_as_many_as_clips(masks: int) -> None:
    with pytest.raises(InputError, match="masks"):
        texture_features([noise(2, 8, 8)] * 2, masks=[np.zeros((2, 8, 8), bool)] * masks, part="bg")


def test_the_change_is_that_of_the_pixels() -> None:
    clips = torch.zeros(1, 3, 4, 2, 2)
    assert change_of(clips).item() == pytest.approx(-1)
    clips[:, :, 1::2] = 0.099
    assert change_of(clips).item() == pytest.approx(1)


def test_the_shipped_network_is_small() -> None:
    assert ASSET.stat().st_size <= 2**20


def test_the_shipped_network_knows_held_out_scenes(held_out: Held) -> None:
    frames, masks, kinds, _ = held_out
    said = torch.cat([reading.kinds for reading in read_clips(frames)]).argmax(1).numpy()
    # chance is 1 in 33; measured on 960 clips in docs/evaluation-texture.md
    assert (said == kinds).mean() > 0.5
    people = masks.any((1, 2, 3))
    alone = torch.cat([r.kinds for r in read_clips(frames[people], masks=masks[people], part="fg")]).argmax(1)
    assert (alone == KINDS.index("person")).float().mean() > 0.8


def test_frozen_clips_look_different(held_out: Held) -> None:
    frames, _, _, still = held_out
    frozen = np.stack([spoil(clip, "frozen") for clip in frames])
    as_they_are, stopped = texture_features(frames), texture_features(frozen)
    apart = np.linalg.norm(as_they_are - stopped, axis=1)
    # the film's noise is all that moves in a still scene; in a moving one more does
    assert np.median(apart[~still]) > 3 * np.median(apart[still])
    tempos = torch.cat([reading.tempos for reading in read_clips(frozen)]).argmax(1)
    assert (tempos == TEMPOS.index("still")).float().mean() > 0.9
    half = len(frames) // 2
    floor = frechet_distance(as_they_are[:half], as_they_are[half:])
    assert frechet_distance(as_they_are[:half], stopped[half:]) > 1.5 * floor


def test_a_saved_network_reads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = TextureNet().eval()
    save_texture_net(net, tmp_path / "net.safetensors", about={"seed": 3})
    loaded = load_texture_net(tmp_path / "net.safetensors")
    clip = torch.rand(1, 3, FRAMES, SIDE, SIDE)
    torch.testing.assert_close(loaded(clip).features, net(clip).features, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "classes", "no-metadata", "junk", "absent"])
def test_other_files_are_errors(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "net.safetensors"
    save_texture_net(TextureNet(), path, about={})
    weights = load_file(path)
    kinds = list(KINDS)
    if fault == "missing":
        del weights["kinds.bias"]
    elif fault == "extra":
        weights["more"] = torch.zeros(1)
    elif fault == "shape":
        weights["kinds.bias"] = torch.zeros(34)
    elif fault == "classes":
        kinds = kinds[::-1]
    note = None if fault == "no-metadata" else {"texture": json.dumps({"kinds": kinds})}
    save_file(weights, path, metadata=note)
    if fault == "junk":
        path.write_bytes(b"nothing")
    elif fault == "absent":
        path.unlink()
    with pytest.raises(WeightsError, match=r"net\.safetensors"):
        load_texture_net(path)


def test_the_benchmark_measures_what_it_says() -> None:
    report = measure(load_texture_net(), 4 * CHUNK, size=48)
    accuracy = report["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["kind, all of these"]["n"] == 24 + 3 * 24
    rows = report["distances"]
    assert isinstance(rows, list)
    assert {row["part"] for row in rows} == {"all", "fg", "bg"}
    assert {row["what"] for row in rows} >= set(SPOILED)
    values = {row["what"]: row["value"] for row in rows if row["part"] == "all"}
    assert values["frozen"] > values["true"] > 0


def test_spoiling_does_what_it_says() -> None:
    clip = noise(16, 32, 32)
    assert (spoil(clip, "true") == clip).all()
    assert (spoil(clip, "frozen") == clip[0]).all()
    assert (spoil(clip, "backwards")[0] == clip[15]).all()
    assert (spoil(clip, "half speed")[15] == clip[7]).all()
    shuffled = spoil(clip, "shuffled")
    places = [int(np.flatnonzero((clip == frame).all((1, 2, 3)))[0]) for frame in shuffled]
    assert sorted(places) == list(range(16))
    assert all(place != at for at, place in enumerate(places))
    assert 1 not in np.diff(places)
    assert spoil(clip, "blurred 4 px").std() < clip.std()
