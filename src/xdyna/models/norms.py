"""The norms of our networks: PyTorch's, with a fused kernel where one is allowed and fits."""

from __future__ import annotations

import torch
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

    def forward(
        self, input: Tensor, *, frames: int = 1, silu: bool = False, before: Tensor | None = None
    ) -> Tensor:
        """Norm ((b f) c h w) over clips.

        Args:
            input: ((b f) c h w).
            frames: f.
            silu: whether SiLU follows.
            before: (b c) or (c), added to the channels first; None adds nothing.

        Returns:
            The same shape.
        """
        silu = silu or self.active
        if before is not None and torch.is_grad_enabled():  # the kernel has no gradient of it
            input, before = shifted(input, before, frames=frames), None
        if self.affine and fused.fits(input, self.fusing) and fused.in_channels_last(input):
            return fused.clip_norm(
                input,
                self.weight,
                self.bias,
                groups=self.num_groups,
                eps=self.eps,
                frames=frames,
                silu=silu,
                before=before,
            )
        if before is not None:
            input = shifted(input, before, frames=frames)
        normed = self.plain(input, frames=frames)
        return F.silu(normed) if silu else normed

    def plain(self, input: Tensor, *, frames: int) -> Tensor:
        """The norm by PyTorch's own kernels."""
        if frames == 1:
            return super().forward(input)
        clip = input.unflatten(0, (-1, frames)).transpose(1, 2)
        return super().forward(clip).transpose(1, 2).flatten(0, 1)


def shifted(x: Tensor, shift: Tensor, *, frames: int) -> Tensor:
    """((b f) c h w) plus (b c), or (c) for all."""
    if shift.ndim == 1:
        return x + shift[:, None, None]
    return (x.unflatten(0, (-1, frames)) + shift[:, None, :, None, None]).flatten(0, 1)


class TokenNorm(nn.LayerNorm):
    """Layer norm over the channels of tokens.

    Attributes:
        fusing: as `ClipGroupNorm`'s.
    """

    fusing = "never"

    def forward(self, input: Tensor, *, before: Tensor | None = None, code: Tensor | None = None) -> Tensor:
        """Norm tokens over their channels.

        Args:
            input: (... c); (... f c) with a code.
            before: (c), added first, where no gradients are wanted; None adds nothing.
            code: (f c), added after; it gets no gradient. None adds nothing.

        Returns:
            The same shape.
        """
        if self.fits(input):
            tokens = input.contiguous()
            return fused.token_norm(tokens, self.weight, self.bias, eps=self.eps, before=before, code=code)
        normed = self.plain(input if before is None else input + before.to(input.dtype))
        return normed if code is None else normed + code.to(normed.dtype)

    def fits(self, input: Tensor) -> bool:
        """Whether the fused kernel can take it."""
        return (
            self.bias is not None and input.shape[-1] <= fused.WIDEST_TOKEN and fused.fits(input, self.fusing)
        )

    def plain(self, input: Tensor) -> Tensor:
        """The norm by PyTorch's own kernel."""
        return super().forward(input)
