"""MTCNN's three networks, in the published parameters' names; `MtcnnDetector` puts them together.

Source: mk-minchul/AdaFace face_alignment/mtcnn_pytorch/src/get_nets.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xdyna.errors import OptionError
from xdyna.evaluation.published import Layout, adopt, fitted, read_published, shapes_of

SOFTMAXES = ("class", "adaface")
"""Over what the first network's scores are made shares: its two classes, or as AdaFace's copy does by mistake,
the width of the picture."""

NAMES = ("pnet", "rnet", "onet")


class ProposalNet(nn.Module):
    """P-Net: every 12x12 pixel cell of a picture, 2 pixels apart.

    Args:
        softmax: one of `SOFTMAXES`.

    Raises:
        OptionError: another one.
    """

    def __init__(self, softmax: str = "class") -> None:
        if softmax not in SOFTMAXES:
            raise OptionError("softmax", f"{softmax!r} is unknown", f"Known are {', '.join(SOFTMAXES)}")
        super().__init__()
        self.softmax = softmax
        self.features = _layers([(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)])
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n 3 h w), see `mtcnn_tensor` -> box offsets (n 4 h' w'), shares of no face and face (n 2 h' w')."""
        offsets, logits = self.logits(pictures)
        return offsets, logits.softmax(1 if self.softmax == "class" else -1)

    def logits(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, before the softmax."""
        x = self.features(pictures)
        return self.conv4_2(x), self.conv4_1(x)


class RefinementNet(nn.Module):
    """R-Net: is this 24x24 picture a face, and how must the box move?"""

    def __init__(self) -> None:
        super().__init__()
        self.features = _layers([(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], dense=(576, 128))
        self.conv5_1 = nn.Linear(128, 2)
        self.conv5_2 = nn.Linear(128, 4)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n 3 24 24) -> box offsets (n 4), shares of no face and face (n 2)."""
        x = self.features(pictures)
        return self.conv5_2(x), self.conv5_1(x).softmax(1)


class OutputNet(nn.Module):
    """O-Net: the last word on a 48x48 picture, with five points."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)]
        self.features = _layers(convolutions, dense=(1152, 256), dropout=0.25)
        self.conv6_1 = nn.Linear(256, 2)
        self.conv6_2 = nn.Linear(256, 4)
        self.conv6_3 = nn.Linear(256, 10)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n 3 48 48) -> points (n 10), five x and five y as shares of the box, offsets (n 4), shares (n 2)."""
        x = self.features(pictures)
        return self.conv6_3(x), self.conv6_2(x), self.conv6_1(x).softmax(1)


@dataclass(frozen=True)
class Mtcnn:
    """The three networks."""

    pnet: ProposalNet
    rnet: RefinementNet
    onet: OutputNet


def load_mtcnn(
    pnet: str | Path,
    rnet: str | Path,
    onet: str | Path,
    *,
    softmax: str = "class",
    device: torch.device | str = "cpu",
) -> Mtcnn:
    """MTCNN with its published weights.

    Args:
        pnet, rnet, onet: `pnet.npy` ... of AdaFace's face_alignment/mtcnn_pytorch/src/weights, or `pnet.pt` ... of
            the package facenet-pytorch, which hold the same numbers in another order.
        softmax: see `SOFTMAXES`.
        device: where the networks go.

    Raises:
        WeightsError: a file is missing, damaged, or another network's.
        OptionError: `softmax` is unknown.
    """
    networks = (ProposalNet(softmax), RefinementNet(), OutputNet())
    layout = Layout(prefixes=("",))
    for network, path in zip(networks, (pnet, rnet, onet), strict=True):
        tensors = read_published(path, layout=layout)
        if "conv1.weight" in tensors:
            tensors = _from_facenet(tensors)
        state = fitted(path, tensors, shapes_of(network), layout=layout)
        adopt(network, state, device=str(device))
    return Mtcnn(*networks)


def _from_facenet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """facenet-pytorch's names and order as AdaFace's: its dense layers read width, height, channels."""
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if layer in ("dense4", "dense5") and leaf == "weight" and tensor.shape[1] % 9 == 0:
            by_place = tensor.unflatten(1, (3, 3, -1))
            tensor = by_place.permute(0, 3, 1, 2).flatten(1)
        layer = layer.replace("dense", "conv")
        renamed[f"{layer if '_' in layer else f'features.{layer}'}.{leaf}"] = tensor
    return renamed


def mtcnn_tensor(pictures: np.ndarray) -> Tensor:
    """(n h w 3) uint8 RGB as the networks want them: (n 3 h w) float32, 0 to 255 brought to about -1 to 1."""
    scaled = (pictures.astype(np.float32) - 127.5) * 0.0078125
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


class _FlattenByColumns(nn.Module):
    """(n c h w) -> (n c*w*h): the weights were trained elsewhere on arrays that lie column by column."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3).flatten(1)


def _layers(
    convolutions: list[tuple[int, int, int, int]],
    *,
    dense: tuple[int, int] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Convolutions (inputs, outputs, kernel, the pool's kernel or 0), each with PReLU; a dense layer at the end."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs, kernel, pool) in enumerate(convolutions, 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel)
        layers[f"prelu{number}"] = nn.PReLU(outputs)
        if pool:
            layers[f"pool{number}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
    if dense:
        number = len(convolutions) + 1
        layers["flatten"] = _FlattenByColumns()
        layers[f"conv{number}"] = nn.Linear(*dense)
        layers[f"drop{number}"] = nn.Dropout(dropout)
        layers[f"prelu{number}"] = nn.PReLU(dense[1])
    return nn.Sequential(layers)
