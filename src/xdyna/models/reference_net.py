"""The ReferenceNet: a second U that looks at the reference once (Animate-Anyone, Hu et al. 2024; evaluation.md 4.2).

It has the shape of the denoiser without motion modules, runs on the clean reference latent at timestep 0, and returns
what each of its self-attentions read; the denoiser's `ReferenceAttention` sees these beside its own frame's tokens. The
result is a value: it is computed once for a clip, and handed to every call of the denoiser.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from xdyna.models.attention import (
    AttentionOptions,
    Context,
    SpatialTransformer,
    TransformerBlock,
    map_to_tokens,
)
from xdyna.models.blocks import Block, BlockOptions, DownBlock, UpBlock
from xdyna.models.levels import check_groups, check_levels, make_levels
from xdyna.models.unet import XDynaUNet


class TellingBlock(TransformerBlock):
    """A transformer block that also returns what its self-attention read."""

    def forward(  # type: ignore[override]
        self, tokens: Tensor, context: Context, *, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(b n c) -> the block's output and the normalised tokens, both (b n c)."""
        seen = self.norm1(tokens)
        return self.after(tokens + self.attn1(seen, context, size=size), context), seen


class TellingTransformer(SpatialTransformer):
    """A spatial transformer that also returns what its self-attention read."""

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(b c h w) -> the same shape, and (b h*w c)."""
        size = (x.shape[2], x.shape[3])
        tokens, seen = self.transformer_blocks[0](
            map_to_tokens(self.proj_in(self.norm(x))), context, size=size
        )
        return x + self.proj_out(tokens.unflatten(1, size).permute(0, 3, 1, 2)), seen


class LastTransformer(nn.Module):
    """What a spatial transformer computes up to its self-attention, under the same names, and nothing after."""

    def __init__(self, whole: SpatialTransformer) -> None:
        super().__init__()
        self.norm, self.proj_in = whole.norm, whole.proj_in
        block = cast(TransformerBlock, whole.transformer_blocks[0])
        self.transformer_blocks = nn.ModuleList([nn.ModuleDict({"norm1": block.norm1})])

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(b c h w) -> it as it is, and (b h*w c)."""
        norm = cast(nn.ModuleDict, self.transformer_blocks[0])["norm1"]
        return x, norm(map_to_tokens(self.proj_in(self.norm(x))))


