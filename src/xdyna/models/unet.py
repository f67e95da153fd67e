"""The denoiser: Stable Diffusion's U with motion modules, Dynamics-Adapter and image tokens (spec.md 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from xdyna.errors import OptionError, WeightsError
from xdyna.models.attention import AttentionOptions, Context
from xdyna.models.blocks import BlockOptions, ClipGroupNorm, DownBlock, MidBlock, UpBlock
from xdyna.models.motion import MotionStrength

DOWN_TYPES = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
UP_TYPES = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}
"""Block type -> whether the level has spatial transformers."""


class XDynaUNet(ModelMixin, ConfigMixin):
    """Predicts the noise (or velocity) of a clip whose frame 0 is the clean reference.

    Parameter names and shapes are those of the official checkpoint: Stable Diffusion's, plus
    `motion_modules`, `attn1.to_q_ff`, `attn1.to_out_ff`, `attn2.to_k_ip`, `attn2.to_v_ip`. The defaults are
    the published model. Any number of levels from two, any widths and latent channels, any latent size.

    Args:
        in_channels: latent channels in.
        out_channels: latent channels out.
        block_out_channels: width of each level.
        layers_per_block: resnets of a down block; up blocks have one more.
        down_block_types: "CrossAttnDownBlock3D" (with spatial transformers) or "DownBlock3D", a level each.
        up_block_types: "CrossAttnUpBlock3D" or "UpBlock3D", deepest level first.
        attention_head_dim: the **number** of heads, as in Stable Diffusion 1.5's own configuration; one for
            all levels or one each.
        cross_attention_dim: width of text and image tokens; None builds no cross-attention (no `attn2`).
        norm_num_groups: groups of all norms but the motion modules'.
        norm_eps: epsilon of the resnets' norms and the last one.
        motion_heads: heads of the motion modules.
        motion_max_length: most driven frames in one call.
        motion_norm_groups: groups of the motion modules' norms.
        use_motion_modules: False builds a network for pictures.
        image_tokens: how many of the last tokens are image tokens; 0 for text only.
        reference: how the reference enters, a key of `blocks.REFERENCES`.
        position_gain: None as published; a number adds a position code with a learnable gain to the queries
            and keys of self-attention, for training from scratch.
        adapter_query_init: "query" (official) or "key": what the adapter's queries start as a copy of.
        motion_condition: False as published; True builds `motion_strength`, which lets a caller say how lively
            the scene is to be.

    Raises:
        OptionError: options that do not fit each other.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SpatialTransformer", "MotionModule", "Resnet"]
    _repeated_blocks = ["TransformerBlock", "TimeBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        attention_head_dim: int | tuple[int, ...] = 8,
        cross_attention_dim: int | None = 768,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        motion_heads: int = 8,
        motion_max_length: int = 24,
        motion_norm_groups: int = 32,
        use_motion_modules: bool = True,
        image_tokens: int = 16,
        reference: str = "dynamics-adapter",
        position_gain: float | None = None,
        adapter_query_init: str = "query",
        motion_condition: bool = False,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        levels = len(widths)
        heads = (
            [attention_head_dim] * levels if isinstance(attention_head_dim, int) else [*attention_head_dim]
        )
        _check_levels(levels, down_block_types, up_block_types, heads)
        _check_groups("norm_num_groups", widths, norm_num_groups)
        if use_motion_modules:
            _check_groups("motion_norm_groups", widths, motion_norm_groups)
        time_channels = 4 * widths[0]

        def options(level: int, attention: bool) -> BlockOptions:
            return BlockOptions(
                time_channels=time_channels,
                groups=norm_num_groups,
                eps=norm_eps,
                attention=AttentionOptions(
                    heads=heads[level],
                    cross_attention_dim=cross_attention_dim,
                    image_tokens=image_tokens,
                    reference=reference,
                    position_gain=position_gain,
                    adapter_query_init=adapter_query_init,
                )
                if attention
                else None,
                motion_heads=motion_heads if use_motion_modules else None,
                motion_max_length=motion_max_length,
                motion_groups=motion_norm_groups,
            )

        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_channels)
        self.motion_strength = MotionStrength(time_channels) if motion_condition else None
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        skips = [widths[0]]
        self.down_blocks = nn.ModuleList()
        for level, kind in enumerate(down_block_types):
            last = level == levels - 1
            block = DownBlock(
                widths[max(level - 1, 0)],
                widths[level],
                layers=layers_per_block,
                downsample=not last,
                options=options(level, DOWN_TYPES[kind]),
            )
            self.down_blocks.append(block)
            skips += [widths[level]] * (layers_per_block if last else layers_per_block + 1)
        self._skips = len(skips)
        self.mid_block = MidBlock(widths[-1], options(levels - 1, True))
        self.up_blocks = nn.ModuleList()
        for level, kind in zip(reversed(range(levels)), up_block_types, strict=True):
            up_block = UpBlock(
                widths[min(level + 1, levels - 1)],
                widths[level],
                skip_channels=[skips.pop() for _ in range(layers_per_block + 1)],
                upsample=level > 0,
                options=options(level, UP_TYPES[kind]),
            )
            self.up_blocks.append(up_block)
        self.conv_norm_out = ClipGroupNorm(norm_num_groups, widths[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        *,
        down_residuals: Sequence[Tensor] | None = None,
        mid_residual: Tensor | None = None,
        reference_scale: float | Tensor = 1.0,
        temporal: bool = True,
        motion: Tensor | float | None = None,
    ) -> Tensor:
        """Predict all frames; that of frame 0, the reference, means nothing.

        Args:
            sample: (b c 1+f h w): the clean reference latent, then f noisy ones.
            timestep: one number for all, or (b) one for each clip. The reference gets the same.
            encoder_hidden_states: (b n d) text tokens, then image tokens; None without cross-attention.
            down_residuals: the ControlNets' residuals for the skips, each (b c 1+f h w), zero at frame 0.
            mid_residual: the one for the mid block.
            reference_scale: strength of the reference's residual: 1 as trained, 0 without; or (b).
            temporal: False skips the motion modules; then f may be anything.
            motion: how lively the scene is to be, for a network built with `motion_condition`: the motion energy
                (see `models.motion.MotionStrength`), one for all or (b), NaN for "not told"; None tells nothing.

        Returns:
            (b out_channels 1+f h w)

        Raises:
            OptionError: more frames than the motion modules know, or `motion` for a network without it.
            WeightsError: residuals of a ControlNet that does not fit.
        """
        batch, _, frames, _, _ = sample.shape
        self._check_call(frames, temporal, down_residuals)
        time = torch.as_tensor(timestep, device=sample.device).expand(batch)
        context = Context(
            frames=frames,
            time=self._embed(time, motion, sample),
            tokens=encoder_hidden_states,
            reference_scale=reference_scale,
            temporal=temporal,
        )

        x = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        skips = [x]
        for block in self.down_blocks:
            x, outputs = block(x, context)
            skips += outputs
        x = self.mid_block(x, context)

        if down_residuals is not None:
            skips = [_add(skip, r, frames) for skip, r in zip(skips, down_residuals, strict=True)]
        if mid_residual is not None:
            x = _add(x, mid_residual, frames)

        for block in self.up_blocks:
            x = block(x, skips, context)
        x = self.conv_out(F.silu(self.conv_norm_out(x, frames=frames)))
        return x.unflatten(0, (batch, frames)).transpose(1, 2).contiguous()

    def _embed(self, time: Tensor, motion: Tensor | float | None, sample: Tensor) -> Tensor:
        """Timesteps (b,) and motion energies -> the time embedding (b d)."""
        embedding = self.time_embedding(self.time_proj(time).to(sample.dtype))
        if motion is None:
            return embedding
        if self.motion_strength is None:
            raise OptionError("--motion", "this model was not trained to be told how lively a scene is")
        energy = torch.as_tensor(motion, dtype=torch.float32, device=sample.device).expand(len(sample))
        return embedding + self.motion_strength(energy).to(embedding.dtype)

    def _check_call(self, frames: int, temporal: bool, down_residuals: Sequence[Tensor] | None) -> None:
        longest = self.config.motion_max_length
        if temporal and self.config.use_motion_modules and frames - 1 > longest:
            raise OptionError(
                "--window",
                f"{frames - 1} frames at once, the motion modules know {longest} at most",
                "Use shorter windows",
            )
        if down_residuals is not None and len(down_residuals) != self._skips:
            raise WeightsError(
                "ControlNet",
                f"it gives {len(down_residuals)} residuals, the denoiser has {self._skips} skips",
                "The two do not belong together: take both from the same model",
            )


def _add(x: Tensor, residual: Tensor, frames: int) -> Tensor:
    """((b f) c h w) + (b c f h w) without a copy of either."""
    return (x.unflatten(0, (-1, frames)) + residual.transpose(1, 2)).flatten(0, 1)


def _check_levels(levels: int, down: Sequence[str], up: Sequence[str], heads: Sequence[int]) -> None:
    """Raise OptionError unless every level has its types and heads."""
    if levels < 2:
        raise OptionError("block_out_channels", f"got {levels} level, at least 2 are needed")
    for name, values in (("down_block_types", down), ("up_block_types", up), ("attention_head_dim", heads)):
        if len(values) != levels:
            raise OptionError(name, f"got {len(values)} values for the {levels} levels of block_out_channels")
    for name, values, allowed in (("down_block_types", down, DOWN_TYPES), ("up_block_types", up, UP_TYPES)):
        for kind in values:
            if kind not in allowed:
                raise OptionError(name, f"got {kind!r}, allowed are {', '.join(allowed)}")


def _check_groups(name: str, widths: Sequence[int], groups: int) -> None:
    """Raise OptionError unless every width can be split into `groups` groups."""
    for width in widths:
        if groups < 1 or width % groups:
            raise OptionError(name, f"{width} channels cannot be split into {groups} groups")
