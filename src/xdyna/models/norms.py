"""The norms of our networks: PyTorch's, with a fused kernel where one is allowed and fits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.models import fused


class ClipGroupNorm(nn.GroupNorm):
    """Group norm whose statistics span all frames of a clip.

    Attributes:
        fusing: one of `fused.FUSING`: on which tensors the fused kernel is used; see `fusing.fuse`.
        active: whether SiLU always follows, asked for or not.
    """

    fusing = "never"
    active = False

    def forward(self, input: Tensor, *, frames: int = 1, silu: bool = False) -> Tensor:
        """((b f) c h w) -> the same shape; f = `frames`; SiLU follows if wanted."""
        silu = silu or self.active
        if self.affine and fused.fits(input, self.fusing) and fused.in_channels_last(input):
            return fused.clip_norm(
                input,
                self.weight,
                self.bias,
                groups=self.num_groups,
                eps=self.eps,
                frames=frames,
                silu=silu,
            )
        normed = self.plain(input, frames=frames)
        return F.silu(normed) if silu else normed

    def plain(self, input: Tensor, *, frames: int) -> Tensor:
        """The norm by PyTorch's own kernels."""
        if frames == 1:
            return super().forward(input)
        clip = input.unflatten(0, (-1, frames)).transpose(1, 2)
        return super().forward(clip).transpose(1, 2).flatten(0, 1)


class TokenNorm(nn.LayerNorm):
    """Layer norm over the channels of tokens.

    Attributes:
        fusing: as `ClipGroupNorm`'s.
    """

    fusing = "never"

    def forward(self, input: Tensor) -> Tensor:
        """(... c) -> the same shape."""
        if self.fits(input):
            return fused.token_norm(input.contiguous(), self.weight, self.bias, eps=self.eps)
        return self.plain(input)

    def fits(self, input: Tensor) -> bool:
        """Whether the fused kernel can take it."""
        return (
            self.bias is not None and input.shape[-1] <= fused.WIDEST_TOKEN and fused.fits(input, self.fusing)
        )

    def plain(self, input: Tensor) -> Tensor:
        """The norm by PyTorch's own kernel."""
        return super().forward(input)
