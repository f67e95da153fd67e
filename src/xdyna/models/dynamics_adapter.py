"""The Dynamics-Adapter: the paper's way to show the reference to the denoiser (section 3.2; spec.md 1.1).

Every spatial self-attention gets a second query. The first attends to its own frame as in Stable Diffusion;
the second attends to frame 0 of the same clip, the reference, through the *same* keys and values, and comes
back through an output projection that starts at zero::

    out = to_out(attend(to_q x, K, V)) + reference_scale * to_out_ff(attend(to_q_ff x, K_0, V_0))

So the pretrained weights stay as they are, the network starts as the plain one, and what is learned is
only what to fetch from the reference: appearance flows in, while motion is left to the motion modules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xdyna.errors import OptionError
from xdyna.models.attention import Attention, Context, attend, make_gain, placed
from xdyna.models.residual_stream import Sum

QUERY_INITS = ("query", "key")
"""What `to_q_ff` starts as: a copy of `to_q` (official), or of `to_k`, which learns faster from scratch."""


class DynamicsAdapterAttention(Attention):
    """Spatial self-attention with the reference's residual (fixture i).

    Args:
        channels: width of the tokens.
        heads: number of heads.
        position_gain: None as published. A number adds a position code times a learnable gain, that number
            at first, to what the three queries and keys see, but not to the values: without pretrained
            weights a query can then find the same place of the reference from the first step.
        query_init: one of `QUERY_INITS`.

    Raises:
        OptionError: heads do not divide channels, or `query_init` is not known.
    """

    position_gain: nn.Parameter | None

    def __init__(
        self, channels: int, heads: int, *, position_gain: float | None = None, query_init: str = "query"
    ) -> None:
        super().__init__(channels, heads)
        if query_init not in QUERY_INITS:
            raise OptionError(
                "adapter_query_init", f"got {query_init!r}, allowed are {', '.join(QUERY_INITS)}"
            )
        self.to_q_ff = nn.Linear(channels, channels, bias=False)
        self.to_out_ff = nn.Linear(channels, channels)
        source = self.to_q if query_init == "query" else self.to_k
        with torch.no_grad():
            self.to_q_ff.weight.copy_(source.weight)
        nn.init.zeros_(self.to_out_ff.weight)
        nn.init.zeros_(self.to_out_ff.bias)
        self.register_parameter("position_gain", make_gain(position_gain))

    def add_to(self, total: Sum, tokens: Tensor, context: Context, *, size: tuple[int, int]) -> None:
        """Attend within each frame and to frame 0 of its clip.

        Args:
            total: gets the two projections.
            tokens: ((b f) n c), normalised.
            context: its `frames` is f; `reference_scale` 0 skips the reference's attention altogether.
            size: (h, w) with h w = n, for the position code.
        """
        where = placed(tokens, self.position_gain, size=size)
        key, value = self.to_k(where), self.to_v(tokens)
        total.add(self.to_out[0], attend(self.to_q(where), key, value, heads=self.heads))
        scale = context.reference_scale
        if not isinstance(scale, Tensor) and scale == 0:
            return
        # of keys and values only frame 0's are still wanted: copies let go of the others
        key, value = key[:: context.frames].clone(), value[:: context.frames].clone()
        # all frames' queries side by side against frame 0: (b, f n, c) with (b, n, c)
        query = self.to_q_ff(where).unflatten(0, (-1, context.frames)).flatten(1, 2)
        total.add(self.to_out_ff, attend(query, key, value, heads=self.heads), scale)
