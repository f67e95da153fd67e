from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.networks import clip, fill
from xdyna.errors import InputError, OptionError
from xdyna.models import attention
from xdyna.models.attention import Context, attend, position_code
from xdyna.models.blocks import Resnet, Upsample
from xdyna.models.dynamics_adapter import DynamicsAdapterAttention
from xdyna.models.ip_adapter import TokenAttention
from xdyna.models.motion import MotionModule, TimeCode
from xdyna.models.norms import ClipGroupNorm

FRAMES = 4


def context(*, tokens: Tensor | None = None, reference_scale: float | Tensor = 1.0) -> Context:
    time = torch.empty(0)
    return Context(frames=FRAMES, time=time, tokens=tokens, reference_scale=reference_scale)


def changed_frames(before: Tensor, after: Tensor) -> list[int]:
    """Frames of a one-clip batch ((b f) ...) that differ."""
    return [n for n in range(len(before)) if not torch.equal(before[n], after[n])]


def poke(x: Tensor, frame: int) -> Tensor:
    x = x.clone()
    x[frame] += clip(*x[frame].shape, seed=9)
    return x


def test_attend_is_softmax_attention() -> None:
    q, k, v = clip(3, 5, 12), clip(3, 7, 12, seed=3), clip(3, 7, 12, seed=4)
    wanted = torch.empty(3, 5, 12)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4), dim=-1)
        wanted[..., part] = weights @ v[..., part]
    torch.testing.assert_close(attend(q, k, v, heads=3), wanted)


def test_a_huge_batch_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    q = clip(11, 5, 12)
    whole = attend(q, q, q, heads=3)
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.append(query.shape[0] * query.shape[1])
        return real(query, key, value)

    monkeypatch.setattr(attention, "LARGEST_GRID", 13)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    torch.testing.assert_close(attend(q, q, q, heads=3), whole)
    assert seen == [12, 12, 9]


def test_position_code_tells_every_place_apart() -> None:
    code = position_code(5, 7, 10, like=torch.empty(0))
    assert code.shape == (35, 10)
    assert code.abs().max() <= 1
    apart = torch.cdist(code, code) + 9 * torch.eye(35)
    assert apart.min() > 0.3
    assert torch.equal(code[0, :5], code[6, :5]), "the first half tells the row only"
    assert torch.equal(code[0, 5:], code[28, 5:]), "the second half tells the column only"


def test_adapter_sees_its_own_frame_and_the_reference_only() -> None:
    layer = DynamicsAdapterAttention(8, 2)
    fill(layer)
    x = clip(FRAMES, 6, 8)
    y = layer(x, context(), size=(2, 3))
    assert changed_frames(y, layer(poke(x, 2), context(), size=(2, 3))) == [2]
    assert changed_frames(y, layer(poke(x, 0), context(), size=(2, 3))) == [0, 1, 2, 3]


def test_adapter_reads_the_reference_of_its_own_clip() -> None:
    layer = DynamicsAdapterAttention(8, 2)
    fill(layer)
    first, second = clip(FRAMES, 6, 8), clip(FRAMES, 6, 8, seed=5)
    both = layer(torch.cat([first, second]), context(), size=(2, 3))
    torch.testing.assert_close(both[:FRAMES], layer(first, context(), size=(2, 3)))
    torch.testing.assert_close(both[FRAMES:], layer(second, context(), size=(2, 3)))


def test_reference_scale_multiplies_the_residual() -> None:
    layer = DynamicsAdapterAttention(8, 2)
    fill(layer)
    x = clip(2 * FRAMES, 6, 8)
    none, half, full = (layer(x, context(reference_scale=scale), size=(2, 3)) for scale in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + full) / 2)
    assert (full - none).abs().max() > 0.01
    each = layer(x, context(reference_scale=torch.tensor([0.0, 1.0])), size=(2, 3))
    torch.testing.assert_close(each, torch.cat([none[:FRAMES], full[FRAMES:]]))


