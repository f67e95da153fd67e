"""Networks made to use the fused kernels: leaf modules of PyTorch and diffusers replaced by equals of ours.

`fuse` works in place. Parameters are taken over as they are and keep their names, so that weights, checkpoints and
optimisers do not notice; results differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from xdyna.errors import OptionError
from xdyna.models import fused
from xdyna.models.blocks import Upsample
from xdyna.models.fused_layers import FusedConv2d, FusedLinear, add_maps, biased, unbiased
from xdyna.models.fused_transformer import FusedTransformer
from xdyna.models.gated import FusedGEGLU
from xdyna.models.norms import ClipGroupNorm, TokenNorm
from xdyna.models.upsampling import PhasedUpsample, doubled, in_phases

NARROW = 16
"""Channels up to which a convolution is packed: narrower ones leave tensor cores mostly idle."""


class FusedResnet(nn.Module):
    """diffusers' `ResnetBlock2D` in its usual form, under its names: SiLU within the norms, no copies.

    Args:
        block: whose layers are taken over; see `can_stand_for`.
    """

    norm1: nn.Module
    norm2: nn.Module
    conv1: nn.Module
    conv2: nn.Module

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        for name, child in block.named_children():
            if isinstance(child, (ClipGroupNorm, nn.Conv2d, nn.Linear)):
                self.add_module(name, child)
        self.scale = block.output_scale_factor
        self.train(block.training)

    @staticmethod
    def can_stand_for(block: ResnetBlock2D) -> bool:
        """Whether a block is of the usual form: SiLU, an added time embedding, no dropout, the same size in and out."""
        # an autoencoder's decoder calls its norms "group", and has no time embedding
        not_told = block.time_embedding_norm == "group" and block.time_emb_proj is None
        return (
            isinstance(block.nonlinearity, nn.SiLU)
            and (block.time_embedding_norm == "default" or not_told)
            and not block.skip_time_act
            and block.dropout.p == 0
            and block.upsample is None
            and block.downsample is None
            and all(isinstance(norm, ClipGroupNorm) for norm in (block.norm1, block.norm2))
        )

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        """(n c h w) and the time embedding (n d), if it reads one -> (n out_channels h w)."""
        x, shift = unbiased(self.conv1, self.norm1(input_tensor, silu=True))
        if temb is not None and hasattr(self, "time_emb_proj"):
            of_time = self.get_submodule("time_emb_proj")(F.silu(temb))
            shift = of_time if shift is None else of_time + shift
        x, bias = unbiased(self.conv2, self.norm2(x, silu=True, before=shift))
        if hasattr(self, "conv_shortcut"):
            output = add_maps(unbiased(self.get_submodule("conv_shortcut"), input_tensor), (x, bias))
        else:
            output = add_maps((input_tensor, None), (x, bias))
        return output if self.scale == 1 else output / self.scale


class FusedUpsample(nn.Module):
    """diffusers' `Upsample2D` (nearest, then a convolution), under its names, channels_last for large batches too.

    In phases (see `upsampling`) where nobody wants gradients.

    Args:
        layer: whose convolution is taken over; see `can_stand_for`.
    """

    fusing = "never"

    def __init__(self, layer: Upsample2D) -> None:
        super().__init__()
        self.conv = layer.conv
        self.train(layer.training)

    @staticmethod
    def can_stand_for(layer: Upsample2D) -> bool:
        """Whether it only doubles and convolves."""
        plain = layer.interpolate and layer.use_conv and not layer.use_conv_transpose
        return plain and layer.norm is None and layer.name == "conv"

    def forward(self, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """(n c h w) -> (n d 2h 2w), or `output_size`."""
        size = output_size or (2 * hidden_states.shape[2], 2 * hidden_states.shape[3])
        if in_phases(self.conv, hidden_states, size, fusing=self.fusing):
            return doubled(hidden_states, self.conv.weight, self.conv.bias)
        if 4 * hidden_states.numel() >= 2**31:
            hidden_states = hidden_states.contiguous()  # more than the other kernel can count
        return self.conv(F.interpolate(hidden_states, size=size, mode="nearest"))


class PackedEmbedding(nn.Module):
    """diffusers' `ControlNetConditioningEmbedding`, under its names, with its narrow convolutions packed.

    A 3x3 convolution of 8 channels at full size is the same as one of 32 channels at half the size, whose channels are
    the four pixels of a square and whose kernel holds the same weights, each four times, among zeros. It multiplies
    four times as often, which tensor cores can well afford that few channels leave idle (by how much it is faster has
    not been measured yet). SiLU does not care, and the convolution of stride 2 that follows gives the usual layout.

    Args:
        embedding: whose convolutions are taken over.
    """

    fusing = "never"

    def __init__(self, embedding: ControlNetConditioningEmbedding) -> None:
        super().__init__()
        self.conv_in, self.blocks, self.conv_out = embedding.conv_in, embedding.blocks, embedding.conv_out
        device = self.conv_in.weight.device
        for stride in (1, 2):
            taps = packing_taps(stride).to(device)
            self.register_buffer(f"taps_{stride}", taps, persistent=False)
        self.train(embedding.training)

    def forward(self, conditioning: Tensor) -> Tensor:
        """(n k H W) condition pictures -> (n c h w)."""
        x = conditioning
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        layers = [self.conv_in, *self.blocks]
        while layers:
            run = [layers.pop(0)]
            while layers and run[-1].stride == (1, 1):
                run.append(layers.pop(0))
            x = self._packed(x, run) if self._worth_packing(x, run) else self._plain(x, run)
        return self.conv_out(x)

    def _worth_packing(self, x: Tensor, run: list[nn.Conv2d]) -> bool:
        narrow = all(conv.in_channels <= NARROW for conv in run)
        usual = all(
            conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.groups == 1 for conv in run
        )
        even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        allowed = self.fusing == "always" or (self.fusing == "half" and x.is_cuda)
        return allowed and narrow and usual and even and run[-1].stride == (2, 2)

    def _plain(self, x: Tensor, run: list[nn.Conv2d]) -> Tensor:
        for conv in run:
            x, bias = unbiased(conv, x)
            x = F.silu(x) if bias is None else biased(x, bias, fusing=self.fusing, silu=True)
        return x

    def _packed(self, x: Tensor, run: list[nn.Conv2d]) -> Tensor:
        x = packed(x)
        for conv in run:
            stride = conv.stride[0]
            weight = packed_weight(conv.weight, getattr(self, f"taps_{stride}"))
            if x.shape[1] % 8:  # cuDNN's kernels for channels_last want multiples of eight
                missing = -x.shape[1] % 8
                weight = F.pad(weight, (0, 0, 0, 0, 0, missing))
                x = F.pad(x.permute(0, 2, 3, 1), (0, missing)).permute(0, 3, 1, 2)
            x = F.conv2d(x, weight, padding=1)
            if conv.bias is not None:
                bias = conv.bias[:, None].expand(-1, 4).flatten() if stride == 1 else conv.bias
                x = biased(x, bias, fusing=self.fusing, silu=True)
            else:
                x = F.silu(x)
        return x


def packed(x: Tensor) -> Tensor:
    """(n c h w) -> (n 4c h/2 w/2), channels_last; channels as `F.pixel_unshuffle` orders them."""
    squares = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).permute(0, 3, 1, 2)


def packing_taps(stride: int) -> Tensor:
    """Where the nine weights of a 3x3 kernel stand in the packed kernel: (9, a b c d 3 3) zeros and ones.

    (a b) is the output's pixel in its square, 1 x 1 of them for stride 2; (c d) the input's pixel. Along one axis,
    output pixel a of square s reads input pixel 2s + a + tap - 1, which is pixel c of square s + u - 1.
    """
    places = 2 if stride == 1 else 1
    line = torch.zeros(3, places, 2, 3)
    for tap in range(3):
        for place in range(places):
            square, pixel = divmod(place + tap - 1, 2)
            line[tap, place, pixel, square + 1] = 1
    return torch.einsum("kacu,lbdv->klabcduv", line, line).flatten(0, 1)


def packed_weight(weight: Tensor, taps: Tensor) -> Tensor:
    """(o i 3 3) -> (o a b, i c d, 3, 3): sums of one weight and zeros, hence exact whatever the precision."""
    spread = weight.flatten(2) @ taps.flatten(1).to(weight.dtype)
    return spread.unflatten(2, taps.shape[1:]).permute(0, 2, 3, 1, 4, 5, 6, 7).flatten(0, 2).flatten(1, 3)


def fuse(network: nn.Module, fusing: str = "half") -> None:
    """Let a network use the fused kernels, in place.

    Args:
        network: any network of ours or of diffusers.
        fusing: "half": for half precision on CUDA; "always": for float32 too; "never": its own ways, as built.

    Raises:
        OptionError: no such way.
    """
    if fusing not in fused.FUSING:
        raise OptionError("fusing", f"got {fusing!r}, allowed are {', '.join(fused.FUSING)}")
    if fusing != "never":
        for replace in (_replace_layers, _replace_blocks):
            for parent in list(network.modules()):
                replace(parent)
        for module in network.modules():
            if type(module) is Transformer2DModel:
                FusedTransformer.take_place_of(module)
    for module in network.modules():
        if hasattr(type(module), "fusing"):
            module.fusing = fusing  # type: ignore[assignment]


def take_over(made: nn.Module, child: nn.Module) -> nn.Module:
    """Give a module another one's parameters."""
    for key, parameter in child.named_parameters(recurse=False):
        setattr(made, key, parameter)
    return made.train(child.training)


