"""LPIPS: the distance of two pictures in the features of a trained network, weighted by people's judgement.

Two backbones (`vgg`: VGG16, `alex`: AlexNet) of LPIPS 0.1, and the two of its shift-tolerant sister ST-LPIPS
(`st-vgg`, `st-alex`), whose weights travel in a package and which is another metric: its numbers are not LPIPS's.

Source: richzhang/PerceptualSimilarity (lpips 0.1.4), abhijay9/ShiftTolerant-LPIPS; DisCo feeds pictures in [0, 1]
where the library expects [-1, 1] (`value_range` "unit", the papers' tables) against "signed", what its authors meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.frame_scores import FrameScores
from xdyna.evaluation.packaged import find_file
from xdyna.evaluation.pictures import as_clip_pair, as_mask
from xdyna.evaluation.pixel import MASK_MODES
from xdyna.evaluation.published import Layout, load_published

VALUE_RANGES = ("unit", "signed")
BACKBONES = ("vgg", "alex", "st-vgg", "st-alex")

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_SMALLEST = 1e-10
_WIDTHS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
_FILES = {
    "vgg": ("lpips_vgg16", "lpips_vgg16_lin"),
    "alex": ("lpips_alexnet", "lpips_alexnet_lin"),
    "st-vgg": ("st_lpips_vgg",),
    "st-alex": ("st_lpips_alex",),
}
_VGG_DEPTHS = (2, 2, 3, 3, 3)


class BlurPool(nn.Module):
    """Halves height and width behind a fixed 3x3 binomial filter that reaches 2 pixels beyond, reflected."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (torch.outer(line, line) / 16).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n c h w) -> (n c h/2+1 w/2+1)."""
        return functional.conv2d(
            functional.pad(x, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=x.shape[1]
        )


def _vgg(tolerant: bool) -> tuple[list[nn.Module], list[int]]:
    """Layers of VGG16 up to relu5_3, and after which of them a feature map is taken."""
    layers: list[nn.Module] = []
    taps, channels = [], 3
    for width, depth in zip(_WIDTHS["vgg"], _VGG_DEPTHS, strict=True):
        if layers:
            layers += [nn.MaxPool2d(2, 1), BlurPool(channels)] if tolerant else [nn.MaxPool2d(2, 2)]
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps.append(len(layers))
    return layers, taps


def _alex(tolerant: bool) -> tuple[list[nn.Module], list[int]]:
    """Layers of AlexNet up to relu5, as `_vgg`; the tolerant one blurs where the plain one strides."""
    first: list[nn.Module] = (
        [nn.Conv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU()]
        if tolerant
        else [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()]
    )

    def pool(channels: int) -> list[nn.Module]:
        return [nn.MaxPool2d(3, 1), BlurPool(channels)] if tolerant else [nn.MaxPool2d(3, 2)]

    stages = [
        first,
        [*pool(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [*pool(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]
    taps = np.cumsum([len(stage) for stage in stages]).tolist()
    return [layer for stage in stages for layer in stage], taps


class Lpips(nn.Module):
    """A backbone, cut into five slices, and the weights of its channels.

    Parameters are named `features.N` as in torchvision's networks (for ST-LPIPS as its authors count) and
    `lins.K`, (c), the weight of each channel.

    Args:
        backbone: one of `BACKBONES`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: str = "vgg") -> None:
        if backbone not in BACKBONES:
            raise OptionError("backbone", f"{backbone!r} is unknown", f"Known are {', '.join(BACKBONES)}")
        super().__init__()
        self.backbone = backbone
        family = backbone.removeprefix("st-")
        make = _vgg if family == "vgg" else _alex
        layers, taps = make(backbone.startswith("st-"))
        self.features = nn.ModuleList(layers)
        self._taps = [0, *taps]
        self.lins = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in _WIDTHS[family])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    def published_name(self, name: str) -> str:
        """The name in ST-LPIPS's file of `features.N.*`: its slices count on from one to the next."""
        number = int(name.split(".")[1])
        piece = next(k for k, end in enumerate(self._taps) if number < end)
        return name.replace("features.", f"net.slice{piece}.")

    @property
    def smallest_side(self) -> int:
        """The fewest pixels a picture may have along an axis, so that every layer has something to see."""
        return {"vgg": 16, "alex": 31, "st-vgg": 18, "st-alex": 21}[self.backbone]

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Distances of two batches at each place of five feature maps.

        Args:
            a, b: (n 3 h w) RGB, float; [-1, 1] as meant by the authors, [0, 1] as DisCo feeds it.

        Returns:
            five (n h' w'), from fine to coarse. LPIPS is the sum of their means over h' and w'.
        """
        maps = []
        x = torch.cat([(a - self.shift) / self.scale, (b - self.shift) / self.scale])
        for (start, end), weight in zip(pairwise(self._taps), self.lins, strict=True):
            for layer in self.features[start:end]:
                x = layer(x)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + _SMALLEST)
            first, second = unit.chunk(2)
            maps.append(torch.einsum("nchw,c->nhw", (first - second).square(), weight))
        return maps


def load_lpips(
    backbone: str,
    trunk: str | Path,
    heads: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Lpips:
    """LPIPS with its published weights.

    Args:
        backbone: one of `BACKBONES`.
        trunk: torchvision's `vgg16-397923af.pth` or `alexnet-owt-7be5be79.pth`; for ST-LPIPS its one file
            `vgg_shift_tolerant.pth` or `alex_shift_tolerant.pth`.
        heads: lpips 0.1's `vgg.pth` or `alex.pth`; None for ST-LPIPS, whose file holds them.
        device: where the network goes.

    Raises:
        WeightsError: a file is missing, broken, or another network's.
        OptionError: `backbone` is unknown, or the files given are not those it takes.
    """
    tolerant = backbone.startswith("st-")
    with torch.device("meta"):
        network = Lpips(backbone)
    if tolerant == (heads is not None):
        takes = "one file, which holds its heads" if tolerant else "two files: the backbone's and the heads'"
        raise OptionError("LPIPS files", f"{backbone} takes {takes}")
    wanted = {f"lin{k}.model.1.weight": (1, len(lin), 1, 1) for k, lin in enumerate(network.lins)}
    trunk_shapes = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if name.startswith("features.")
    }
    if tolerant:
        renamed = {name: network.published_name(name) for name in trunk_shapes}
        expected = {renamed[name]: shape for name, shape in trunk_shapes.items()}
        layout = Layout(prefixes=("",), ignored=("scaling_layer.",))
        state = load_published(trunk, {**expected, **wanted}, layout=layout)
        found = {name: state[published] for name, published in renamed.items()}
    else:
        layout = Layout(prefixes=("", "module."), ignored=("classifier.",))
        found = load_published(trunk, trunk_shapes, layout=layout)
        state = load_published(str(heads), wanted, layout=Layout(prefixes=("",)))
    found |= {f"lins.{k}": state[name].flatten() for k, name in enumerate(wanted)}
    network.load_state_dict(found, strict=True, assign=True)
    network.shift, network.scale = (torch.tensor(c).view(3, 1, 1) for c in (_SHIFT, _SCALE))
    return network.requires_grad_(False).eval().to(device)


def find_lpips(
    backbone: str, *, folder: str | Path | None = None, device: torch.device | str = "cpu"
) -> Lpips:
    """LPIPS with the files that are on this machine, see `find_file`; errors as `load_lpips`.

    Raises:
        MissingWeights: a file is not here.
    """
    if backbone not in BACKBONES:
        raise OptionError("backbone", f"{backbone!r} is unknown", f"Known are {', '.join(BACKBONES)}")
    names = _FILES[backbone]
    return load_lpips(backbone, *(find_file(name, folder=folder) for name in names), device=device)


def lpips_name(backbone: str, value_range: str) -> str:
    """The metric's full name: `lpips[vgg,unit]` ..."""
    return f"lpips[{backbone},{value_range}]"


@torch.no_grad()
def lpips_clip(
    network: Lpips,
    generated: np.ndarray | Sequence[np.ndarray],
    truth: np.ndarray | Sequence[np.ndarray],
    *,
    value_range: str = "unit",
    masks: Sequence[np.ndarray] | np.ndarray | None = None,
    mode: str = "fill",
    part: str = "",
    batch: int = 4,
) -> FrameScores:
    """LPIPS of each frame of a clip, 0 for equal pictures.

    Args:
        network: with its weights; its device is used.
        generated: (f h w 3) uint8 RGB or a list of frames; resized to the truth's size as by `as_pair`.
        truth: as many frames.
        value_range: "unit" feeds [0, 1] (DisCo's tables), "signed" [-1, 1] (the library's documentation).
        masks: (f h w) bool or uint8, or a list: what counts in each frame.
        mode: "fill" paints the rest black in both pictures; "mean" takes the mean of the distance over the mask,
            feature maps being enlarged to the picture bilinearly (the library's `spatial`).
        part: what the masks hold; it goes into the name.
        batch: pairs of frames that go through the network at once, where sizes are equal.

    Raises:
        InputError: clips or masks are not equally long, or a frame is too small for the network.
        OptionError: `value_range` or `mode` is unknown.
    """
    if value_range not in VALUE_RANGES:
        raise OptionError(
            "value range", f"{value_range!r} is unknown", f"Known are {', '.join(VALUE_RANGES)}"
        )
    if mode not in MASK_MODES:
        raise OptionError("mask mode", f"{mode!r} is unknown", f"Known are {', '.join(MASK_MODES)}")
    pairs = as_clip_pair(generated, truth)
    insides = _insides(masks, pairs)
    for number, (_, picture) in enumerate(pairs):
        height, width = picture.shape[:2]
        if min(height, width) < network.smallest_side:
            least = network.smallest_side
            raise InputError(
                f"frame {number}",
                f"is {height}x{width}, and LPIPS by {network.backbone} needs {least}x{least}",
                "Give larger pictures",
            )
    if masks is not None and mode == "fill":
        pairs = [_blackened(pair, inside) for pair, inside in zip(pairs, insides, strict=True)]
    values: list[float | None] = [None] * len(pairs)
    judged = [n for n, inside in enumerate(insides) if inside is None or inside.any()]
    for some in _batches(judged, pairs, batch):
        first, second = (_tensor([pairs[n][k] for n in some], network, value_range) for k in (0, 1))
        maps = network(first, second)
        if masks is None or mode == "fill":
            measured = torch.stack([m.mean((1, 2)).double() for m in maps]).sum(0).tolist()
        else:
            size = (first.shape[2], first.shape[3])
            enlarged = [functional.interpolate(m[:, None], size, mode="bilinear")[:, 0] for m in maps]
            full = torch.stack(enlarged).double().sum(0).cpu().numpy()
            measured = [float(place[insides[n]].mean()) for n, place in zip(some, full, strict=True)]
        for n, value in zip(some, measured, strict=True):
            values[n] = value
    name = lpips_name(network.backbone, value_range)
    masked = {} if masks is None else {"mask": part or "given", "mask_mode": mode}
    if masks is not None:
        name = f"{name[:-1]},{part or 'masked'},{mode}]"
    sizes = sorted({f"{picture.shape[0]}x{picture.shape[1]}" for _, picture in pairs})
    return FrameScores.of(name, values, size=sizes, range=value_range, **masked)


def _insides(
    masks: Sequence[np.ndarray] | np.ndarray | None, pairs: list[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray | None]:
    if masks is None:
        return [None] * len(pairs)
    if len(masks) != len(pairs):
        raise InputError("masks", f"{len(masks)} of them for {len(pairs)} frames", "Give one for each frame")
    return [
        as_mask(mask, (truth.shape[0], truth.shape[1])) for mask, (_, truth) in zip(masks, pairs, strict=True)
    ]


def _blackened(
    pair: tuple[np.ndarray, np.ndarray], inside: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    return pair if inside is None else (pair[0] * inside[..., None], pair[1] * inside[..., None])


def _batches(numbers: list[int], pairs: list[tuple[np.ndarray, np.ndarray]], batch: int) -> list[list[int]]:
    """Consecutive frames of one size, at most `batch` together."""
    groups: list[list[int]] = []
    for n in numbers:
        fits = groups and len(groups[-1]) < batch and pairs[groups[-1][0]][1].shape == pairs[n][1].shape
        if fits:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def _tensor(pictures: list[np.ndarray], network: Lpips, value_range: str) -> Tensor:
    """(n 3 h w) float on the network's device, in [0, 1] or [-1, 1]."""
    weight = network.lins[0]
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(weight.device, weight.dtype) / 255
    return stacked * 2 - 1 if value_range == "signed" else stacked
