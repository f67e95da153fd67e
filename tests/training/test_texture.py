from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xdyna.errors import InputError
from xdyna.evaluation.networks.texture import FRAMES, KINDS, SIDE, TEMPOS, load_texture_net
from xdyna.training.texture import (
    CHUNK,
    TexturePool,
    TextureTraining,
    draw_lesson,
    main,
    open_pool,
    render_textures,
    train_texture,
)

STILL, PLAYS, SHUFFLED = range(len(TEMPOS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(folder: Path) -> TexturePool:
    return open_pool(folder, TextureTraining(clips=2 * CHUNK))


def test_half_the_rendered_clips_have_a_person() -> None:
    batch = render_textures(3, size=32)
    assert batch.frames.shape == (CHUNK, FRAMES, 3, 32, 32)
    assert batch.human.sum() == CHUNK // 2
    covered = batch.mask.flatten(1).amax(1) > 0
    assert not covered[~batch.human].any()


def test_a_pool_holds_the_clips_that_were_rendered(pool: TexturePool) -> None:
    assert pool.frames.shape == (24, FRAMES, SIDE, SIDE, 3)
    assert pool.masks.shape == (24, FRAMES, SIDE, SIDE)
    assert pool.human.sum() == 12
    assert (pool.masks[~pool.human] == 0).all()
    batch = render_textures(800_000_000, size=64)
    wanted = (batch.frames.clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    assert (pool.frames[:CHUNK] == wanted).all()
    assert pool.kinds[:CHUNK].tolist() == batch.scene.tolist()


def test_a_pool_is_used_again_and_no_other_in_its_place(pool: TexturePool, folder: Path) -> None:
    again = open_pool(folder, TextureTraining(clips=2 * CHUNK))
    assert (again.frames == pool.frames).all()
    with pytest.raises(InputError, match="another training"):
        open_pool(folder, TextureTraining(clips=2 * CHUNK, seed=1))


def test_lessons_have_all_parts_and_tempos(pool: TexturePool) -> None:
    lesson = draw_lesson(pool, np.random.default_rng(0), 96)
    assert lesson.clips.shape == (96, 3, FRAMES, SIDE, SIDE)
    assert 0 <= lesson.clips.min() <= lesson.clips.max() <= 1
    people = lesson.kinds == KINDS.index("person")
    assert 0 < people.sum() < 40
    # a person alone leaves most of the picture black
    black = (lesson.clips == 0).all(1).float().mean((1, 2, 3))
    assert black[people].median() > 0.4
    assert set(lesson.tempos.tolist()) == {STILL, PLAYS, SHUFFLED}
    change = lesson.clips.diff(dim=2).abs().mean((1, 2, 3, 4))
    assert change[lesson.tempos == STILL].median() < 0.5 * change[lesson.tempos == PLAYS].median()


def test_the_same_chance_gives_the_same_lesson(pool: TexturePool) -> None:
    first, second = (draw_lesson(pool, np.random.default_rng(5), 4) for _ in range(2))
    assert torch.equal(first.clips, second.clips)
    assert torch.equal(first.tempos, second.tempos)


def test_training_changes_weights_and_repeats_itself(pool: TexturePool) -> None:
    training = TextureTraining(clips=24, steps=2, batch=4)
    first, second = train_texture(pool, training), train_texture(pool, training)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    one = train_texture(pool, TextureTraining(clips=24, steps=1, batch=4))
    assert not torch.equal(first.kinds.weight, one.kinds.weight)


def test_a_handful_of_clips_can_be_learned(pool: TexturePool) -> None:
    few = TexturePool(pool.frames[:6], pool.masks[:6], pool.kinds[:6], pool.human[:6], pool.still[:6])
    net = train_texture(few, TextureTraining(clips=6, steps=40, batch=16, rate=3e-3)).train()
    lesson = draw_lesson(few, np.random.default_rng(9), 48)
    with torch.no_grad():
        said = net(lesson.clips).kinds.argmax(1)
    assert (said == lesson.kinds).float().mean() > 0.6


def test_the_command_writes_a_network(folder: Path, pool: TexturePool, tmp_path: Path) -> None:
    output = tmp_path / "net.safetensors"
    words = ["-o", str(output), "--pool", str(folder), "--clips", "24", "--steps", "2", "--batch", "4"]
    assert main(words) == 0
    assert output.stat().st_size <= 2**20
    load_texture_net(output)


@pytest.mark.parametrize("words", [["--steps", "0"], ["--clips", "0"], ["--seed", "90"]])
def test_the_command_says_what_is_wrong(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-o", str(tmp_path / "net.safetensors"), *words]) == 2
    assert words[0][2:] in capsys.readouterr().err
