"""Motion modules: attention over time at every place of the map (AnimateDiff; spec.md 1.3).

A reference at frame 0 takes no part: it passes through unchanged, and the others do not see it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from xdyna.models import fused
from xdyna.models.attention import Attention, attend, fed_forward, feed_forward
from xdyna.models.fused_layers import add_places
from xdyna.models.norms import ClipGroupNorm, TokenNorm
from xdyna.models.residual_stream import ResidualStream, Sum, is_product
from xdyna.models.short_attention import fits_short_attention, short_attention

AT_ONCE = 20_000_000
"""Numbers of a map that a motion module takes at a time where no gradients are wanted: above it, rows of the map go one
band after another, which bounds the memory. Places know nothing of each other here, so it changes nothing."""


class TimeCode(nn.Module):
    """Sinusoidal code of a frame's place inside its window, sine at even and cosine at odd channels.

    Args:
        channels: length of the code.
        max_length: most frames in a window. The code is a buffer that checkpoints hold.
    """

    pe: Tensor

    def __init__(self, channels: int, max_length: int) -> None:
        super().__init__()
        place = torch.arange(max_length, dtype=torch.float32)[:, None]
        rate = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10_000.0) / channels))
        code = torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1).flatten(1)
        self.register_buffer("pe", code[None, :, :channels].contiguous())

    def forward(self, frames: int) -> Tensor:
        """The code of so many frames, (f c)."""
        return self.pe[0, :frames]


class TimeAttention(Attention):
    """Self-attention over time; the code of time enters queries, keys and values: the norm before adds it.

    Args:
        channels: width of the tokens.
        heads: number of heads.
        max_length: most frames in a window.

    Attributes:
        fusing: as `norms.ClipGroupNorm`'s, for the attention itself.
    """

    fusing = "never"

    def __init__(self, channels: int, heads: int, *, max_length: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = TimeCode(channels, max_length)

    def add_to(self, total: Sum, tokens: Tensor) -> None:
        """Of (n f c), normalised and then given the code of time."""
        query, key, value = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        if fits_short_attention(query, key, self.heads, self.fusing):
            mixed = short_attention(query, key, value, heads=self.heads)
        else:
            mixed = attend(query, key, value, heads=self.heads)
        total.add(self.to_out[0], mixed)


class TimeBlock(nn.Module):
    """Two attentions over time and a feed-forward, each with its norm before and its input added after."""

    def __init__(self, channels: int, heads: int, *, max_length: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TimeAttention(channels, heads, max_length=max_length) for _ in range(2)
        )
        self.norms = nn.ModuleList(TokenNorm(channels) for _ in range(2))
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = TokenNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n f c) -> (n f c), n places of f frames."""
        for attention, norm in self._attentions():
            tokens = tokens + attention(norm(tokens, code=attention.pos_encoder(tokens.shape[1])))
        return fed_forward(tokens, self.ff_norm, self.ff)

    def run(self, stream: ResidualStream) -> None:
        """`forward` of the tokens of a stream, in place."""
        for attention, norm in self._attentions():
            code = attention.pos_encoder(stream.total().shape[1])
            attention.add_to(stream, stream.normed(norm, code=code))
        feed_forward(stream, self.ff_norm, self.ff)

    def _attentions(self) -> Iterable[tuple[TimeAttention, TokenNorm]]:
        pairs = zip(self.attention_blocks, self.norms, strict=True)
        return cast(Iterable[tuple[TimeAttention, TokenNorm]], pairs)


