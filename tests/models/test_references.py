"""The three ways for the reference to enter: attention, ReferenceNet, image tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.models.networks import clip, fill, tiny_unet
from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.models import REFERENCES, ReferenceEncoder, ReferenceNet, XDynaUNet
from xdyna.models.attention import Context, SelfAttention
from xdyna.models.ip_adapter import TokenAttention
from xdyna.models.motion import MotionModule
from xdyna.models.reference_attention import ReferenceAttention

FRAMES, SIZE = 3, (2, 3)
TOKENS = clip(2, 9, 12, seed=7)
IMAGE_TOKENS = clip(2, 4, 12, seed=7)


def context(features: list[Tensor] | None = None, *, scale: float | Tensor = 1.0) -> Context:
    return Context(
        frames=FRAMES,
        time=torch.empty(0),
        reference_scale=scale,
        reference_frames=0,
        reference_features=features,
    )


def ip_unet(**changes: Any) -> XDynaUNet:
    return tiny_unet(reference="ip-adapter", text_tokens=False, **changes)


# ------------------------------------------------------------------------------------------ attention


def test_reference_attention_is_one_softmax_over_both() -> None:
    layer = ReferenceAttention(8, 2)
    fill(layer)
    x, seen = clip(2 * FRAMES, 6, 8), clip(2, 6, 8, seed=5)
    got = layer(x, context([seen]), size=SIZE)
    for frame in range(2 * FRAMES):
        both = torch.cat([x[frame], seen[frame // FRAMES]])
        query, key, value = layer.to_q(x[frame]), layer.to_k(both), layer.to_v(both)
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            weights = torch.softmax(query[:, part] @ key[:, part].T / 2, dim=-1)
            heads.append(weights @ value[:, part])
        torch.testing.assert_close(got[frame], layer.to_out[0](torch.cat(heads, -1)), atol=1e-5, rtol=1e-5)


def test_its_scale_is_the_reference_s_share_of_the_softmax() -> None:
    layer = ReferenceAttention(8, 2)
    fill(layer)
    x, seen = clip(2 * FRAMES, 6, 8), clip(2, 6, 8, seed=5)
    plain = SelfAttention(8, 2)
    plain.load_state_dict(layer.state_dict())
    alone = plain(x, context(), size=SIZE)

    def at(scale: float | Tensor) -> Tensor:
        return layer(x, context([seen], scale=scale), size=SIZE)

    assert torch.equal(at(0.0), alone)
    assert (at(1.0) - alone).abs().max() > 0.01
    torch.testing.assert_close(at(torch.tensor([0.0, 1.0])), torch.cat([alone[:FRAMES], at(1.0)[FRAMES:]]))
    # twice the weight is the same as every token of the reference standing there twice
    doubled = layer(x, context([torch.cat([seen, seen], 1)]), size=SIZE)
    torch.testing.assert_close(at(2.0), doubled, atol=1e-5, rtol=1e-5)


def test_it_reads_the_features_of_its_own_place() -> None:
    layer = ReferenceAttention(8, 2)
    fill(layer)
    x, first, second = clip(FRAMES, 6, 8), clip(1, 6, 8, seed=5), clip(1, 6, 8, seed=6)
    layer.place = 1
    assert torch.equal(
        layer(x, context([first, second]), size=SIZE), layer(x, context([x[:1], second]), size=SIZE)
    )
    assert not torch.equal(
        layer(x, context([first, second]), size=SIZE), layer(x, context([second, first]), size=SIZE)
    )


def test_the_reference_s_keys_get_the_same_code_of_place() -> None:
    layer = ReferenceAttention(8, 2, position_gain=2.5)
    fill(layer)
    x, seen = clip(FRAMES, 6, 8), clip(1, 6, 8, seed=5)
    got = layer(x, context([seen]), size=SIZE)
    # moved together with their places they would be the same set; moved against them they are not
    assert (got - layer(x, context([seen.flip(1)]), size=SIZE)).abs().max() > 1e-3
    got.square().sum().backward()
    assert layer.position_gain is not None
    assert layer.position_gain.grad is not None
    layer.position_gain.data.zero_()
    torch.testing.assert_close(
        layer(x, context([seen]), size=SIZE), layer(x, context([seen.flip(1)]), size=SIZE)
    )


def test_image_tokens_that_are_the_reference_follow_its_scale() -> None:
    layer = TokenAttention(8, 2, source_channels=12, image_tokens=4, text_tokens=False, is_reference=True)
    assert not layer.to_v_ip.weight.any(), "a new one is the network without"
    assert not hasattr(layer, "to_k")
    fill(layer)
    x, tokens = clip(2 * FRAMES, 6, 8), IMAGE_TOKENS

    def at(scale: float | Tensor) -> Tensor:
        return layer(x, Context(FRAMES, torch.empty(0), tokens=tokens, reference_scale=scale))

    none, full = at(0.0), at(1.0)
    torch.testing.assert_close(none, layer.to_out[0].bias.expand_as(none))
    torch.testing.assert_close(at(0.5), (none + full) / 2)
    torch.testing.assert_close(at(torch.tensor([0.0, 1.0])), torch.cat([none[:FRAMES], full[FRAMES:]]))
    beside = TokenAttention(8, 2, source_channels=12, image_tokens=4)
    fill(beside)
    same = [beside(x, Context(FRAMES, torch.empty(0), tokens=TOKENS, reference_scale=s)) for s in (0.0, 1.0)]
    assert torch.equal(*same), "beside another reference they do not, as published"
    with pytest.raises(InputError, match="no text and 4 image tokens, got 9 in all"):
        layer(x, Context(FRAMES, torch.empty(0), tokens=TOKENS))


def test_without_a_reference_frame_motion_mixes_all_frames() -> None:
    layer = MotionModule(8, 2, groups=4)
    fill(layer)
    x = clip(FRAMES, 8, 3, 2)
    moved = x.clone()
    moved[0] += clip(8, 3, 2, seed=9)
    y, z = (layer(value, frames=FRAMES, reference_frames=0) for value in (x, moved))
    assert all(not torch.equal(y[n], z[n]) for n in range(FRAMES))
    behind = torch.cat([clip(1, 8, 3, 2, seed=4), x])
    torch.testing.assert_close(layer(behind, frames=FRAMES + 1)[1:], y), "the same frames behind a reference"


# ------------------------------------------------------------------------------------------ denoiser


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_clip_s_layout_is_a_property_of_the_network(reference: str) -> None:
    unet = tiny_unet(reference=reference)
    frames = {"dynamics-adapter": 1, "reference-net": 0, "ip-adapter": 0}[reference]
    assert unet.reference_frames == frames
    latents, still = clip(2, 4, 3, 8, 6), clip(2, 4, 8, 6, seed=5)
    whole = unet.with_reference(latents, still)
    assert whole.shape[2] == 3 + frames
    assert torch.equal(whole[:, :, frames:], latents)
    assert torch.equal(whole[:, :, 0], still) is (frames == 1)
    longest = unet.config.motion_max_length
    features = ReferenceNet.for_denoiser(unet)(still, TOKENS[:, :5]) if unet.reads_features else None
    with torch.no_grad(), pytest.raises(OptionError, match=f"{longest + 1} frames at once"):
        unet(clip(2, 4, longest + 1 + frames, 2, 2), 5, TOKENS, reference_features=features)


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_reference_acts_and_scale_zero_leaves_it_out(reference: str) -> None:
    unet = tiny_unet(reference=reference)
    fill(unet)
    net = ReferenceNet.for_denoiser(unet) if unet.reads_features else None

    def out(seed: int, scale: float | Tensor) -> Tensor:
        still = clip(2, 4, 8, 6, seed=seed)
        features = None if net is None else net(still, TOKENS[:, :5])
        tokens = TOKENS
        if unet.reads_tokens:
            tokens = torch.cat([TOKENS[:, :5], clip(2, 4, 12, seed=seed)], 1)
        sample = unet.with_reference(clip(2, 4, 3, 8, 6), still)
        got = unet(sample, 10, tokens, reference_features=features, reference_scale=scale)
        return got[:, :, unet.reference_frames :]

    with torch.no_grad():
        one, other = out(3, 1.0), out(4, 1.0)
        assert (one - other).abs().max() > 1e-3
        without = out(3, 0.0)
        assert (one - without).abs().max() > 1e-3
        if unet.reference_frames == 0:  # the clip-wide norms see a reference frame at any scale
            assert torch.equal(without, out(4, 0.0))
        each = out(3, torch.tensor([1.0, 0.0]))
        torch.testing.assert_close(each, torch.stack([one[0], without[1]]), atol=1e-5, rtol=1e-5)


def test_new_weights_give_what_the_network_without_a_reference_gives() -> None:
    """Step 0: nothing of the reference for the adapter and the tokens. A ReferenceNet acts from the start."""
    for reference in ("dynamics-adapter", "ip-adapter"):
        unet = tiny_unet(reference=reference)
        sample = clip(2, 4, 4, 8, 6)
        with torch.no_grad():
            assert torch.equal(unet(sample, 10, TOKENS), unet(sample, 10, TOKENS, reference_scale=0.0))
    unet = tiny_unet(reference="reference-net")
    features = ReferenceNet.for_denoiser(unet)(clip(2, 4, 8, 6, seed=5), TOKENS[:, :5])
    with torch.no_grad():
        without = unet(sample, 10, TOKENS, reference_scale=0.0)
        assert torch.equal(
            without, unet(sample, 10, TOKENS, reference_features=features, reference_scale=0.0)
        )
        assert (unet(sample, 10, TOKENS, reference_features=features) - without).abs().max() > 1e-3


def test_the_ways_share_stable_diffusion_s_parameters() -> None:
    names = {reference: set(tiny_unet(reference=reference).state_dict()) for reference in REFERENCES}
    own = {
        name
        for name in names["dynamics-adapter"]
        if any(part in name for part in REFERENCES["dynamics-adapter"].learns)
    }
    assert len(own) == 3 * 4
    assert names["reference-net"] == names["ip-adapter"] == names["dynamics-adapter"] - own


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"reference": "ip-adapter", "image_tokens": 0}, "reference from them"),
        ({"reference": "ip-adapter", "cross_attention_dim": None}, "reference from them"),
        ({"text_tokens": False, "image_tokens": 0}, "no text"),
    ],
)
def test_tokens_that_are_needed(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        tiny_unet(**changes)


def test_features_of_another_network_are_named() -> None:
    unet, sample = tiny_unet(reference="reference-net"), clip(2, 4, 4, 8, 6)
    with pytest.raises(WeightsError, match="it gives 0 features, 4 self-attentions"):
        unet(sample, 10, TOKENS)
    with pytest.raises(WeightsError, match="it gives 2 features, 4 self-attentions"):
        unet(sample, 10, TOKENS, reference_features=[sample, sample])
    with pytest.raises(WeightsError, match="it gives 4 features, 0 self-attentions"):
        tiny_unet()(sample, 10, TOKENS, reference_features=[sample] * 4)


# ------------------------------------------------------------------------------------------ ReferenceNet


def test_features_are_what_stable_diffusion_s_self_attentions_read() -> None:
    """diffusers' own U with the same weights, listened to from outside, at timestep 0."""
    shape: dict[str, Any] = {"block_out_channels": (8, 16, 24), "layers_per_block": 2, "norm_num_groups": 4}
    theirs = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4, 3),
        cross_attention_dim=12,
        **shape,
    )
    fill(theirs)
    ours = ReferenceNet(
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=(2, 4, 3),
        cross_attention_dim=12,
        **shape,
    )
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    heard: list[Tensor] = []
    for name, module in theirs.named_modules():
        if name.endswith(".attn1"):
            module.register_forward_pre_hook(
                lambda _, args, kwargs: heard.append(args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            )
    reference, text = clip(2, 4, 9, 7), TOKENS[:, :5]
    with torch.no_grad():
        theirs(reference, 0, text)
        got = ours(reference, text)
    assert len(got) == len(heard) == 2 * 2 + 1 + 2 * 3
    for mine, wanted in zip(got, heard, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "levels",
    [
        (("CrossAttnDownBlock3D", "DownBlock3D"), ("UpBlock3D", "CrossAttnUpBlock3D")),
        (("DownBlock3D", "CrossAttnDownBlock3D"), ("CrossAttnUpBlock3D", "UpBlock3D")),
        (("DownBlock3D", "DownBlock3D"), ("UpBlock3D", "UpBlock3D")),
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_every_parameter_of_both_networks_learns(levels: tuple, text: bool) -> None:
    unet = tiny_unet(
        reference="reference-net",
        down_block_types=levels[0],
        up_block_types=levels[1],
        cross_attention_dim=12 if text else None,
        position_gain=2.5,
    )
    fill(unet)
    net = ReferenceNet.for_denoiser(unet)
    tokens = TOKENS if text else None
    features = net(clip(2, 4, 8, 6), None if tokens is None else tokens[:, :5])
    unet(clip(2, 4, 3, 8, 6), 10, tokens, reference_features=features).square().mean().backward()
    for network in (unet, net):
        without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert without == []
    assert sum(float(p.grad.abs().sum()) > 0 for p in net.parameters() if p.grad is not None) > 10


def test_a_reference_net_starts_as_the_denoiser() -> None:
    unet = tiny_unet(reference="reference-net", position_gain=2.5)
    fill(unet)
    net = ReferenceNet.for_denoiser(unet.to(torch.bfloat16))
    weights = unet.state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])
        assert value.data_ptr() != weights[name].data_ptr()
    assert net(clip(1, 4, 8, 6).bfloat16(), TOKENS[:1, :5].bfloat16())[0].dtype == torch.bfloat16


def test_checkpointing_a_reference_net_changes_nothing_but_memory() -> None:
    net = ReferenceNet.for_denoiser(tiny_unet(reference="reference-net"))
    fill(net)

    def gradients() -> dict[str, Tensor]:
        net.zero_grad()
        sum(part.square().mean() for part in net(clip(1, 4, 8, 6), TOKENS[:1, :5])).backward()
        return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    plain, calls = gradients(), []

    def counted(function: Any, *args: Any) -> Any:
        calls.append(function)
        return checkpoint(function, *args, use_reentrant=False)

    net.enable_gradient_checkpointing(counted)
    torch.testing.assert_close(gradients(), plain, atol=1e-6, rtol=1e-5)
    assert len(calls) == 2 * 1 + 2 * 2


# ------------------------------------------------------------------------------------------ ReferenceEncoder


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1)])
def test_reference_encoder_gives_tokens_for_any_size(size: tuple[int, int]) -> None:
    encoder = ReferenceEncoder(in_channels=5, dim=8, depth=1, heads=2, num_queries=4, output_dim=12)
    fill(encoder)
    tokens = encoder(clip(2, 5, *size))
    assert tokens.shape == (2, 4, 12)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    if size != (1, 1):
        mirrored = encoder(clip(2, 5, *size).flip(3))
        assert (mirrored - tokens).abs().max() > 1e-3, "places matter"


def test_encoder_and_denoiser_learn_together() -> None:
    unet = ip_unet()
    fill(unet)
    encoder = ReferenceEncoder(dim=8, depth=1, heads=2, num_queries=4, output_dim=12)
    unet(clip(2, 4, 3, 8, 6), 10, encoder(clip(2, 4, 8, 6, seed=5))).square().mean().backward()
    for network in (unet, encoder):
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
