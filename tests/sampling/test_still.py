from __future__ import annotations

import torch

from xdyna.sampling import hold_still
from xdyna.sampling.still import ALIVE, STILL

FRAMES, CELLS, SIZE = 8, (24, 32), (192, 256)
NOBODY = torch.zeros(FRAMES, 18, 3)


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
        result = hold_still(clip, picture, NOBODY, None, size=SIZE)
        expected = picture.unsqueeze(2).expand_as(clip) if held else clip
        assert torch.allclose(result, expected, atol=1e-6)
    picture, clip = shimmering((STILL + ALIVE) / 2)
    between = (hold_still(clip, picture, NOBODY, None, size=SIZE) - picture.unsqueeze(2)).square().mean()
    assert 0.1 < between / (clip - picture.unsqueeze(2)).square().mean() < 0.6


def test_the_person_is_left_alone_and_what_they_hid_is_the_clips_mean() -> None:
    picture, clip = shimmering(STILL / 4)
    # what the person hid in the picture looks quite otherwise
    own = person(80.0)
    hidden = (slice(8, 14), slice(9, 12))
    picture[:, :, *hidden] += 5.0
    body = person(180.0).expand(FRAMES, -1, -1)
    result = hold_still(clip, picture, body, own, size=SIZE)
    torso, head = (slice(9, 13), slice(21, 24)), (slice(4, 6), slice(22, 23))
    for part in (torso, head):
        assert torch.equal(result[..., *part], clip[..., *part])
    mean = clip[..., *hidden].mean(2, keepdim=True).expand(-1, -1, FRAMES, -1, -1)
    assert torch.allclose(result[..., *hidden], mean, atol=1e-5)
    assert torch.allclose(result[..., :5], picture[..., None, :, :5].expand_as(result[..., :5]), atol=1e-6)
    unknown = hold_still(clip, picture, body, None, size=SIZE)
    assert torch.equal(unknown[..., *hidden], clip[..., *hidden])


def test_what_passes_by_is_not_held_while_it_does() -> None:
    picture, clip = shimmering(0.0)
    clip[:, :, 3, 10:16, 10:16] += 0.75  # as a mean over the eight frames, still
    result = hold_still(clip, picture, NOBODY, None, size=SIZE)
    assert torch.equal(result[:, :, 2:5, 11:15, 11:15], clip[:, :, 2:5, 11:15, 11:15])


def test_dtype_and_a_person_everywhere() -> None:
    picture, clip = shimmering(STILL / 4)
    near = person(128.0)
    near[:, :2] = (near[:, :2] - torch.tensor([128.0, 60.0])) * 12 + torch.tensor([128.0, 60.0])
    result = hold_still(clip.half(), picture.half(), near.expand(FRAMES, -1, -1), near, size=SIZE)
    assert result.dtype == torch.float16
    assert torch.equal(result[..., 10:14, 12:20], clip.half()[..., 10:14, 12:20])