def _replace_layers(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        maker = _MAKERS.get(type(child))
        if maker is not None:
            setattr(parent, name, take_over(maker(child), child))


def _replace_blocks(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if type(child) is ResnetBlock2D and FusedResnet.can_stand_for(child):
            setattr(parent, name, FusedResnet(child))
        elif type(child) is Upsample2D and FusedUpsample.can_stand_for(child):
            setattr(parent, name, FusedUpsample(child))
        elif type(child) is Upsample:
            setattr(parent, name, PhasedUpsample(child))
        elif type(child) is GEGLU:
            setattr(parent, name, FusedGEGLU(child))
        elif type(child) is ControlNetConditioningEmbedding:
            setattr(parent, name, PackedEmbedding(child))
    if isinstance(parent, (Encoder, Decoder)) and isinstance(parent.conv_act, nn.SiLU):
        _join(parent, "conv_norm_out", "conv_act")
    if isinstance(parent, nn.Sequential):
        for number in range(len(parent) - 1):
            if isinstance(parent[number + 1], nn.SiLU):
                _join(parent, str(number), str(number + 1))


def _join(parent: nn.Module, norm: str, activation: str) -> None:
    """Let a group norm do the activation after it."""
    child = getattr(parent, norm)
    if isinstance(child, ClipGroupNorm):
        child.active = True
        setattr(parent, activation, nn.Identity())


def _conv(child: nn.Conv2d) -> nn.Module:
    return FusedConv2d(
        child.in_channels,
        child.out_channels,
        child.kernel_size,  # type: ignore[arg-type]
        child.stride,  # type: ignore[arg-type]
        child.padding,  # type: ignore[arg-type]
        child.dilation,  # type: ignore[arg-type]
        child.groups,
        child.bias is not None,
        child.padding_mode,
        device="meta",
    )


def _linear(child: nn.Linear) -> nn.Module:
    return FusedLinear(child.in_features, child.out_features, child.bias is not None, device="meta")


def _group_norm(child: nn.GroupNorm) -> nn.Module:
    return ClipGroupNorm(child.num_groups, child.num_channels, child.eps, child.affine, device="meta")


def _layer_norm(child: nn.LayerNorm) -> nn.Module:
    shape, affine = child.normalized_shape, child.elementwise_affine
    return TokenNorm(shape, child.eps, affine, child.bias is not None, device="meta")


_MAKERS: dict[type, Callable[[Any], nn.Module]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}
