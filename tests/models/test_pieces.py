from __future__ import annotations

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch.nn.attention import sdpa_kernel

from xdyna.models import attention, motion
from xdyna.models.attention import BACKENDS, attend, fed_forward, quickest_attention
from xdyna.models.motion import MotionModule
from xdyna.models.norms import TokenNorm


def test_a_feed_forward_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    norm, layer = TokenNorm(8), FeedForward(8, activation_fn="geglu")
    tokens = torch.randn(7, 5, 8)
    rows: list[int] = []
    layer.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    with torch.no_grad():
        whole = fed_forward(tokens, norm, layer)
        monkeypatch.setattr(attention, "MOST_HIDDEN", 8 * tokens.numel() // 3)
        pieces = fed_forward(tokens, norm, layer)
    assert rows[0] == 7
    assert sum(rows[1:]) == 7
    assert len(rows) > 3
    torch.testing.assert_close(pieces, whole)
    learnt = fed_forward(tokens.requires_grad_(), norm, layer)
    assert rows[-1] == 7  # with gradients in one piece
    assert learnt.requires_grad


def test_a_motion_module_in_bands_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = MotionModule(8, 2, max_length=6, groups=2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2 * 5, 8, 7, 3)
    bands: list[int] = []
    block = module.temporal_transformer.transformer_blocks[0]
    block.register_forward_pre_hook(lambda _, given: bands.append(len(given[0])))
    with torch.no_grad():
        whole = module(x, frames=5)
        monkeypatch.setattr(motion, "AT_ONCE", 2 * 4 * 7 * 3 * 8 // 3)
        pieces = module(x, frames=5)
    assert bands == [2 * 7 * 3, 2 * 2 * 3, 2 * 2 * 3, 2 * 3 * 3]
    torch.testing.assert_close(pieces, whole)
    assert torch.equal(pieces.unflatten(0, (2, 5))[:, 0], x.unflatten(0, (2, 5))[:, 0]), "the reference"
    learnt = module(x, frames=5)
    assert bands[-1] == 2 * 7 * 3  # with gradients in one piece
    torch.testing.assert_close(learnt, whole)


def test_nothing_is_preferred_on_a_cpu_and_preferences_change_no_numbers() -> None:
    query, key = torch.randn(2, 1100, 16), torch.randn(2, 9, 16)
    plain = attend(query, key, key, heads=2)
    with torch.no_grad(), quickest_attention(query):
        assert torch.equal(attend(query, key, key, heads=2), plain)
    with sdpa_kernel(BACKENDS, set_priority=True):
        torch.testing.assert_close(attend(query, key, key, heads=2), plain)
