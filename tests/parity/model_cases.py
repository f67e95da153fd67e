"""Fixtures of layers and networks: i to vi, xi and xii."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from tests.parity.fixture import LAYER, NETWORK, Check, Fixture, UnknownFixture, compare, worst_of
from tests.parity.networks import OFFICIAL_IMAGE_TOKENS, build_controlnet, build_unet
from xdyna.models import Resampler
from xdyna.models.attention import AttentionOptions, Context
from xdyna.models.blocks import Resnet, make_transformer
from xdyna.models.dynamics_adapter import DynamicsAdapterAttention
from xdyna.models.ip_adapter import TokenAttention
from xdyna.models.motion import MotionModule


def check_dynamics_adapter(fixture: Fixture) -> Iterator[Check]:
    """i: x ((b f) n c) -> y."""
    meta, x, weights = fixture.meta, fixture.tensors["x"], fixture.layer_weights()
    layer = DynamicsAdapterAttention(x.shape[-1], meta["heads"])
    layer.load_state_dict(weights)
    context = Context(frames=meta["frames"], time=torch.empty(0))
    y = layer(x, context, size=(1, x.shape[1]))
    yield compare(f"{meta['frames']} frames", y, fixture.tensors["y"], LAYER)


def check_motion_module(fixture: Fixture) -> Iterator[Check]:
    """ii: x_<case> (b c 1+f h w) -> y_<case>, for several f."""
    meta = fixture.meta
    if not meta.get("cross_id", True):
        raise UnknownFixture("cross_id is false: the reference would take part in attention over time")
    layer = MotionModule(
        meta["in_channels"],
        meta["num_attention_heads"],
        max_length=meta["max_len"],
        groups=meta["norm_groups"],
    )
    layer.load_state_dict(fixture.layer_weights())
    for name in meta["cases"]:
        x = fixture.tensors[f"x_{name}"]
        frames = x.shape[2]
        y = layer(x.transpose(1, 2).flatten(0, 1), frames=frames)
        y = y.unflatten(0, (-1, frames)).transpose(1, 2)
        yield compare(f"{name}: {frames - 1} frames", y, fixture.tensors[f"y_{name}"], LAYER)


def check_token_attention(fixture: Fixture) -> Iterator[Check]:
    """iii: x (b n c), enc (b m d) -> y."""
    x, tokens = fixture.tensors["x"], fixture.tensors["enc"]
    said = re.search(r"(\d+) image tokens", fixture.meta["what"])
    images = int(said[1]) if said else OFFICIAL_IMAGE_TOKENS
    layer = TokenAttention(
        x.shape[-1], fixture.meta["heads"], source_channels=tokens.shape[-1], image_tokens=images
    )
    layer.load_state_dict(fixture.layer_weights())
    y = layer(x, Context(frames=1, time=torch.empty(0), tokens=tokens))
    yield compare(f"{tokens.shape[1] - images} + {images} tokens", y, fixture.tensors["y"], LAYER)


def check_unet(fixture: Fixture) -> Iterator[Check]:
    """iv: sample (b c 1+f h w), enc (b n d), down_*, mid -> out."""
    meta, tensors = fixture.meta, fixture.tensors
    unet = build_unet(meta["config"], fixture.network_weights(fixture.told_weights("unet")))
    down = [tensors[key] for key in sorted(tensors) if key.startswith("down_")]
    out = unet(
        tensors["sample"],
        meta["timestep"],
        tensors["enc"],
        down_residuals=down or None,
        mid_residual=tensors.get("mid"),
    )
    what = "with residuals" if down else "without residuals"
    yield compare(f"{what}, sample {tuple(tensors['sample'].shape)}", out, tensors["out"], NETWORK)


def check_controlnet(fixture: Fixture) -> Iterator[Check]:
    """v: sample (n c h w), enc (n 77 d), cond (n 3|6 8h 8w) -> down_*, mid."""
    meta, tensors = fixture.meta, fixture.tensors
    network = build_controlnet(meta["config"], fixture.network_weights(fixture.told_weights(fixture.name)))
    down, mid = network(
        tensors["sample"],
        meta["timestep"],
        encoder_hidden_states=tensors["enc"],
        controlnet_cond=tensors["cond"],
        return_dict=False,
    )
    wanted = [tensors[key] for key in sorted(tensors) if key.startswith("down_")] + [tensors["mid"]]
    got = [*down, mid]
    if len(got) != len(wanted):
        raise UnknownFixture(f"{len(wanted)} residuals wanted, the network gives {len(got)}")
    pairs = enumerate(zip(got, wanted, strict=True))
    checks = [compare(f"number {n}", mine, theirs, NETWORK) for n, (mine, theirs) in pairs]
    yield worst_of(f"{tensors['cond'].shape[1]} channels, {len(got)} residuals", checks)


def check_resampler(fixture: Fixture) -> Iterator[Check]:
    """vi: x (b n d) -> y (b q d)."""
    network = Resampler(**fixture.meta["kwargs"])
    network.load_state_dict(fixture.layer_weights())
    yield compare("tokens", network(fixture.tensors["x"]), fixture.tensors["y"], NETWORK)


def check_resnet(fixture: Fixture) -> Iterator[Check]:
    """xi: x (b c f h w), temb (b d) -> y."""
    x, time, weights = fixture.tensors["x"], fixture.tensors["temb"], fixture.layer_weights()
    layer = Resnet(
        x.shape[1],
        weights["conv1.weight"].shape[0],
        time_channels=time.shape[1],
        groups=fixture.meta["groups"],
        eps=fixture.meta["eps"],
    )
    layer.load_state_dict(weights)
    frames = x.shape[2]
    y = layer(x.transpose(1, 2).flatten(0, 1), time, frames=frames)
    y = y.unflatten(0, (-1, frames)).transpose(1, 2)
    yield compare(f"{frames} frames", y, fixture.tensors["y"], LAYER)


def check_transformer(fixture: Fixture) -> Iterator[Check]:
    """xii: x (b c f h w), enc (b n d) -> y."""
    x, tokens = fixture.tensors["x"], fixture.tensors["enc"]
    weights = fixture.layer_weights()
    options = AttentionOptions(
        heads=fixture.meta["heads"],
        cross_attention_dim=tokens.shape[-1],
        image_tokens=OFFICIAL_IMAGE_TOKENS if any("to_k_ip" in key for key in weights) else 0,
        reference="dynamics-adapter",
        position_gain=None,
        adapter_query_init="query",
    )
    layer = make_transformer(x.shape[1], options, groups=fixture.meta["groups"])
    layer.load_state_dict(weights)
    frames = x.shape[2]
    context = Context(frames=frames, time=torch.empty(0), tokens=tokens)
    y = layer(x.transpose(1, 2).flatten(0, 1), context)
    y = y.unflatten(0, (-1, frames)).transpose(1, 2)
    yield compare(f"{frames} frames", y, fixture.tensors["y"], LAYER)
