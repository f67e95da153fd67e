"""Two small networks that read a synthetic person off a picture, to measure whether a video obeys its driver.

`FigureNet` reads the person's mask and 13 joints, `FaceNet` the expression from a crop of the head. They learn from
rendered frames, from the same frames through the autoencoder, and with noise, so that a soft or noisy picture is
judged by what it shows. They are a measure for our own synthetic world only, and say nothing about photographs.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import torch
from torch import nn
from torch.nn import functional

from xdyna.errors import InputError, WeightsError
from xdyna.weights.storage import TensorFile, pack, write_safetensors

JOINTS = (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
"""The judged points of the 18-point body layout: nose, shoulders, elbows, wrists, hips, knees, ankles."""

JUDGED_EXPRESSIONS = ("mouth_open", "smile", "lid", "gaze_x", "gaze_y", "brow", "yaw", "pitch")
"""What `FaceNet` reads, in the order of `data.synthetic.EXPRESSIONS`."""

SIDE = 128
"""Pictures are judged at this size, whatever theirs is."""
HEAD_SIDE = 48
HEAD_REACH = 1.25
"""A head crop spans this many half heights to each side of the head's centre."""
_GRID = SIDE // 4


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        groups = max(1, width // 16)
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class FigureNet(nn.Module):
    """Mask and joints of the person in a picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        dilations = (1, 2, 4, 8, 2, 1)
        self.stem = nn.Conv2d(48, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(width, dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, 16 + len(JOINTS), 3, padding=1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n 3 h w) in [-1, 1] -> mask logits (n 1 128 128), log probabilities of joints' places (n 13 32 32)."""
        if pictures.shape[-2:] != (SIDE, SIDE):
            pictures = functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)
        output = self.head(self.blocks(self.stem(functional.pixel_unshuffle(pictures, 4)))).float()
        places = output[:, 16:].flatten(2).log_softmax(-1).unflatten(2, (_GRID, _GRID))
        return functional.pixel_shuffle(output[:, :16], 4), places


