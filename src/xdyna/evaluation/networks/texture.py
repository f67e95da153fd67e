"""A small network that sees dynamic textures, trained by us on the synthetic world: the ruler of `dtfvd[synth]`.

The published DTFVD stands on a video network trained on filmed dynamic textures, whose file nobody may pass on. This
one stands in under a name of its own, works offline, and its numbers compare with its own numbers only.

What it sees: 16 frames of 64 px, i.e. two seconds at the 8 frames a second of the synthetic world. It was taught which
of 32 scenes a clip shows (26 that move, 6 that do not), or that it shows a person alone; whether the clip plays, stands
still or has its frames out of order; and how much changes from frame to frame. So its features tell appearance from
appearance, motion from stillness, and order from disorder. It was not taught people's poses, faces or hands, and
details finer than a 64th of the picture are lost on it. `training.texture` trains it; docs/evaluation-texture.md has
what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.weights.keys import check_keys

ASSET = Path(__file__).parents[2] / "assets" / "texture.safetensors"
FRAMES = 16
SIDE = 64
WIDTH = 96
"""Length of the features."""

SCENE_KINDS = (
    "wall", "land", "water", "fire", "clouds", "grass", "snow", "lights", "falls", "leaves", "room", "street",
    "shelf", "photo", "river", "surf", "fountain", "rain", "puddles", "underwater", "campfire", "candles",
    "fireworks", "smoke", "aurora", "dust", "flowers", "traffic", "neon", "flags", "curtain", "train",
)  # fmt: skip
"""Names and order of `xdyna.data.synthetic.SCENES`; a test holds them together."""
KINDS = (*SCENE_KINDS, "person")
"""What a clip shows; "person" where everything but the person is masked out."""
TEMPOS = ("still", "plays", "shuffled")
"""How a clip runs."""

Part = Literal["all", "fg", "bg"]
PARTS: tuple[Part, ...] = ("all", "fg", "bg")


class TextureReading(NamedTuple):
    """What the network says about b clips.

    Attributes:
        features: (b 96), at least 0: what Frechet distances are taken on.
        kinds: (b 33) logits over `KINDS`.
        tempos: (b 3) logits over `TEMPOS`.
        energy: (b,) log10(0.001 + e) + 2, e the mean absolute change from frame to frame of values in [0, 1].
    """

    features: Tensor
    kinds: Tensor
    tempos: Tensor
    energy: Tensor


class _Layer(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, given: int, made: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
    ) -> None:
        # patches of four lie side by side; kernels of three reach over the border
        around = int(kernel[1] == 3)
        padding = (int(kernel[0] == 3), around, around)
        super().__init__(
            nn.Conv3d(given, made, kernel, stride, padding, bias=False), nn.BatchNorm3d(made), nn.ReLU()
        )


class _Residual(nn.Module):
    """A layer in space, then one in time, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = _Layer(width, width, (1, 3, 3), (1, 1, 1))
        self.time = _Layer(width, width, (3, 1, 1), (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.time(self.space(x))


class TextureNet(nn.Module):
    """(2+1)D convolutions over pictures and their changes, averaged over time and space.

    Its first layer sees six channels: the picture, and its difference from the frame before.
    """

    def __init__(self) -> None:
        super().__init__()
        half, slow = (1, 2, 2), (2, 1, 1)
        self.layers = nn.Sequential(
            _Layer(6, 40, (1, 4, 4), (1, 4, 4)),
            _Layer(40, 48, (3, 1, 1), slow),
            _Layer(48, 64, (1, 3, 3), half),
            _Residual(64),
            _Layer(64, WIDTH, (1, 3, 3), half),
            _Layer(WIDTH, WIDTH, (3, 1, 1), slow),
            _Residual(WIDTH),
            _Residual(WIDTH),
        )
        # differences are small beside pictures; nothing but the start of training changes with this
        with torch.no_grad():
            next(self.layers.parameters())[:, 3:].mul_(4)
        self.drop = nn.Dropout(0.1)
        self.kinds = nn.Linear(WIDTH, len(KINDS))
        self.tempos = nn.Linear(WIDTH, len(TEMPOS))
        self.energy = nn.Linear(WIDTH, 1)

    def forward(self, clips: Tensor) -> TextureReading:
        """(b 3 16 64 64) float in [0, 1] -> what it says about them."""
        features = self.layers(_with_changes(clips)).float().mean((2, 3, 4))
        kept = self.drop(features)
        return TextureReading(features, self.kinds(kept), self.tempos(kept), self.energy(kept)[:, 0])


def _with_changes(clips: Tensor) -> Tensor:
    """(b 6 f h w) clips (b 3 f h w) and their differences from the frame before, 0 at the first one.

    Channels lie last in memory: convolutions on the CPU take half the time.
    """
    device = clips.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else clips.dtype
    last = clips.permute(0, 2, 3, 4, 1)
    seen = torch.empty((*last.shape[:4], 6), dtype=dtype, device=clips.device)
    seen[..., :3] = last
    seen[:, 0, ..., 3:] = 0
    seen[:, 1:, ..., 3:] = last[:, 1:] - last[:, :-1]
    return seen.permute(0, 4, 1, 2, 3)


def change_of(clips: Tensor) -> Tensor:
    """(b,) what `TextureReading.energy` should say about clips (b 3 f h w) in [0, 1]."""
    return torch.log10(1e-3 + clips.diff(dim=2).abs().mean((1, 2, 3, 4))) + 2


def save_texture_net(net: TextureNet, path: str | Path, *, about: dict[str, object]) -> None:
    """Write the weights in half precision, with what they were trained on as the file's metadata."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in net.state_dict().items()
    }
    save_file(tensors, str(path), metadata={"texture": json.dumps({"kinds": list(KINDS), **about})})


def load_texture_net(path: str | Path = ASSET, *, device: str | torch.device = "cpu") -> TextureNet:
    """Read a file of `save_texture_net`, strictly.

    Raises:
        WeightsError: no such file, something else in it, keys or shapes that differ, or classes in another order.
    """
    remedy = "Reinstall xdyna, or train one: python -m xdyna.training.texture -o FILE"
    if not Path(path).is_file():
        raise WeightsError(path, "there is no such file", remedy)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("texture", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(path, f"is no safetensors file ({error})", remedy) from error
    net = TextureNet()
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    check_keys(path, expected, {name: tuple(value.shape) for name, value in weights.items()})
    if not isinstance(about, dict) or about.get("kinds") != list(KINDS):
        raise WeightsError(path, "was trained on other classes than this version's", remedy)
    net.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    )
    return net.to(device).eval()


@cache
def _shipped(device: str) -> TextureNet:
    return load_texture_net(device=device)


def sixteen(count: int) -> list[int]:
    """Which frames of a clip stand for its sixteen: a shorter clip is played forth and back, again and again.

    (One frame is a clip that stands still; 5 frames are 0 1 2 3 4 3 2 1 0 1 2 ...: changes keep their size.)

    Raises:
        InputError: no frame, or more than sixteen.
    """
    if not 1 <= count <= FRAMES:
        raise InputError(
            "clip", f"it has {count} frames, the texture network takes 1 to {FRAMES}",
            f"Cut longer clips into windows of {FRAMES} frames, one row of features each",
        )  # fmt: skip
    cycle = [*range(count), *range(count - 2, 0, -1)]
    return [cycle[place % len(cycle)] for place in range(FRAMES)]


def prepare_clip(frames: np.ndarray, *, mask: np.ndarray | None = None, part: Part = "all") -> Tensor:
    """One clip as the network takes it.

    Args:
        frames: (f h w 3) uint8, 1 to 16 frames of any size; pictures that are not square are squeezed to a square.
        mask: (f h w) or (f h w 1): where the person is: bool, uint8 (from 128 on) or float (from 0.5 on).
        part: "fg" keeps the person, "bg" the rest; what is left out is 0 (black).

    Returns:
        (3 16 64 64) float in [0, 1], resized with antialiasing.

    Raises:
        InputError: wrong shapes or types, or no mask where one is needed.
        OptionError: an unknown part.
    """
    if part not in PARTS:
        raise OptionError("part", f"{part!r} is unknown", f"Allowed are {', '.join(PARTS)}")
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(
            "clip", f"got {frames.dtype} of shape {frames.shape}", "Give (f h w 3) uint8 frames, one at least"
        )
    order = sixteen(len(frames))
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if part != "all":
        person = _person(mask, frames.shape[:3])
        clip = clip * (person if part == "fg" else ~person)[:, None]
    if clip.shape[-2:] != (SIDE, SIDE):
        clip = functional.interpolate(clip, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    return clip[order].transpose(0, 1)


def _person(mask: np.ndarray | None, shape: tuple[int, ...]) -> Tensor:
    """A mask (f h w) as bool."""
    if mask is None:
        raise InputError(
            "masks", "none were given, foreground and background need them", "Give (f h w) masks"
        )
    mask = np.asarray(mask)
    if mask.ndim == 4 and mask.shape[3] == 1:
        mask = mask[..., 0]
    if mask.shape != shape:
        raise InputError("masks", f"shape {mask.shape} does not go with frames {shape}", "Give (f h w) masks")
    if mask.dtype == np.bool_:
        return torch.from_numpy(np.ascontiguousarray(mask))
    if mask.dtype == np.uint8:
        return torch.from_numpy(mask >= 128)
    if not np.issubdtype(mask.dtype, np.floating) or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError(
            "masks", f"{mask.dtype} or values not allowed", "Give bool, uint8 in 0..255 or float in [0, 1]"
        )
    return torch.from_numpy(mask >= 0.5)


@torch.no_grad()
def read_clips(
    clips: Iterable[np.ndarray],
    *,
    masks: Iterable[np.ndarray] | None = None,
    part: Part = "all",
    net: TextureNet | None = None,
    device: str | torch.device = "cpu",
    batch: int = 16,
) -> Iterator[TextureReading]:
    """What the network says about clips, a batch at a time.

    Args:
        clips: (n f h w 3) uint8, or an iterable of (f h w 3) clips of any sizes and lengths; see `prepare_clip`.
        masks: as many (f h w) masks; needed for "fg" and "bg", not looked at for "all".
        part: what of a clip is kept.
        net: another network than the shipped one; it runs where `device` says.
        device: "cpu" or "cuda".
        batch: how many clips at once.

    Raises:
        InputError, OptionError: see `prepare_clip`; also masks and clips that differ in number, or a batch below 1.
        WeightsError: the shipped file is missing or spoiled.
    """
    if batch < 1:
        raise OptionError("batch", f"{batch} is below 1")
    device = torch.device(device)
    net = _shipped(str(device)) if net is None else net.to(device).eval()
    ready: list[Tensor] = []
    for clip, mask in _pairs(clips, masks if part != "all" else None):
        ready.append(prepare_clip(clip, mask=mask, part=part))
        if len(ready) == batch:
            yield net(torch.stack(ready).to(device))
            ready = []
    if ready:
        yield net(torch.stack(ready).to(device))


def texture_features(
    clips: Iterable[np.ndarray],
    *,
    masks: Iterable[np.ndarray] | None = None,
    part: Part = "all",
    net: TextureNet | None = None,
    device: str | torch.device = "cpu",
    batch: int = 16,
) -> np.ndarray:
    """Features (n 96) float64 of n clips, for the Frechet distance; arguments and errors as of `read_clips`."""
    rows = [
        reading.features.cpu().double().numpy()
        for reading in read_clips(clips, masks=masks, part=part, net=net, device=device, batch=batch)
    ]
    return np.concatenate(rows) if rows else np.zeros((0, WIDTH))


def _pairs(
    clips: Iterable[np.ndarray], masks: Iterable[np.ndarray] | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    if masks is None:
        yield from ((clip, None) for clip in clips)
        return
    ours, theirs = iter(clips), iter(masks)
    done = 0
    while True:
        clip, mask = next(ours, None), next(theirs, None)
        if clip is None and mask is None:
            return
        if clip is None or mask is None:
            problem = (
                f"there are {'more' if clip is None else 'fewer'} than clips (number {done} has no partner)"
            )
            raise InputError("masks", problem, "Give one mask clip for each clip")
        yield clip, mask
        done += 1