class ReferenceNet(ModelMixin, ConfigMixin):
    """What the denoiser's self-attentions get to see of the reference.

    Parameter names are Stable Diffusion's, so that `for_denoiser` and Stable Diffusion's own weights fill it. What
    would run after the last self-attention is not there: nothing reads it, so it could not learn.

    Args:
        in_channels: latent channels.
        block_out_channels, layers_per_block, down_block_types, up_block_types, attention_head_dim,
            norm_num_groups, norm_eps, position_gain: as in `XDynaUNet`.
        cross_attention_dim: width of text tokens; None builds no cross-attention.

    Raises:
        OptionError: options that do not fit each other.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TellingTransformer", "LastTransformer", "Resnet"]
    _repeated_blocks = ["TellingBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        attention_head_dim: int | tuple[int, ...] = 8,
        cross_attention_dim: int | None = 768,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        position_gain: float | None = None,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        levels = len(widths)
        heads = (
            [attention_head_dim] * levels if isinstance(attention_head_dim, int) else [*attention_head_dim]
        )
        check_levels(levels, down_block_types, up_block_types, heads)
        check_groups("norm_num_groups", widths, norm_num_groups)
        time_channels = 4 * widths[0]

        def options(level: int, attention: bool) -> BlockOptions:
            return BlockOptions(
                time_channels=time_channels,
                groups=norm_num_groups,
                eps=norm_eps,
                attention=AttentionOptions(
                    heads=heads[level],
                    cross_attention_dim=cross_attention_dim,
                    image_tokens=0,
                    reference=None,
                    position_gain=position_gain,
                    adapter_query_init="query",
                )
                if attention
                else None,
                motion_heads=None,
                motion_max_length=0,
                motion_groups=norm_num_groups,
                transformer=TellingTransformer,
                transformer_block=TellingBlock,
            )

        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_channels)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        parts = make_levels(
            widths,
            layers=layers_per_block,
            down_types=down_block_types,
            up_types=up_block_types,
            options=options,
        )
        self.down_blocks, self.mid_block, self.up_blocks = parts.down_blocks, parts.mid_block, parts.up_blocks
        self._cut_tail()

    @classmethod
    def for_denoiser(cls, unet: XDynaUNet) -> ReferenceNet:
        """A ReferenceNet that fits a denoiser, with a copy of its weights, on its device and in its dtype.

        Stable Diffusion's weights come this way too: a denoiser that was given them has them under the same names.
        """
        config = unet.config
        text = config.cross_attention_dim if config.text_tokens else None
        network = cls(
            in_channels=config.in_channels,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            down_block_types=tuple(config.down_block_types),
            up_block_types=tuple(config.up_block_types),
            attention_head_dim=config.attention_head_dim,
            cross_attention_dim=text,
            norm_num_groups=config.norm_num_groups,
            norm_eps=config.norm_eps,
            position_gain=config.position_gain,
        )
        weights = unet.state_dict()
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        return network.to(unet.conv_in.weight)

    def forward(self, reference: Tensor, encoder_hidden_states: Tensor | None = None) -> tuple[Tensor, ...]:
        """What each self-attention reads of the reference.

        Args:
            reference: (b c h w) clean latent.
            encoder_hidden_states: (b n d) text tokens; None for a network without cross-attention.

        Returns:
            a (b n c) for each self-attention of the denoiser, normalised, n = the places of its map, in the order
            in which they run: down blocks from the top, mid block, up blocks from the bottom, each by its layers.
        """
        now = torch.zeros(len(reference), device=reference.device)
        context = Context(
            frames=1,
            time=self.time_embedding(self.time_proj(now).to(reference.dtype)),
            tokens=encoder_hidden_states,
            reference_frames=0,
        )
        x = self.conv_in(reference)
        skips = [x]
        features: list[Tensor] = []
        for block in cast(list[DownBlock], self.down_blocks):
            for index in range(len(block.resnets)):
                x, seen = run_layer(block, index, x, context)
                skips.append(x)
                features += seen
            for downsampler in block.downsamplers:
                x = downsampler(x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, context.time, frames=1)
        x, of_mid = self.mid_block.attentions[0](x, context)
        features.append(of_mid)
        for resnet in self.mid_block.resnets[1:]:
            x = resnet(x, context.time, frames=1)
        for up_block in cast(list[UpBlock], self.up_blocks):
            for index in range(len(up_block.resnets)):
                x, seen = run_layer(up_block, index, torch.cat([x, skips.pop()], dim=1), context)
                features += seen
            for upsampler in up_block.upsamplers:
                x = upsampler(x, size=(skips[-1].shape[2], skips[-1].shape[3]))
        return tuple(features)

    def _cut_tail(self) -> None:
        """Take out what runs after the last self-attention has read its tokens."""
        while len(self.up_blocks) and not len(cast(Block, self.up_blocks[-1]).attentions):
            del self.up_blocks[-1]
        if len(self.up_blocks):
            last = cast(UpBlock, self.up_blocks[-1])
            last.upsamplers = nn.ModuleList()
            attentions = last.attentions
        else:
            del self.mid_block.resnets[1]
            attentions = self.mid_block.attentions
        attentions[-1] = LastTransformer(cast(SpatialTransformer, attentions[-1]))


def run_layer(block: Block, index: int, x: Tensor, context: Context) -> tuple[Tensor, list[Tensor]]:
    """Layer `index` of a block: its output, and what its self-attention read, if it has one.

    Checkpointed where that is switched on and gradients are wanted.
    """

    def layer(x: Tensor, context: Context) -> tuple[Tensor, list[Tensor]]:
        x = block.resnets[index](x, context.time, frames=1)
        if not len(block.attentions):
            return x, []
        x, seen = block.attentions[index](x, context)
        return x, [seen]

    if block.gradient_checkpointing and torch.is_grad_enabled():
        return cast(tuple[Tensor, list[Tensor]], block._gradient_checkpointing_func(layer, x, context))
    return layer(x, context)
