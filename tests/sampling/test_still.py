from __future__ import annotations

import numpy as np
import torch

from xdyna.sampling import find_still
from xdyna.sampling.still import ALIVE, STILL

FRAMES, CELLS, SIZE = 8, (24, 32), (192, 256)
NOBODY = torch.zeros(FRAMES, 18, 3)


def hold_still(
    clip: torch.Tensor, picture: torch.Tensor, body: torch.Tensor, own: torch.Tensor | None
) -> torch.Tensor:
    return find_still(clip, picture, body, own, size=SIZE).hold(clip)


def person(across: float) -> torch.Tensor:
    """(18 3) points of somebody of 100 pixels who stands there."""
    points = torch.zeros(18, 3)
    places = {
        0: (0, 40), 1: (0, 65), 2: (-16, 65), 3: (-18, 85), 4: (-18, 105), 5: (16, 65), 6: (18, 85), 7: (18, 105),
        8: (-9, 110), 9: (-9, 130), 10: (-9, 150), 11: (9, 110), 12: (9, 130), 13: (9, 150),
        14: (-4, 36), 15: (4, 36), 16: (-8, 38), 17: (8, 38),
    }  # fmt: skip
    for point, (x, y) in places.items():
        points[point] = torch.tensor([across + x, y, 1.0])
    return points


def shimmering(amount: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture's latents (1 4 h w), and a clip (1 4 f h w) that is so far from them, mean square."""
    torch.manual_seed(0)
    picture = torch.randn(1, 4, *CELLS)
    return picture, picture.unsqueeze(2) + amount**0.5 * torch.randn(1, 4, FRAMES, *CELLS)


def test_what_shimmers_becomes_the_picture_and_what_lives_is_left_alone() -> None:
    for amount, held in ((STILL / 4, True), (2 * ALIVE, False)):
        picture, clip = shimmering(amount)
        result = hold_still(clip, picture, NOBODY, None)
        expected = picture.unsqueeze(2).expand_as(clip) if held else clip
        assert torch.allclose(result, expected, atol=1e-6)
    picture, clip = shimmering((STILL + ALIVE) / 2)
    between = (hold_still(clip, picture, NOBODY, None) - picture.unsqueeze(2)).square().mean()
    assert 0.1 < between / (clip - picture.unsqueeze(2)).square().mean() < 0.6


def test_the_person_is_left_alone_and_what_they_hid_is_the_clips_mean() -> None:
    picture, clip = shimmering(STILL / 4)
    # what the person hid in the picture looks quite otherwise
    own = person(80.0)
    hidden = (slice(8, 14), slice(9, 12))
    picture[:, :, *hidden] += 5.0
    body = person(180.0).expand(FRAMES, -1, -1)
    result = hold_still(clip, picture, body, own)
    head = (slice(4, 6), slice(22, 23))
    assert torch.equal(result[..., *head], clip[..., *head])
    mean = clip[..., *hidden].mean(2, keepdim=True).expand(-1, -1, FRAMES, -1, -1)
    assert torch.allclose(result[..., *hidden], mean, atol=1e-5)
    assert torch.allclose(result[..., :5], picture[..., None, :, :5].expand_as(result[..., :5]), atol=1e-6)
    unknown = hold_still(clip, picture, body, None)
    assert torch.equal(unknown[..., *hidden], clip[..., *hidden])


def test_what_passes_by_is_not_held_while_it_does() -> None:
    picture, clip = shimmering(0.0)
    clip[:, :, 3, 10:16, 10:16] += 0.75  # as a mean over the eight frames, still
    result = hold_still(clip, picture, NOBODY, None)
    assert torch.equal(result[:, :, 2:5, 11:15, 11:15], clip[:, :, 2:5, 11:15, 11:15])


def test_dtype_and_a_head_everywhere() -> None:
    picture, clip = shimmering(STILL / 4)
    near = person(128.0)
    near[:, :2] = (near[:, :2] - torch.tensor([128.0, 40.0])) * 12 + torch.tensor([128.0, 96.0])
    result = hold_still(clip.half(), picture.half(), near.expand(FRAMES, -1, -1), near)
    assert result.dtype == torch.float16
    assert torch.equal(result[..., 10:14, 12:20], clip.half()[..., 10:14, 12:20])


def test_pixels_take_the_picture_and_what_was_hidden_the_decoded_plate() -> None:
    picture, clip = shimmering(STILL / 4)
    clip[:, :, :, :, 16:] += 2.0
    own = person(80.0)
    still = find_still(clip, picture, NOBODY, own, size=SIZE)
    shown, decoded = (np.full((*SIZE, 3), value, np.uint8) for value in (200, 100))
    background = still.background(shown, decoded)
    assert (background[:40, :40] == 200).all()
    assert (background[80:100, 76:84] == 100).all()
    assert 100 < background[:, 40:56].mean() < 200
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    mixed = still.put_into(frame, background, 2)
    assert mixed.dtype == np.uint8
    assert (mixed[:40, :40] == 200).all()
    assert (mixed[:, 136:] == frame[:, 136:]).all(), "what lives is as it was decoded"