class FaceNet(nn.Module):
    """Expression of a head crop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        channels = width
        for following in (width, 2 * width, 2 * width):
            layers += [nn.SiLU(), nn.Conv2d(channels, following, 3, 2, 1), _Residual(following)]
            channels = following
        self.layers = nn.Sequential(
            *layers, nn.GroupNorm(max(1, channels // 16), channels), nn.SiLU(), nn.Flatten()
        )
        self.read = nn.Sequential(
            nn.Linear(channels * (HEAD_SIDE // 8) ** 2, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, len(JUDGED_EXPRESSIONS)),
        )

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """(n 3 48 48) in [-1, 1] -> (n 8), in the units of `SyntheticBatch.expression`."""
        return self.read(self.layers(crops)).float()


class Judge(nn.Module):
    """Both networks, and their one file."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.figure = FigureNet(width)
        self.face = FaceNet(max(8, width // 2))

    def forward(
        self, pictures: torch.Tensor, head: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            pictures: (n 3 h w) in [-1, 1].
            head: (n 3) centre and half height of the head, in pixels.

        Returns:
            mask logits (n 1 128 128), log probabilities of the joints' places (n 13 32 32) that `expected_joints` turns
            into coordinates, expression (n 8).
        """
        return *self.figure(pictures), self.face(head_crops(pictures, head))

    def save(self, path: str | Path) -> None:
        """Write weights (8 bits, one scale an output channel) and width to one safetensors file."""
        tensors, metadata = pack(self.state_dict(), "int8")
        write_safetensors(
            Path(path), tensors, metadata={**metadata, "judge": json.dumps({"width": self.width})}
        )

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Judge:
        """Read a file written by `save`.

        Raises:
            InputError: no such file, or no judge.
        """
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                width = json.loads((file.metadata() or {})["judge"])["width"]
            stored = TensorFile(Path(path))
            judge = cls(width)
            judge.load_state_dict(dict(stored.tensors(list(stored.shapes), dtype=torch.float32)))
        except WeightsError as error:
            raise InputError(path, error.problem, error.remedy) from error
        except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(
                path, f"is no judge ({error})", "Give the judge.safetensors of a training run"
            ) from error
        return judge.to(device).eval()


def head_crops(pictures: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Square crops around heads.

    Args:
        pictures: (n 3 h w).
        head: (n 3) centre x, y and half height in pixels.

    Returns:
        (n 3 48 48)
    """
    height, width = pictures.shape[-2:]
    line = torch.linspace(-HEAD_REACH, HEAD_REACH, HEAD_SIDE, device=pictures.device)
    reach = head[:, 2].clamp(min=1).view(-1, 1, 1)
    x = head[:, 0].view(-1, 1, 1) + reach * line.view(1, 1, -1)
    y = head[:, 1].view(-1, 1, 1) + reach * line.view(1, -1, 1)
    x, y = torch.broadcast_tensors(2 * x / width - 1, 2 * y / height - 1)
    return functional.grid_sample(
        pictures.float(), torch.stack([x, y], -1), padding_mode="border", align_corners=False
    )


def expected_joints(places: torch.Tensor) -> torch.Tensor:
    """Log probabilities of joints' places (n k g g) -> joints (n k 2) as shares of width and height."""
    heat, line = places.exp(), _cells(places)
    return torch.stack([(heat.sum(2) * line).sum(-1), (heat.sum(3) * line).sum(-1)], -1)


def joint_targets(joints: torch.Tensor, grid: int = _GRID) -> torch.Tensor:
    """Joints (n k 2) as shares -> probabilities of their places (n k grid grid), normal with a spread of one cell."""
    line = (torch.arange(grid, device=joints.device) + 0.5) / grid
    across, down = ((-0.5 * (grid * (line - joints[..., i, None])).square()).softmax(-1) for i in (0, 1))
    return down[..., :, None] * across[..., None, :]


def _cells(places: torch.Tensor) -> torch.Tensor:
    return (torch.arange(places.shape[-1], device=places.device) + 0.5) / places.shape[-1]


def visible_joints(body: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The judged joints' true places, and which of them count.

    Args:
        body: (n 18 3) x, y, score in pixels.
        size: (height, width) in pixels.

    Returns:
        (n 13 2) as shares of width and height; (n 13) float, 1 where the joint is there and inside the picture.
    """
    # no index or constant that would have to be copied to the device: CUDA graphs cannot record that
    joints = torch.stack([body[:, joint] for joint in JOINTS], 1)
    places = torch.stack([joints[..., 0] / size[1], joints[..., 1] / size[0]], -1)
    seen = (joints[..., 2] > 0) & (places > 0.02).all(-1) & (places < 0.98).all(-1)
    return places, seen.float()


def judge_loss(
    judge: nn.Module,
    pictures: torch.Tensor,
    *,
    mask: torch.Tensor,
    body: torch.Tensor,
    head: torch.Tensor,
    expression: torch.Tensor,
    human: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Loss of both networks: mask cross entropy, joints' cross entropy and L1, expressions' squared error.

    The cross entropy teaches where a joint is at all, long before the expected place is near enough for its L1 to.

    Args:
        judge: the networks, or what wraps them.
        pictures: (n 3 h w) in [-1, 1].
        mask: (n 1 h w) in [0, 1].
        body: (n 18 3) in pixels.
        head: (n 3) in pixels.
        expression: (n 8).
        human: (n,) bool; pictures without a person teach the mask only.
    """
    logits, likely, read = judge(pictures, head)
    places, seen = visible_joints(body, (pictures.shape[-2], pictures.shape[-1]))
    there = human.float()
    seen = seen * there[:, None]
    target = functional.interpolate(mask, (SIDE, SIDE), mode="area")
    mask_loss = functional.binary_cross_entropy_with_logits(logits, target)
    count = seen.sum().clamp(min=1)
    place_loss = -((joint_targets(places) * likely).sum((2, 3)) * seen).sum() / count
    joint_loss = ((expected_joints(likely) - places).abs().sum(-1) * seen).sum() / count
    face_loss = ((read - expression).square().mean(-1) * there).sum() / there.sum().clamp(min=1)
    return {
        "loss": mask_loss + 0.1 * place_loss + 3 * joint_loss + face_loss,
        "mask": mask_loss,
        "places": place_loss,
        "joints": joint_loss,
        "expression": face_loss,
    }
