"""AdaFace: an aligned face becomes a unit vector whose cosine with another's tells whether both are one person.

Source: mk-minchul/AdaFace (net.py, inference.py). Which of its backbones X-Dyna's authors measured Face-Cos with
is not known, so both of the published ones are here, and the metric's name tells which.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xdyna.errors import InputError, OptionError
from xdyna.evaluation.published import Layout, adopt, load_published, shapes_of

SIDE = 112
"""Height and width of the aligned faces that it sees."""

FEATURES = 512

BACKBONES = {"ir50": (3, 4, 14, 3), "ir101": (3, 13, 30, 3)}
"""Blocks of each of the four stages."""

_WIDTHS = (64, 128, 256, 512)
_LAYOUT = Layout(wrappers=("state_dict",), prefixes=("model.", ""), ignored=("head.",))


class AdaFaceBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the second one carries the stride."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n inputs h w) -> (n outputs h/stride w/stride)."""
        return self.shortcut_layer(x) + self.res_layer(x)


class AdaFace(nn.Module):
    """The network, in the published parameters' names.

    Args:
        backbone: "ir50" or "ir101".

    Raises:
        OptionError: another backbone.
    """

    def __init__(self, backbone: str = "ir101") -> None:
        if backbone not in BACKBONES:
            raise OptionError("backbone", f"{backbone!r} is unknown", f"Known are {', '.join(BACKBONES)}")
        super().__init__()
        self.backbone = backbone
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        blocks, channels = [], 64
        for width, number in zip(_WIDTHS, BACKBONES[backbone], strict=True):
            for place in range(number):
                blocks.append(AdaFaceBlock(channels, width, stride=1 if place else 2))
                channels = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * (SIDE // 16) ** 2, FEATURES),
            nn.BatchNorm1d(FEATURES, affine=False),
        )

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            crops: (n 3 112 112) float, BGR in [-1, 1].

        Returns:
            unit vectors (n 512), and their lengths before (n), which tell a picture's quality.
        """
        features = self.output_layer(self.body(self.input_layer(crops)))
        length = features.norm(dim=1)
        return functional.normalize(features, dim=1), length


def load_adaface(backbone: str, path: str | Path, *, device: torch.device | str = "cpu") -> AdaFace:
    """AdaFace with the weights of a published `adaface_<backbone>_*.ckpt`.

    Raises:
        WeightsError: no such file, damaged, or another network's.
        OptionError: `backbone` is unknown.
    """
    with torch.device("meta"):
        network = AdaFace(backbone)
    state = load_published(path, shapes_of(network), layout=_LAYOUT)
    adopt(network, state, device=str(device))
    return network


def face_tensor(crops: np.ndarray) -> Tensor:
    """Aligned faces as the network wants them.

    Args:
        crops: (n 112 112 3) uint8 RGB.

    Returns:
        (n 3 112 112) float32, BGR in [-1, 1].

    Raises:
        InputError: another shape or type.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (SIDE, SIDE, 3):
        shape = "x".join(map(str, crops.shape))
        raise InputError(
            "aligned faces", f"{shape} {crops.dtype}, not (n {SIDE} {SIDE} 3) uint8", "Align them first"
        )
    scaled = (crops[..., ::-1] / 255 - 0.5) / 0.5
    return torch.from_numpy(np.ascontiguousarray(scaled.astype(np.float32).transpose(0, 3, 1, 2)))


@torch.no_grad()
def embed_faces(network: AdaFace, crops: np.ndarray, *, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Identity of aligned faces.

    Args:
        network: with its weights; its device is used.
        crops: (n 112 112 3) uint8 RGB.
        batch: faces that go through the network at once.

    Returns:
        unit vectors (n 512) float32, and their lengths before (n) float32.

    Raises:
        InputError: the crops have another shape or type.
    """
    faces = face_tensor(crops)
    device = network.output_layer[3].weight.device
    vectors, lengths = [np.zeros((0, FEATURES), np.float32)], [np.zeros(0, np.float32)]
    for some in faces.split(batch) if len(faces) else ():
        vector, length = network(some.to(device))
        vectors.append(vector.float().cpu().numpy())
        lengths.append(length.float().cpu().numpy())
    return np.concatenate(vectors), np.concatenate(lengths)
