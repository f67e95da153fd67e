"""Triton kernels of `fused.py`, which says what they compute; nobody else imports this, since it needs triton.

All of them read maps as (clips, rows, channels): channels lie side by side in memory, a clip's rows are the places of
all its frames. Loads are cut into tiles of rows x channels; sums are taken in float32, over a fixed number of chunks of
rows that is a function of the shape alone, and then over the chunks: no atomics, so the same bits every time.
"""

from xdyna.models.kernels.attention import attention, attention_gradient
from xdyna.models.kernels.bias import add_bias, bias_silu_gradient, column_sums
from xdyna.models.kernels.clip_norm import clip_norm, clip_norm_gradient
from xdyna.models.kernels.geglu import geglu, geglu_gradient
from xdyna.models.kernels.places import add_places
from xdyna.models.kernels.token_norm import token_norm, token_norm_gradient

__all__ = [
    "add_bias",
    "add_places",
    "attention",
    "attention_gradient",
    "bias_silu_gradient",
    "clip_norm",
    "clip_norm_gradient",
    "column_sums",
    "geglu",
    "geglu_gradient",
    "token_norm",
    "token_norm_gradient",
]
