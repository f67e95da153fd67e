"""Resnets and the down, mid and up blocks of the denoiser, under Stable Diffusion's parameter names.

Pictures are `((b f) c h w)`: convolutions work on single frames. The one thing that looks across frames
here is the resnets' norm: its statistics span the whole clip, the reference included (spec.md 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xdyna.models.attention import AttentionOptions, Context, SpatialTransformer, TransformerBlock
from xdyna.models.fused_layers import add_maps, unbiased
from xdyna.models.ip_adapter import TokenAttention
from xdyna.models.motion import MotionModule
from xdyna.models.norms import ClipGroupNorm
from xdyna.models.references import reference_way


@dataclass(frozen=True)
class BlockOptions:
    """How one level is built; see `XDynaUNet` for the meaning.

    Attributes:
        time_channels: width of the time embedding.
        groups: groups of the spatial norms.
        eps: epsilon of the resnets' norms.
        attention: options of its attentions, or None for a level without.
        motion_heads: heads of its motion modules, or None for a level without.
        motion_max_length: most frames in a window.
        motion_groups: groups of the motion modules' norms.
        transformer: class of its spatial transformers.
        transformer_block: class of their one block.
    """

    time_channels: int
    groups: int
    eps: float
    attention: AttentionOptions | None
    motion_heads: int | None
    motion_max_length: int
    motion_groups: int
    transformer: type[SpatialTransformer] = SpatialTransformer
    transformer_block: type[TransformerBlock] = TransformerBlock


class Resnet(nn.Module):
    """Two convolutions with the time embedding between them, + input (fixture xi).

    Args:
        in_channels: width of the input.
        out_channels: width of the output; a 1x1 convolution takes the input there where they differ.
        time_channels: width of the time embedding.
        groups: groups of the norms.
        eps: epsilon of the norms.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, time_channels: int, groups: int, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = ClipGroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = ClipGroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor, *, frames: int) -> Tensor:
        """((b f) c h w) and the time embedding (b d), the same for all frames -> ((b f) out_channels h w)."""
        h, bias = unbiased(self.conv1, self.norm1(x, frames=frames, silu=True))
        shift = self.time_emb_proj(F.silu(time))
        shift = shift if bias is None else shift + bias
        made = unbiased(self.conv2, self.norm2(h, frames=frames, silu=True, before=shift))
        return add_maps(
            unbiased(self.conv_shortcut, x) if hasattr(self, "conv_shortcut") else (x, None), made
        )


class Downsample(nn.Module):
    """Halve the sides by a 3x3 convolution of stride 2; odd sides are rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n c h w) -> (n c ceil(h/2) ceil(w/2))."""
        return self.conv(x)


class Upsample(nn.Module):
    """Enlarge to a given size by nearest neighbours, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, *, size: tuple[int, int]) -> Tensor:
        """(n c h w) -> (n c *size)."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Block(nn.Module):
    """A level's layers: each a resnet, then a spatial transformer, then a motion module, if it has these.

    Args:
        widths: (in, out) channels of each resnet.
        options: how the level is built.
    """

    def __init__(self, widths: list[tuple[int, int]], options: BlockOptions) -> None:
        super().__init__()
        # diffusers' enable_gradient_checkpointing() sets both
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Tensor] = checkpoint
        self.resnets = nn.ModuleList(make_resnet(width, out, options) for width, out in widths)
        self.attentions, self.motion_modules = nn.ModuleList(), nn.ModuleList()
        for _, width in widths:
            if options.attention is not None:
                self.attentions.append(make_level_transformer(width, options))
            if options.motion_heads is not None:
                module = MotionModule(
                    width,
                    options.motion_heads,
                    max_length=options.motion_max_length,
                    groups=options.motion_groups,
                )
                self.motion_modules.append(module)

    def run_layer(self, index: int, stack: list[Tensor], context: Context) -> Tensor:
        """Layer `index` of the map on top of the stack, checkpointed where that is wanted and gradients are.

        The map is taken off the stack, so that its memory is free as soon as the layer's first part has read it:
        a caller's variable, or an argument of a module's call, would hold it to the layer's end.
        """
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(self._layer, index, stack.pop(), context)
        return self._layer(index, stack.pop(), context)

    def _layer(self, index: int, x: Tensor, context: Context) -> Tensor:
        x = self.resnets[index](x, context.time, frames=context.frames)
        if self.attentions:
            x = self.attentions[index](x, context)
        return self._moved(index, x, context)

    def _moved(self, index: int, x: Tensor, context: Context) -> Tensor:
        if self.motion_modules and context.temporal:
            x = self.motion_modules[index](
                x,
                frames=context.frames,
                reference_frames=context.reference_frames,
                own=True,
            )
        return x


