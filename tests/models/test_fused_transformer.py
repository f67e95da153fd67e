"""diffusers' transformers, as ControlNets have them, in place: kernels as in test_fused.py."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from tests.models.test_fused import DEVICE, needs_kernels, numbers, picture
from tests.models.test_fusing import filled
from tests.models.test_residual_stream import Operations
from xdyna.models import attention
from xdyna.models.fused_transformer import FusedTransformer
from xdyna.models.fusing import fuse


def transformer(**options: object) -> nn.ModuleList:
    made = Transformer2DModel(2, 12, 24, norm_num_groups=8, **{"cross_attention_dim": 10, **options})  # type: ignore[arg-type]
    return nn.ModuleList([filled(made)]).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]


@needs_kernels
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("text", [None, 10])
def test_a_transformer_of_diffusers_in_place(
    text: int | None, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = transformer(cross_attention_dim=text)
    made = copy.deepcopy(plain)
    fuse(made, "always")
    assert type(made[0]) is FusedTransformer
    assert list(made.state_dict()) == list(plain.state_dict())
    x = picture(4, 24, 5, 6, dtype=torch.float32)
    if pieces > 1:
        monkeypatch.setattr(attention, "MOST_HIDDEN", 8 * x.numel() // pieces)
    words = None if text is None else numbers(4, 7, text)
    before, seen = x.clone(), Operations(x.numel())
    with torch.no_grad():
        (wanted,) = plain[0](x, words, return_dict=False)
        with seen:
            (found,) = made[0](x, words, return_dict=False)
        torch.testing.assert_close(made[0](x, words).sample, found, atol=0, rtol=0)
        (told,) = made[0](x, words, attention_mask=torch.ones(4, 30, device=DEVICE), return_dict=False)
    assert torch.equal(x, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not any(name.startswith(("add.", "add_.", "div", "clone")) for name in seen.names)
    (with_gradients,) = made[0](x, words, return_dict=False)
    for value in (found, told, with_gradients):
        torch.testing.assert_close(value, wanted, atol=2e-5 * wanted.abs().max().item(), rtol=1e-4)


@needs_kernels
def test_a_controlnet_in_place() -> None:
    plain = ControlNetModel(
        block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=10, attention_head_dim=2,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        conditioning_embedding_out_channels=(8, 16),
    )  # fmt: skip
    plain = filled(plain).to(DEVICE, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    made = copy.deepcopy(plain)
    fuse(made, "always")
    assert sum(type(module) is FusedTransformer for module in made.modules()) == 2
    given = (numbers(3, 4, 8, 8), 500, numbers(3, 7, 10), numbers(3, 3, 16, 16))
    with torch.no_grad():
        wanted, found = (network(*given, return_dict=False) for network in (plain, made))
    for one, other in zip([*found[0], found[1]], [*wanted[0], wanted[1]], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.abs().max().item(), rtol=1e-4)


def test_transformers_of_another_form_stay() -> None:
    for options in (
        {"use_linear_projection": True},
        {"dropout": 0.1},
        {"activation_fn": "gelu"},
        {"only_cross_attention": True},
        {"norm_type": "ada_norm", "num_embeds_ada_norm": 4},
    ):
        made = transformer(**options)
        fuse(made)
        assert type(made[0]) is Transformer2DModel, options