class TemporalTransformer(nn.Module):
    """Norm over single frames, projection, one `TimeBlock`, projection that starts at zero.

    Attributes:
        fusing: as `norms.ClipGroupNorm`'s, for sums taken in place.
    """

    fusing = "never"

    def __init__(self, channels: int, heads: int, *, max_length: int, groups: int) -> None:
        super().__init__()
        self.norm = ClipGroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TimeBlock(channels, heads, max_length=max_length)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, into: Tensor, *, frames: int, reference_frames: int) -> None:
        """Add to a map what this makes of it.

        Args:
            x: ((b f) c h w) with f = `frames`.
            into: (b f-r c h w), all frames but the reference's; changed in place.
            frames, reference_frames: f and r.
        """
        # norming the reference as well and leaving it out after costs less than a copy of the others
        # cut with the channels last, so that the gradient comes back with the channels last
        moving = self.norm(x).permute(0, 2, 3, 1).unflatten(0, (-1, frames))[:, reference_frames:]
        height = moving.shape[2]
        bands = 1
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            bands = min(height, math.ceil(moving.numel() / AT_ONCE))
        for band in range(bands):
            rows = slice(height * band // bands, height * (band + 1) // bands)
            # contiguous, or PyTorch would take as many small products as there are places
            change, bias = self._change(moving[:, :, rows].permute(0, 2, 3, 1, 4).flatten(0, 2).contiguous())
            add_places(into[..., rows, :], change, bias, fusing=self.fusing)

    def _change(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n f c), normalised -> what is to be added, (n f c), and the bias (c) that it lacks or None."""
        if fused.defers(tokens, self.fusing) and is_product(self.proj_in) and is_product(self.proj_out):
            stream = ResidualStream.projected(tokens, self.proj_in)
            del tokens  # the stream's are others
            for block in self.transformer_blocks:
                cast(TimeBlock, block).run(stream)
            return stream.handed_over(self.proj_out)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens)
        return self.proj_out(tokens), None


class MotionModule(nn.Module):
    """A temporal transformer that the reference bypasses (fixture ii).

    Args:
        channels: width of the map.
        heads: number of heads.
        max_length: most frames in a window, the reference not counted (24 in the published weights).
        groups: groups of its norm (32 in the published weights, whatever the other norms have).

    Raises:
        OptionError: heads do not divide channels.
    """

    def __init__(self, channels: int, heads: int, *, max_length: int = 24, groups: int = 32) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, max_length=max_length, groups=groups)

    def forward(self, x: Tensor, *, frames: int, reference_frames: int = 1, own: bool = False) -> Tensor:
        """Add to all frames of a clip but the reference's.

        Args:
            x: ((b f) c h w).
            frames: f.
            reference_frames: how many frames of a clip, the first ones, stay as they are.
            own: x is read by nobody else: without gradients it may be changed and returned.

        Returns:
            The same shape.
        """
        if frames == reference_frames:
            return x
        # a clone keeps the memory format, which torch.cat would not
        output = x if own and not torch.is_grad_enabled() else x.clone()
        moving = output.unflatten(0, (-1, frames))[:, reference_frames:]
        self.temporal_transformer(x, moving, frames=frames, reference_frames=reference_frames)
        return output


class MotionStrength(nn.Module):
    """How lively a clip is, told to the whole network as an addition to its time embedding.

    Not part of the published model. The strength is a clip's motion energy: the mean absolute change of the
    background from frame to frame on the scale 0..255, 0 for a scene in which nothing moves. It enters as a sinusoidal
    code of log(1 + energy); the last layer starts at zero, so that an untrained module changes nothing.

    Args:
        channels: width of the time embedding.
    """

    CODE_CHANNELS = 64
    CODE_SCALE = 100.0
    """Codes are made for timesteps up to a thousand; log(1 + 255) times this is 555."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.code = Timesteps(self.CODE_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.linear_1 = nn.Linear(self.CODE_CHANNELS, channels)
        self.linear_2 = nn.Linear(channels, channels)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, energy: Tensor) -> Tensor:
        """(b,) energies, NaN for "not told" -> (b channels); zeros where not told."""
        told = ~energy.isnan()
        level = torch.where(told, energy, 0).clamp(min=0).log1p()
        code = self.code(self.CODE_SCALE * level).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(code))) * told[:, None].to(code.dtype)
