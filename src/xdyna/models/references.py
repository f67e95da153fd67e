"""The ways for the reference to enter the denoiser, as rows of a table (the paper's Figure 3).

A way is a small protocol: how self-attention is built (called as `attn1(tokens, context, size=(h, w))`), and which of
three things it reads of the reference. All three are values that a call of the denoiser is given:

* frames: the clean latent as frame 0 of the clip, which runs through the denoiser beside the noisy ones;
* features: what a `ReferenceNet` saw, a tensor for each self-attention;
* tokens: image tokens, read by cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from xdyna.errors import OptionError
from xdyna.models.attention import AttentionOptions, SelfAttention
from xdyna.models.dynamics_adapter import DynamicsAdapterAttention
from xdyna.models.reference_attention import ReferenceAttention


@dataclass(frozen=True)
class ReferenceWay:
    """One way for the reference to enter.

    Attributes:
        attention: builds a level's self-attention from its width and options.
        frames: frames of the reference at the front of every clip, 1 or 0.
        features: whether self-attention reads a ReferenceNet's features.
        tokens: whether the image tokens are the reference, and `reference_scale` acts on them.
        learns: parts of the names of the denoiser's parameters that this way adds to Stable Diffusion's.
    """

    attention: Callable[[int, AttentionOptions], nn.Module]
    frames: int = 0
    features: bool = False
    tokens: bool = False
    learns: tuple[str, ...] = ()


def _plain(channels: int, options: AttentionOptions) -> nn.Module:
    return SelfAttention(channels, options.heads, position_gain=options.position_gain)


REFERENCES: dict[str, ReferenceWay] = {
    "dynamics-adapter": ReferenceWay(
        lambda channels, options: DynamicsAdapterAttention(
            channels,
            options.heads,
            position_gain=options.position_gain,
            query_init=options.adapter_query_init,
        ),
        frames=1,
        learns=("attn1.to_q_ff", "attn1.to_out_ff", "moved_in"),
    ),
    "reference-net": ReferenceWay(
        lambda channels, options: ReferenceAttention(
            channels, options.heads, position_gain=options.position_gain
        ),
        features=True,
    ),
    "ip-adapter": ReferenceWay(_plain, tokens=True, learns=("attn2.to_k_ip", "attn2.to_v_ip")),
}
"""The ways by the name that a model's config gives them."""


def reference_way(name: str | None) -> ReferenceWay:
    """The row of `REFERENCES` called `name`; None is a network that sees no reference.

    Raises:
        OptionError: there is none of that name.
    """
    if name is None:
        return ReferenceWay(_plain)
    if name not in REFERENCES:
        raise OptionError("reference", f"got {name!r}, allowed are {', '.join(REFERENCES)}")
    return REFERENCES[name]
