"""I3D: Inception stretched into time, for FVD (Kinetics-400) and DTFVD (18 classes of dynamic textures).

Names and layout of the PyTorch port that all public FVD codes carry (evaluation.md, appendix A). Convolutions and
pools pad as TensorFlow's "SAME" does: by the size that comes in, the smaller half in front.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdyna.errors import InputError

FEATURES = 1024

_BLOCKS: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Name -> channels in, and widths of the units b0, b1a, b1b, b2a, b2b, b3b."""


class I3D(nn.Module):
    """The network with its pool and class layer; no dropout, since it is only ever evaluated.

    Args:
        classes: outputs of the class layer: 400 (Kinetics) or 18 (dynamic textures).
        eps: what batch norms add to variances: 1e-3 in DisCo's copy, 1e-5 in those of cd-FVD, TATS and DTFVD.
        pool_frames: steps in time that the average pool spans: 1 (DisCo), 2 (cd-FVD, TATS, DTFVD at 16 frames)
            or 4 (DTFVD at 32).
    """

    def __init__(self, classes: int = 400, *, eps: float = 1e-3, pool_frames: int = 1) -> None:
        super().__init__()
        self.pool_frames = pool_frames
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, eps=eps, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1, eps=eps)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3, eps=eps)
        for name, (inputs, widths) in _BLOCKS.items():
            self.add_module(name, Mixed(inputs, widths, eps=eps))
        self.logits = ClassLayer(classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores, averaged over time.

        Args:
            clips: (b 3 t 224 224) in [-1, 1], RGB.

        Returns:
            (b classes).

        Raises:
            InputError: as `pooled`.
        """
        return self.logits(self.pooled(clips))

    def pooled(self, clips: Tensor) -> Tensor:
        """What the class layer reads.

        Args:
            clips: (b 3 t 224 224) in [-1, 1], RGB.

        Returns:
            (b 1024 t'): t' = ceil(t / 8) - pool_frames + 1.

        Raises:
            InputError: too few frames or too small frames for the pool.
        """
        x = self.Conv3d_1a_7x7(clips)
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(_pool(x, (1, 3, 3), (1, 2, 2))))
        x = self._mixed(_pool(x, (1, 3, 3), (1, 2, 2)), "Mixed_3")
        x = self._mixed(_pool(x, (3, 3, 3), (2, 2, 2)), "Mixed_4")
        x = self._mixed(_pool(x, (2, 2, 2), (2, 2, 2)), "Mixed_5")
        if x.shape[2] < self.pool_frames or min(x.shape[3:]) < 7:
            raise InputError(
                "clip",
                f"{clips.shape[2]} frames of {clips.shape[3]}x{clips.shape[4]} are too few or too small",
                f"I3D needs more than {8 * (self.pool_frames - 1)} frames of at least 193x193",
            )
        pooled = F.avg_pool3d(x, (self.pool_frames, 7, 7), stride=1)
        return pooled.mean(dim=(3, 4))

    def _mixed(self, x: Tensor, start: str) -> Tensor:
        for name in _BLOCKS:
            if name.startswith(start):
                x = self.get_submodule(name)(x)
        return x


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, eps: float, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(b inputs t h w) -> (b outputs t' h' w')."""
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        return F.relu(self.bn(self.conv3d(_padded(x, kernel, stride))))


class Mixed(nn.Module):
    """1x1x1, two 3x3x3 and a pooled branch side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int], *, eps: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(inputs, b0, 1, eps=eps)
        self.b1a = Unit(inputs, b1a, 1, eps=eps)
        self.b1b = Unit(b1a, b1b, 3, eps=eps)
        self.b2a = Unit(inputs, b2a, 1, eps=eps)
        self.b2b = Unit(b2a, b2b, 3, eps=eps)
        self.b3b = Unit(inputs, b3b, 1, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(b inputs t h w) -> (b b0+b1b+b2b+b3b t h w)."""
        pooled = self.b3b(_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


class ClassLayer(nn.Module):
    """A 1x1x1 convolution with bias, averaged over time."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(FEATURES, classes, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(b 1024 t) -> (b classes)."""
        return self.conv3d(pooled[:, :, :, None, None]).mean(dim=(2, 3, 4))


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(_padded(x, kernel, stride), kernel, stride)


def _padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around the last three axes so that the result has ceil(size / stride) steps."""
    padding: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (size % s or s), 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding) if any(padding) else x