class DownBlock(Block):
    """Layers, then a downsampler unless it is the last level."""

    def __init__(
        self, in_channels: int, out_channels: int, *, layers: int, downsample: bool, options: BlockOptions
    ) -> None:
        super().__init__(
            [(in_channels if i == 0 else out_channels, out_channels) for i in range(layers)], options
        )
        self.downsamplers = nn.ModuleList([Downsample(out_channels)] if downsample else [])

    def forward(
        self, x: Tensor, context: Context, begun: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """((b f) c h w) -> what goes on down, and the skips: each layer's output and the downsampler's.

        `begun` is what `begin` gave for the same map, which is then not computed again.
        """
        x, skips = self.layers(x, context, begun)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x, skips

    def layers(
        self, x: Tensor, context: Context, begun: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The same without the downsampler."""
        skips = []
        for index in range(len(self.resnets)):
            if index == 0 and begun is not None:
                x = self._resume(begun, context)
            else:
                x = self.run_layer(index, [x], context)
            skips.append(x)
        return x, skips

    def begin(self, x: Tensor, context: Context) -> list[Tensor]:
        """What the first layer, one with attention, does before it reads tokens.

        Returns:
            its resnet's map ((b f) c h w), and the tokens after self-attention ((b f) n c).
        """
        x = self.resnets[0](x, context.time, frames=context.frames)
        return [x, cast(SpatialTransformer, self.attentions[0]).begin(x, context)]

    def _resume(self, begun: list[Tensor], context: Context) -> Tensor:
        """The rest of the first layer. Nothing of `begun` is changed but the list, which is emptied."""
        tokens, x = begun.pop(), begun.pop()
        x = cast(SpatialTransformer, self.attentions[0]).finish(x, tokens, context)
        del tokens  # before the motion module
        return self._moved(0, x, context)


class MidBlock(nn.Module):
    """Resnet, spatial transformer, resnet; no motion module."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(make_resnet(channels, channels, options) for _ in range(2))
        self.attentions = nn.ModuleList([make_level_transformer(channels, options)])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """((b f) c h w) -> the same shape."""
        x = self.resnets[0](x, context.time, frames=context.frames)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, context.time, frames=context.frames)


class UpBlock(Block):
    """Layers that take one skip each, then an upsampler unless it is the last level.

    Args:
        in_channels: width of what comes up from below.
        out_channels: width of the level.
        skip_channels: widths of the skips in the order in which the layers take them.
        upsample: whether a level above follows.
        options: how the level is built.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        skip_channels: list[int],
        upsample: bool,
        options: BlockOptions,
    ) -> None:
        before = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        widths = [(width + skip, out_channels) for width, skip in zip(before, skip_channels, strict=True)]
        super().__init__(widths, options)
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if upsample else [])

    def forward(self, stack: list[Tensor], context: Context) -> Tensor:
        """((b f) c h w) at the size of the next level's skips, which need not be twice as large as this one's.

        On top of the stack lies what comes from the level below, then the level's skips: all are taken off it.
        """
        return self.upsample(self.layers(stack, context), stack)

    def layers(self, stack: list[Tensor], context: Context) -> Tensor:
        """The same without the upsampler."""
        for index in range(len(self.resnets)):
            stack.append(torch.cat([stack.pop(), stack.pop()], dim=1))
            stack.append(self.run_layer(index, stack, context))
        return stack.pop()

    def upsample(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """What `layers` gave, at the size of the next level's skips."""
        for upsampler in self.upsamplers:
            x = upsampler(x, size=(skips[-1].shape[2], skips[-1].shape[3]))
        return x


def make_resnet(in_channels: int, out_channels: int, options: BlockOptions) -> Resnet:
    """A resnet of a level."""
    return Resnet(
        in_channels,
        out_channels,
        time_channels=options.time_channels,
        groups=options.groups,
        eps=options.eps,
    )


def make_level_transformer(channels: int, options: BlockOptions) -> SpatialTransformer:
    """A spatial transformer of a level that has them."""
    assert options.attention is not None
    return make_transformer(
        channels,
        options.attention,
        groups=options.groups,
        transformer=options.transformer,
        transformer_block=options.transformer_block,
    )


def make_transformer(
    channels: int,
    options: AttentionOptions,
    *,
    groups: int,
    transformer: type[SpatialTransformer] = SpatialTransformer,
    transformer_block: type[TransformerBlock] = TransformerBlock,
) -> SpatialTransformer:
    """A spatial transformer with the self-attention that `options.reference` asks for.

    Raises:
        OptionError: no such reference, or heads that do not divide `channels`.
    """
    way = reference_way(options.reference)
    attn1 = way.attention(channels, options)
    attn2 = None
    if options.cross_attention_dim is not None:
        attn2 = TokenAttention(
            channels,
            options.heads,
            source_channels=options.cross_attention_dim,
            image_tokens=options.image_tokens,
            text_tokens=options.text_tokens,
            is_reference=way.tokens,
        )
    return transformer(channels, block=transformer_block(channels, attn1=attn1, attn2=attn2), groups=groups)