@pytest.mark.parametrize(("init", "source"), [("query", "to_q"), ("key", "to_k")])
def test_adapter_starts_as_plain_attention(init: str, source: str) -> None:
    layer = DynamicsAdapterAttention(8, 2, query_init=init)
    x = clip(FRAMES, 6, 8)
    assert torch.equal(layer.to_q_ff.weight, getattr(layer, source).weight)
    assert layer.to_q_ff.weight is not getattr(layer, source).weight
    assert torch.equal(layer(x, context(), size=(2, 3)), layer(x, context(reference_scale=0.0), size=(2, 3)))


def test_position_gain_moves_queries_and_keys_but_not_values() -> None:
    layer = DynamicsAdapterAttention(8, 2, position_gain=2.5)
    fill(layer)
    x = clip(FRAMES, 1, 8).expand(-1, 6, -1)
    y = layer(x, context(), size=(2, 3))
    # values alike at all places: however attention is spread, it fetches the same
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    z = clip(FRAMES, 6, 8)
    swapped = layer(z.flip(1), context(), size=(2, 3)).flip(1)
    assert (layer(z, context(), size=(2, 3)) - swapped).abs().max() > 0.01, "places matter"
    plain = DynamicsAdapterAttention(8, 2)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "position_gain"})
    unplaced = plain(z.flip(1), context(), size=(2, 3)).flip(1)
    torch.testing.assert_close(plain(z, context(), size=(2, 3)), unplaced)
    layer(z, context(), size=(2, 3)).square().sum().backward()
    assert layer.position_gain is not None
    assert layer.position_gain.grad is not None
    assert layer.position_gain.grad.abs() > 0


def test_image_tokens_have_keys_of_their_own() -> None:
    layer = TokenAttention(8, 2, source_channels=6, image_tokens=3)
    fill(layer)
    x, tokens = clip(FRAMES, 5, 8), clip(1, 7, 6)

    def attended(text: Tensor, key: torch.nn.Linear, value: torch.nn.Linear) -> Tensor:
        source = text.expand(FRAMES, -1, -1)
        return attend(layer.to_q(x), key(source), value(source), heads=2)

    wanted = attended(tokens[:, :4], layer.to_k, layer.to_v)
    wanted = wanted + attended(tokens[:, 4:], layer.to_k_ip, layer.to_v_ip)
    torch.testing.assert_close(layer(x, context(tokens=tokens)), layer.to_out[0](wanted))
    image_only = layer.to_out[0](attended(tokens[:, 4:], layer.to_k_ip, layer.to_v_ip))
    torch.testing.assert_close(layer(x, context(tokens=tokens[:, 4:])), image_only)


@pytest.mark.parametrize("tokens", [None, torch.zeros(1, 2, 6)])
def test_missing_tokens_are_named(tokens: Tensor | None) -> None:
    layer = TokenAttention(8, 2, source_channels=6, image_tokens=3)
    with pytest.raises(InputError, match="3 image tokens"):
        layer(clip(FRAMES, 5, 8), context(tokens=tokens))


def test_motion_module_leaves_the_reference_out() -> None:
    layer = MotionModule(8, 2, groups=4)
    fill(layer)
    x = clip(FRAMES, 8, 3, 2)
    y = layer(x, frames=FRAMES)
    assert torch.equal(y[0], x[0])
    assert changed_frames(y, layer(poke(x, 0), frames=FRAMES)) == [0]
    assert changed_frames(y, layer(poke(x, 2), frames=FRAMES)) == [1, 2, 3]


def test_motion_module_mixes_time_not_places_nor_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = MotionModule(8, 2, groups=8)
    fill(layer)
    # the norm mixes the places of a frame
    monkeypatch.setattr(layer.temporal_transformer, "norm", torch.nn.Identity())
    x = clip(2 * FRAMES, 8, 3, 2)
    y = layer(x, frames=FRAMES)
    moved = x.clone()
    moved[2, :, 1, 1] += clip(8)
    different = (layer(moved, frames=FRAMES) != y).any(1)
    assert different.nonzero().tolist() == [[1, 1, 1], [2, 1, 1], [3, 1, 1]]


