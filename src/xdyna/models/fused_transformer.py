"""diffusers' spatial transformer, which ControlNets use, with its sums taken in place.

As diffusers writes it, its map is turned to another layout and back, each attention's result is divided by one, and
every sum is a pass of its own.
"""

from __future__ import annotations

from typing import Any, cast

from diffusers.models.attention import Attention, BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from xdyna.models import fused
from xdyna.models.attention import attend, feed_forward, map_to_tokens
from xdyna.models.fused_layers import add_maps
from xdyna.models.gated import FusedGEGLU
from xdyna.models.norms import ClipGroupNorm, TokenNorm
from xdyna.models.residual_stream import ResidualStream, is_product


class FusedTransformer(Transformer2DModel):
    """`Transformer2DModel` that computes in place where `fused.defers`, and as ever everywhere else.

    Attributes:
        fusing: one of `fused.FUSING`.
    """

    fusing = "never"

    @classmethod
    def take_place_of(cls, model: Transformer2DModel) -> None:
        """Give a model, whose layers have been fused, this class: all else of it stays, its training included."""
        if can_stand_for(model):
            model.__class__ = cls

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """((n c h w) and text (n m d)) -> (n c h w); any other option goes to diffusers' own way."""
        told = any(value is not None and value != {} for value in others.values())
        if told or not fused.defers(hidden_states, self.fusing):
            return super().forward(hidden_states, encoder_hidden_states, return_dict=return_dict, **others)
        stream = ResidualStream.projected(map_to_tokens(self.norm(hidden_states)), self.proj_in)
        for block in self.transformer_blocks:
            run_block(block, stream, encoder_hidden_states)
        change, bias = stream.handed_over(self.proj_out)
        change = change.unflatten(1, hidden_states.shape[2:]).permute(0, 3, 1, 2)
        output = add_maps((hidden_states, None), (change, bias))
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)


def run_block(block: BasicTransformerBlock, stream: ResidualStream, text: Tensor | None) -> None:
    """A block of diffusers, of the usual form, on the tokens of a stream (n m c)."""
    for layer, norm, source in ((block.attn1, block.norm1, None), (block.attn2, block.norm2, text)):
        if layer is not None:
            tokens = stream.normed(norm)
            source = tokens if source is None else source
            query, key, value = layer.to_q(tokens), layer.to_k(source), layer.to_v(source)
            del tokens, source
            stream.add(layer.to_out[0], attend(query, key, value, heads=layer.heads))
    feed_forward(stream, block.norm3, block.ff)


def can_stand_for(model: Transformer2DModel) -> bool:
    """Whether a model is of the usual form: Stable Diffusion's, on maps, without dropout."""
    return (
        model.is_input_continuous
        and isinstance(model.norm, ClipGroupNorm)
        and is_product(model.proj_in)
        and is_product(model.proj_out)
        and not model.use_linear_projection
        and all(_is_usual(cast(BasicTransformerBlock, block)) for block in model.transformer_blocks)
    )


def _is_usual(block: BasicTransformerBlock) -> bool:
    attentions = [layer for layer in (block.attn1, block.attn2) if layer is not None]
    return (
        block.norm_type == "layer_norm"
        and all(isinstance(norm, (TokenNorm, type(None))) for norm in (block.norm1, block.norm2, block.norm3))
        and block.pos_embed is None
        and not block.only_cross_attention
        and not hasattr(block, "fuser")
        and isinstance(block.ff.net[0], FusedGEGLU)
        and all(layer.p == 0 for layer in block.modules() if isinstance(layer, nn.Dropout))
        and all(_is_plain(layer) for layer in attentions)
    )


def _is_plain(layer: Attention) -> bool:
    """Whether an attention is projections and a softmax, nothing more."""
    extras = (layer.spatial_norm, layer.group_norm, layer.norm_q, layer.norm_k, layer.norm_cross)
    return (
        type(layer.processor) is AttnProcessor2_0
        and not any(extras)
        and not layer.residual_connection
        and layer.rescale_output_factor == 1
        and layer.scale_qk
    )
