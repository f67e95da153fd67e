"""Self-attention that sees a ReferenceNet's features beside its own frame (Animate-Anyone, Hu et al. 2024).

The ReferenceNet tells what its own self-attention of the same place read, R (b n c); those tokens stand beside the
frame's X as further keys and values, under the denoiser's own projections::

    out = to_out(attend(to_q X, to_k [X, R], to_v [X, R]))

There is nothing to learn here, and nothing starts at zero: what the network gives changes with the first step. The
strength s of the reference multiplies its share of the softmax: a weight exp(q k) becomes s exp(q k), which is log s
added to the logit. So 1 is the plain concatenation, and 0 the network without a reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.models.attention import Context, SelfAttention, attend, placed
from xdyna.models.residual_stream import Sum


class ReferenceAttention(SelfAttention):
    """Spatial self-attention over a frame's own tokens and a ReferenceNet's.

    Args:
        channels: width of the tokens.
        heads: number of heads.
        position_gain: as in `SelfAttention`; the reference's keys get the same code, so that a query finds the same
            place of it.

    Attributes:
        place: which of `context.reference_features` is read here; the network that holds this sets it.
    """

    place: int = 0

    def add_to(self, total: Sum, tokens: Tensor, context: Context, *, size: tuple[int, int]) -> None:
        """Attend within each frame and to the reference of its clip.

        Args:
            total: gets the projection.
            tokens: ((b f) n c), normalised.
            context: its `reference_features[place]` is (b n c); `reference_scale` 0 needs none.
            size: (h, w) with h w = n, for the position code.
        """
        scale, features = context.reference_scale, context.reference_features
        if features is None or (not isinstance(scale, Tensor) and scale == 0):
            super().add_to(total, tokens, context, size=size)
            return
        seen = features[self.place].to(tokens.dtype)
        where, seen_where = (placed(part, self.position_gain, size=size) for part in (tokens, seen))

        def joined(own: Tensor, reference: Tensor) -> Tensor:
            """((b f) n c), (b n c) -> ((b f) 2n c)."""
            return torch.cat([own, reference.repeat_interleave(context.frames, 0)], dim=1)

        key = joined(self.to_k(where), self.to_k(seen_where))
        value = joined(self.to_v(tokens), self.to_v(seen))
        bias = None
        if isinstance(scale, Tensor) or scale != 1:
            share = torch.as_tensor(scale, dtype=torch.float32, device=tokens.device).expand(len(seen))
            bias = key.new_zeros(len(key), key.shape[1], dtype=torch.float32)
            bias[:, tokens.shape[1] :] = share.log().repeat_interleave(context.frames)[:, None]
        total.add(self.to_out[0], attend(self.to_q(where), key, value, heads=self.heads, key_bias=bias))
