"""The reference moved as the person moves, and the denoiser that is shown it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models.networks import clip, fill, tiny_unet
from xdyna.errors import OptionError
from xdyna.models import warping
from xdyna.models.warping import moved_reference, places

SIZE, CELLS = (160, 240), (20, 30)
UNIT = 8


def person(*, score: float = 1.0) -> Tensor:
    """(18 3) somebody who stands in the middle of 160 x 240 pixels."""
    points = {
        0: (120, 40), 1: (120, 60), 2: (105, 62), 3: (98, 82), 4: (96, 100), 5: (135, 62), 6: (142, 82), 7: (144, 100),
        8: (112, 102), 9: (112, 125), 10: (112, 148), 11: (128, 102), 12: (128, 125), 13: (128, 148),
        14: (116, 36), 15: (124, 36), 16: (111, 38), 17: (129, 38),
    }  # fmt: skip
    return torch.tensor([[*map(float, points[n]), score] for n in range(18)])


def moved(points: Tensor, *, turn: float = 0.0, shift: complex = 0) -> Tensor:
    """Turned about the picture's middle, then shifted."""
    z = torch.complex(points[..., 0] - 120, points[..., 1] - 80) * complex(math.cos(turn), math.sin(turn))
    z = z + shift
    return torch.stack([z.real + 120, z.imag + 80, points[..., 2]], -1)


def test_nobody_leaves_the_reference_where_it_is() -> None:
    latents = clip(2, 4, *CELLS)
    there, gone = person()[None], person(score=0.0)[None]
    for own, body in ((gone, there), (there, gone), (there, there)):
        got = moved_reference(latents, own.expand(2, -1, -1), body[:, None].expand(2, 3, -1, -1), size=SIZE)
        torch.testing.assert_close(got, latents[:, :, None].expand(-1, -1, 3, -1, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("turn", "shift"), [(0.0, 24 - 16j), (0.4, 10 + 3j)])
def test_who_moves_as_a_whole_takes_everything_along(turn: float, shift: complex) -> None:
    body = moved(person(), turn=turn, shift=shift)
    found = places(person()[None], body[None, None], size=SIZE, cells=CELLS)[0, 0]
    for point in (1, 3, 7, 9, 13, 16):
        x, y = (body[point, :2] / UNIT).int().tolist()
        cell = torch.tensor([x + 0.5, y + 0.5]) * UNIT
        back = moved(
            torch.tensor([*cell.tolist(), 1.0]) - torch.tensor([shift.real, shift.imag, 0]), turn=-turn
        )
        wanted = complex(back[0] / UNIT, back[1] / UNIT)
        assert abs(complex(found[y, x]) - wanted) < 0.25, f"point {point}"
    assert abs(complex(found[1, 1]) - (1.5 + 1.5j)) < 0.05, "the background stays"


def test_an_arm_that_is_raised_brings_its_own_pixels() -> None:
    body = person()
    body[3, :2], body[4, :2] = torch.tensor([85.0, 62.0]), torch.tensor([67.0, 62.0])
    found = places(person()[None], body[None, None], size=SIZE, cells=CELLS)[0, 0]
    middle = found[62 // UNIT, 76 // UNIT] * UNIT
    own = torch.view_as_complex((person()[3:4, :2] + person()[4:5, :2]) / 2)[0]
    assert abs(complex(middle - own)) < UNIT, "the forearm's middle comes from the forearm's middle"
    still = found[125 // UNIT, 112 // UNIT] * UNIT
    assert abs(complex(still) - complex(116, 124)) < 2, "a leg stays"


def test_frames_and_clips_do_not_meet_and_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, own = clip(2, 4, *CELLS), torch.stack([person(), moved(person(), shift=5)])
    body = torch.stack(
        [torch.stack([moved(person(), turn=0.1 * n, shift=m) for n in range(5)]) for m in (3, 9j)]
    )
    whole = moved_reference(latents, own, body, size=SIZE)
    assert whole.shape == (2, 4, 5, *CELLS)
    monkeypatch.setattr(warping, "FRAMES_AT_ONCE", 2)
    torch.testing.assert_close(moved_reference(latents, own, body, size=SIZE), whole)
    alone = moved_reference(latents[1:], own[1:], body[1:, 3:4], size=SIZE)
    torch.testing.assert_close(alone[0, :, 0], whole[1, :, 3])


# -- the denoiser ---------------------------------------------------------------------------------------------------

SAMPLE, TIME, TOKENS = clip(2, 4, 4, 6, 8), 300, clip(2, 9, 12, seed=7)
MOVED = clip(2, 4, 3, 6, 8, seed=9)


def test_a_new_one_does_nothing_and_learns_at_once() -> None:
    with_it, without = tiny_unet(moved_reference=True), tiny_unet()
    assert with_it.moves_reference
    assert not without.moves_reference
    problems = with_it.load_state_dict(without.state_dict(), strict=False)
    assert problems.missing_keys == ["moved_in.weight"]
    assert torch.equal(with_it(SAMPLE, TIME, TOKENS, moved=MOVED), without(SAMPLE, TIME, TOKENS, moved=MOVED))
    with_it(SAMPLE, TIME, TOKENS, moved=MOVED)[:, :, 1:].square().mean().backward()
    assert with_it.moved_in is not None
    assert with_it.moved_in.weight.grad.abs().max() > 0


@torch.no_grad()
def test_each_driven_frame_sees_its_own_and_the_reference_sees_none() -> None:
    unet = tiny_unet(moved_reference=True)
    fill(unet)
    other = MOVED.clone()
    other[:, :, 1, 2, 5] += 1
    before, after = (unet._enter(SAMPLE, value, 1.0).unflatten(0, (2, 4)) for value in (MOVED, other))
    changed = (after - before).abs().amax(dim=(0, 2))
    assert changed[2, 1:4, 4:7].min() > 0
    changed[2, 1:4, 4:7] = 0
    assert changed.max() == 0
    plain = unet.conv_in(SAMPLE.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4))
    assert torch.equal(before[:, 0], plain[:, 0])
    still = SAMPLE[:, :, :1].expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(unet(SAMPLE, TIME, TOKENS), unet(SAMPLE, TIME, TOKENS, moved=still))


@torch.no_grad()
def test_the_references_scale_acts_on_it() -> None:
    unet = tiny_unet(moved_reference=True)
    fill(unet)
    off = unet(SAMPLE, TIME, TOKENS, moved=MOVED, reference_scale=0.0)
    assert torch.equal(off, unet(SAMPLE, TIME, TOKENS, moved=-MOVED, reference_scale=0.0))
    each = unet(SAMPLE, TIME, TOKENS, moved=MOVED, reference_scale=torch.tensor([0.0, 1.0]))
    whole = unet(SAMPLE, TIME, TOKENS, moved=MOVED)
    torch.testing.assert_close(each, torch.stack([off[0], whole[1]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("together", [False, True])
def test_guidance_halves_have_it_too(together: bool) -> None:
    unet = tiny_unet(moved_reference=True)
    fill(unet)
    halves = [clip(2, 9, 12, seed=seed) for seed in (7, 8)]
    got = unet.halves(SAMPLE, TIME, halves, together=together, moved=MOVED)
    wanted = torch.cat([unet(SAMPLE, TIME, tokens, moved=MOVED) for tokens in halves])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", ["reference-net", "ip-adapter"])
def test_it_needs_the_reference_as_a_frame(reference: str) -> None:
    with pytest.raises(OptionError, match="moved_reference"):
        tiny_unet(reference=reference, moved_reference=True)