def test_motion_module_starts_as_nothing_and_keeps_its_input() -> None:
    layer = MotionModule(8, 2, groups=4)
    x = clip(FRAMES, 8, 3, 2)
    kept = x.clone()
    assert torch.equal(layer(x, frames=FRAMES), x)
    assert torch.equal(layer(x[:1], frames=1), x[:1]), "a reference alone passes through"
    fill(layer)
    layer(x, frames=FRAMES)
    assert torch.equal(x, kept), "the input is not written to"


def test_time_code_is_the_usual_sinusoid() -> None:
    code = TimeCode(6, 24).pe
    assert code.shape == (1, 24, 6)
    for place, channel in ((0, 0), (0, 1), (5, 2), (23, 5)):
        angle = place / 10_000 ** (2 * (channel // 2) / 6)
        wanted = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
        assert code[0, place, channel].item() == pytest.approx(wanted, abs=1e-5)


def test_resnet_norm_spans_the_clip_but_no_other() -> None:
    norm = ClipGroupNorm(2, 8)
    x = 3 + clip(2 * FRAMES, 8, 5, 3) * torch.arange(1, 2 * FRAMES + 1)[:, None, None, None]
    y = norm(x, frames=FRAMES).unflatten(0, (2, FRAMES)).unflatten(2, (2, 4))
    torch.testing.assert_close(y.mean((1, 3, 4, 5)), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((1, 3, 4, 5), correction=0), torch.ones(2, 2), atol=1e-4, rtol=0)
    assert y.var((3, 4, 5)).std() > 0.1, "single frames are not normalised"


def test_resnet_spreads_the_reference_by_its_norm_only() -> None:
    layer = Resnet(8, 12, time_channels=6, groups=4, eps=1e-5)
    x, time = clip(2 * FRAMES, 8, 5, 3), clip(2, 6)
    y = layer(x, time, frames=FRAMES)
    assert y.shape == (8, 12, 5, 3)
    assert changed_frames(y, layer(poke(x, 0), time, frames=FRAMES)) == [0, 1, 2, 3]
    later = time + torch.tensor([[0.0], [1.0]])
    assert changed_frames(y, layer(x, later, frames=FRAMES)) == [4, 5, 6, 7]


def test_upsample_reaches_odd_sizes() -> None:
    layer = Upsample(4)
    assert layer(clip(2, 4, 3, 2), size=(5, 4)).shape == (2, 4, 5, 4)


def test_heads_must_divide_channels() -> None:
    with pytest.raises(OptionError, match="8 channels cannot be split into 3 heads"):
        DynamicsAdapterAttention(8, 3)
    with pytest.raises(OptionError, match="adapter_query_init"):
        DynamicsAdapterAttention(8, 2, query_init="value")


def test_projections_of_a_motion_module_are_single_products(monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = MotionModule(16, 2, groups=4), []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda x, *rest: given.append(x.is_contiguous()) or linear(x, *rest))
    x = torch.randn(5, 16, 4, 6).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        module(x, frames=5)
    assert given
    assert all(given)


def test_a_motion_module_changes_a_map_only_where_it_may() -> None:
    module = MotionModule(16, 2, groups=4)
    nn.init.normal_(module.temporal_transformer.proj_out.weight)
    x = torch.randn(5, 16, 4, 6)
    before, wanted = x.clone(), module(x, frames=5)
    assert torch.equal(module(x, frames=5, own=True), wanted)
    with torch.no_grad():
        assert torch.equal(module(x, frames=5), wanted)
        assert torch.equal(x, before)
        assert module(x, frames=5, own=True) is x
    assert torch.equal(x, wanted)
