"""The denoiser: Stable Diffusion's U with motion modules, Dynamics-Adapter and image tokens (spec.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from xdyna.errors import OptionError, WeightsError
from xdyna.models.attention import AttentionOptions, Context
from xdyna.models.blocks import BlockOptions, DownBlock, UpBlock
from xdyna.models.halves import in_halves
from xdyna.models.levels import check_groups, check_levels, make_levels, spatial_transformers
from xdyna.models.motion import MotionStrength
from xdyna.models.norms import ClipGroupNorm
from xdyna.models.reference_attention import ReferenceAttention
from xdyna.models.references import reference_way


class XDynaUNet(ModelMixin, ConfigMixin):
    """Predicts the noise (or velocity) of a clip, given a clean reference.

    How the reference enters is an option, and decides what a clip is made of: `reference_frames` tells how many
    frames at its front are the reference (see `with_reference`): 1 for "dynamics-adapter", 0 for the others.

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
        reference: how the reference enters, a key of `references.REFERENCES`.
        position_gain: None as published; a number adds a position code with a learnable gain to the queries
            and keys of self-attention, for training from scratch.
        adapter_query_init: "query" (official) or "key": what the adapter's queries start as a copy of.
        motion_condition: False as published; True builds `motion_strength`, which lets a caller say how lively
            the scene is to be.
        text_tokens: False for a model that reads no text: all its tokens are image tokens.
        moved_reference: False as published; True builds `moved_in`, which adds the reference's latents, moved as the
            person moves (`warping`), to the input of every driven frame: a first guess that attention need not find.
            It starts at zero.

    Attributes:
        reference_frames: frames of the reference at the front of every clip, 1 or 0.
        reads_features: whether self-attention reads what a `ReferenceNet` saw.
        reads_tokens: whether the image tokens are all that is known of the reference.
        outer_skips: how many skips, the first ones, belong to the outermost level.

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
        text_tokens: bool = True,
        moved_reference: bool = False,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        levels = len(widths)
        heads = (
            [attention_head_dim] * levels if isinstance(attention_head_dim, int) else [*attention_head_dim]
        )
        check_levels(levels, down_block_types, up_block_types, heads)
        check_groups("norm_num_groups", widths, norm_num_groups)
        if use_motion_modules:
            check_groups("motion_norm_groups", widths, motion_norm_groups)
        way = reference_way(reference)
        if (way.tokens or not text_tokens) and (cross_attention_dim is None or image_tokens < 1):
            raise OptionError(
                "image_tokens",
                f"got {image_tokens} image tokens of width {cross_attention_dim} for a model that reads "
                + ("the reference from them" if way.tokens else "no text"),
                "Give cross_attention_dim and at least one image token",
            )
        if moved_reference and not way.frames:
            raise OptionError(
                "moved_reference",
                f"needs the reference as frame 0, which {reference!r} has not",
                "Leave it out",
            )
        self.reference_frames, self.reads_features, self.reads_tokens = way.frames, way.features, way.tokens
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
                    text_tokens=text_tokens,
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
        self.moved_in = None
        if moved_reference:
            self.moved_in = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
            nn.init.zeros_(self.moved_in.weight)
        parts = make_levels(
            widths,
            layers=layers_per_block,
            down_types=down_block_types,
            up_types=up_block_types,
            options=options,
        )
        self.down_blocks, self.mid_block, self.up_blocks = parts.down_blocks, parts.mid_block, parts.up_blocks
        self._skips, self.outer_skips = parts.skips, layers_per_block + 1
        self.conv_norm_out = ClipGroupNorm(norm_num_groups, widths[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        self._self_attentions = len(spatial_transformers(self))
        readers = [module for module in self.modules() if isinstance(module, ReferenceAttention)]
        for place, reader in enumerate(readers):
            reader.place = place

    def with_reference(self, latents: Tensor, reference: Tensor) -> Tensor:
        """The clip that `forward` takes: noisy latents (b c f h w) and the clean (b c h w) -> (b c r+f h w).

        r is `reference_frames`: where the reference enters another way, the noisy latents are the whole clip.
        """
        return torch.cat([reference.unsqueeze(2)[:, :, : self.reference_frames], latents], dim=2)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        *,
        down_residuals: Sequence[Tensor] | None = None,
        mid_residual: Tensor | None = None,
        reference_features: Sequence[Tensor] | None = None,
        moved: Tensor | None = None,
        reference_scale: float | Tensor = 1.0,
        temporal: bool = True,
        motion: Tensor | float | None = None,
        deep: Tensor | None = None,
        keep_deep: bool = False,
        begun: list[Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict all frames; what comes out for a reference frame means nothing.

        Args:
            sample: (b c r+f h w): `reference_frames` clean reference latents (r is 1 or 0), then f noisy ones.
            timestep: one number for all, or (b) one for each clip. The reference gets the same.
            encoder_hidden_states: (b n d) text tokens, then image tokens; None without cross-attention.
            down_residuals: the ControlNets' residuals for the skips, each (b c r+f h w), zero at the reference; a batch
                that divides b serves every part of it (both guidance halves).
            mid_residual: the one for the mid block.
            reference_features: what a `ReferenceNet` returns, for a network that `reads_features`.
            moved: (b c f h w), what `warping.moved_reference` gives for the driven frames, for a network with
                `moved_in`; None is the reference where it is.
            reference_scale: strength of the reference, however it enters: 1 as trained, 0 without; or (b).
            temporal: False skips the motion modules; then f may be anything.
            motion: how lively the scene is to be, for a network built with `motion_condition`: the motion energy
                (see `models.motion.MotionStrength`), one for all or (b), NaN for "not told"; None tells nothing.
            deep: what an earlier call with `keep_deep` kept of the same clip: all levels but the outermost are then
                left out (DeepCache, Ma et al. 2023). Of `down_residuals`, the first `outer_skips` are wanted then, and
                no `mid_residual`.
            keep_deep: also return what `deep` takes.
            begun: what `begin` gave for the same arguments; it is read and emptied.

        Returns:
            (b out_channels r+f h w); with `keep_deep` also what the deep levels say, ((b r+f) c h/2 w/2).

        Raises:
            OptionError: more frames than the motion modules know, or `motion` for a network without it.
            WeightsError: residuals of a ControlNet, or features of a ReferenceNet, that do not fit.
        """
        batch, _, frames, _, _ = sample.shape
        self._check_call(frames, temporal, down_residuals, self._skips if deep is None else self.outer_skips)
        context = self._context(
            sample, timestep, encoder_hidden_states, reference_features=reference_features,
            reference_scale=reference_scale, temporal=temporal, motion=motion,
        )  # fmt: skip
        x = self._enter(sample, moved, reference_scale)
        skips = [x]
        first = cast(DownBlock, self.down_blocks[0])
        if deep is None:
            for block in self.down_blocks:
                x, outputs = block(x, context, begun if block is first else None)
                skips += outputs
            x = self.mid_block(x, context)
        else:
            skips += first.layers(x, context, begun)[1]

        if down_residuals is not None:
            skips = [_add(skip, r) for skip, r in zip(skips, down_residuals, strict=True)]
        if mid_residual is not None and deep is None:
            x = _add(x, mid_residual)

        *lower, second, outermost = cast(list[UpBlock], self.up_blocks)
        stack, kept = [*skips, x], deep
        del skips, x, deep  # from here on the stack alone holds them, and lets go of each after its use
        if kept is None:
            for block in lower:
                stack.append(block(stack, context))
            # kept before it is enlarged: a quarter of the memory, for one convolution more
            kept = second.layers(stack, context)
        else:
            stack.pop()
        stack.append(second.upsample(kept, stack))
        if not keep_deep:
            kept = None
        x = outermost(stack, context)
        x = self.conv_out(self.conv_norm_out(x, frames=frames, silu=True))
        prediction = x.unflatten(0, (batch, frames)).transpose(1, 2).contiguous()
        return prediction if kept is None else (prediction, kept)

    halves = in_halves
    """A method, so that whatever stands for the network can stand before all its halves at once."""

    @property
    def moves_reference(self) -> bool:
        """Whether `moved` is read."""
        return self.moved_in is not None

    @property
    def begins_alike(self) -> bool:
        """Whether calls that differ in their tokens only have a beginning in common, which `begin` computes.

        No self-attention reads tokens, whatever the way of the reference; a first layer without attention is too
        little to keep for.
        """
        return len(cast(DownBlock, self.down_blocks[0]).attentions) > 0

    def begin(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        *,
        reference_features: Sequence[Tensor] | None = None,
        moved: Tensor | None = None,
        reference_scale: float | Tensor = 1.0,
        motion: Tensor | float | None = None,
    ) -> list[Tensor]:
        """What `forward` does before it reads tokens: up to the first self-attention, for several calls to go on from.

        Without gradients, for a network that `begins_alike`; arguments as those of `forward`.

        Returns:
            what `forward` takes as `begun`. It empties that list: a call that is not the last gets a copy of the list.
        """
        context = self._context(
            sample, timestep, None, reference_features=reference_features, reference_scale=reference_scale,
            motion=motion,
        )  # fmt: skip
        x = self._enter(sample, moved, reference_scale)
        return cast(DownBlock, self.down_blocks[0]).begin(x, context)

    def _enter(self, sample: Tensor, moved: Tensor | None, reference_scale: float | Tensor) -> Tensor:
        """(b c f h w) -> ((b f) d h w), new memory each time: residuals are added into it."""
        x: Tensor = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        if self.moved_in is not None:
            scale = reference_scale
            if isinstance(scale, Tensor):
                scale = scale.to(x.dtype).view(-1, 1, 1, 1, 1)
            guess = (sample[:, :, :1] if moved is None else moved.to(x.dtype)).transpose(1, 2)
            driven = x.unflatten(0, (len(sample), -1))[:, self.reference_frames :]
            driven += self.moved_in(guess.flatten(0, 1)).unflatten(0, guess.shape[:2]) * scale
        return x

    def _context(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        tokens: Tensor | None,
        *,
        reference_features: Sequence[Tensor] | None,
        reference_scale: float | Tensor,
        motion: Tensor | float | None,
        temporal: bool = True,
    ) -> Context:
        self._check_features(reference_features, reference_scale)
        time = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        return Context(
            frames=sample.shape[2],
            time=self._embed(time, motion, sample),
            tokens=tokens,
            reference_scale=reference_scale,
            temporal=temporal,
            reference_frames=self.reference_frames,
            reference_features=reference_features,
        )

    def _embed(self, time: Tensor, motion: Tensor | float | None, sample: Tensor) -> Tensor:
        """Timesteps (b,) and motion energies -> the time embedding (b d)."""
        embedding = self.time_embedding(self.time_proj(time).to(sample.dtype))
        if motion is None:
            return embedding
        if self.motion_strength is None:
            raise OptionError("--motion", "this model was not trained to be told how lively a scene is")
        energy = torch.as_tensor(motion, dtype=torch.float32, device=sample.device).expand(len(sample))
        return embedding + self.motion_strength(energy).to(embedding.dtype)

    def _check_call(
        self, frames: int, temporal: bool, down_residuals: Sequence[Tensor] | None, skips: int
    ) -> None:
        longest = self.config.motion_max_length
        if temporal and self.config.use_motion_modules and frames - self.reference_frames > longest:
            raise OptionError(
                "--window",
                f"{frames - self.reference_frames} frames at once, the motion modules know {longest} at most",
                "Use shorter windows",
            )
        if down_residuals is not None and len(down_residuals) != skips:
            raise WeightsError(
                "ControlNet",
                f"it gives {len(down_residuals)} residuals, the denoiser has {skips} skips",
                "The two do not belong together: take both from the same model",
            )

    def _check_features(self, features: Sequence[Tensor] | None, scale: float | Tensor) -> None:
        off = not isinstance(scale, Tensor) and scale == 0
        wanted = self._self_attentions if self.reads_features else 0
        given = 0 if features is None else len(features)
        if given != wanted and not (given == 0 and off):
            raise WeightsError(
                "ReferenceNet",
                f"it gives {given} features, {wanted} self-attentions of the denoiser read them",
                "The two do not belong together: take both from the same model",
            )


def _add(x: Tensor, residual: Tensor) -> Tensor:
    """((g b f) c h w) + (b c f h w); without gradients into x itself, which nothing else reads any more."""
    rows = residual.transpose(1, 2)
    places = x.unflatten(0, (-1, *rows.shape[:2]))
    return (places + rows if torch.is_grad_enabled() else places.add_(rows)).flatten(0, 2)
