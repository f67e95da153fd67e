"""Control signals: condition pictures to tensors, and ControlNet residuals once a frame and step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from xdyna.models import run_controlnet
from xdyna.windows import runs

PIXELS_AT_ONCE = 1 << 17
"""Places of latent maps (17 frames of 896x512 have 121,856) in one pass of the denoiser: it bounds the memory. Guidance
halves go in several passes above it; results differ by rounding at most."""
CONTROLLED_AT_ONCE = 1 << 16
"""The same for the frames of a ControlNet, whose layers hold more (8 frames of 896x512 have 57,344 places). With
recordings, the 12 new frames of a window at once took 0.3 GiB more."""

ConditionSource = Callable[[Sequence[int]], Tensor]
"""Frame indices -> their condition pictures, (b f c H W) float in [0, 1] on the networks' device."""


@dataclass(frozen=True)
class Networks:
    """The three networks that a denoising step runs. A ControlNet that is None does not take part.

    Attributes:
        store: where the ControlNets' residuals wait for later windows; None leaves them where they are made.
        standing: an `Arena` (`recorded`) that the residuals of every window are put into, for a denoiser that reads
            them there; the residuals of the window before are overwritten.
    """

    unet: Any
    pose_controlnet: Any = None
    face_controlnet: Any = None
    store: torch.device | None = None
    standing: Any = None


@dataclass(frozen=True)
class Tokens:
    """What cross-attention reads, for one guidance half.

    Attributes:
        text: (b 77 d), read by the UNet and the ControlNets; None for a model without text.
        image: (b 16 d), read by the UNet only, after the text; None without an image encoder.
    """

    text: Tensor | None = None
    image: Tensor | None = None

    def joined(self) -> Tensor | None:
        """Text then image tokens, as the UNet reads them."""
        parts = [part for part in (self.text, self.image) if part is not None]
        return torch.cat(parts, dim=1) if parts else None


@dataclass(frozen=True)
class Controls:
    """Control signals of a clip, made on demand, and how strongly they act (1 = as trained).

    Attributes:
        pose, face: condition pictures by frame.
        pose_scale, face_scale: strengths.
        reference_pose: (b 3 H W) in [0, 1], the reference person's own pose, for models that were trained to be told;
            None leaves frame 0 without residuals, as published.
        moved: (b c f h w) the reference's latents moved as the person moves (`models.warping`), of the whole clip, for
            a denoiser that reads them.
    """

    pose: ConditionSource | None = None
    face: ConditionSource | None = None
    pose_scale: float = 1.0
    face_scale: float = 1.0
    reference_pose: Tensor | None = None
    moved: Tensor | None = None


def resize_condition(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A condition picture at (height, width), by Pillow's Lanczos filter as the official code does."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def normalise_condition(pictures: Tensor, *, low: float | None = None, high: float | None = None) -> Tensor:
    """Condition pictures stretched to [0, 1] by the whole clip's extremes (spec.md 3, quirk kept).

    A clip of one colour has no extremes to stretch by; the official code returns NaN, this returns zeros.

    Args:
        pictures: (... h w c) uint8.
        low: smallest value of the whole clip in [0, 255]; by default of `pictures`.
        high: largest value of the whole clip.

    Returns:
        (... c h w) float32 in [0, 1].
    """
    values = rearrange(pictures, "... h w c -> ... c h w").float() / 255.0
    bottom = values.min().item() if low is None else low / 255.0
    top = values.max().item() if high is None else high / 255.0
    return torch.zeros_like(values) if top <= bottom else (values - bottom) / (top - bottom)


@dataclass
class ControlResiduals:
    """ControlNet residuals of one step, run once a frame however many windows share it.

    A ControlNet looks at one frame at a time, so its residuals do not depend on the window, nor on the
    guidance half when both halves read the same text. They are kept only while a later window needs them.
    """

    networks: Networks
    controls: Controls
    latents: Tensor
    timestep: Tensor
    halves: list[Tokens]
    windows: list[list[int]]
    reference: Tensor | None = None
    """(b c h w) clean latent, which the reference's own pose is shown with."""
    _kept: dict[int, list[Tensor]] = field(default_factory=dict)
    _first: list[Tensor] | None = None

    def of_window(self, number: int) -> tuple[tuple[Tensor, ...], Tensor] | tuple[None, None]:
        """Residuals for window `number`: 12 skips (or as many as the UNet has) and the mid block.

        Each is (b c r+f h w), r the UNet's reference frames (1 or 0): zeros, or what the reference's own pose gives. b
        counts the guidance halves too where they read different texts; otherwise one residual serves them all.
        """
        if not any(
            source is not None and network is not None and scale != 0
            for source, network, scale in self._streams()
        ):
            return None, None
        window, lead = self.windows[number], self.networks.unet.reference_frames
        first = self._of_reference() if lead and self._tells_reference() else None
        missing = [frame for frame in window if frame not in self._kept]
        if self.networks.standing is not None:
            stacked = self._in_place(window, missing, first)
        else:
            found = self._kept | dict(zip(missing, self._run(missing), strict=True))
            frames: list[list[Tensor] | None] = [
                [value.to(self.latents.device, non_blocking=True) for value in found[frame]]
                for frame in window
            ]
            frames = [first] * lead + frames
            stacked = [
                _stacked([None if values is None else values[place] for values in frames])
                for place in range(len(found[window[0]]))
            ]
            del found, frames
        later = {frame for coming in self.windows[number + 1 :] for frame in coming}
        self._kept = {frame: values for frame, values in self._kept.items() if frame in later}
        # copies: a view of one frame would keep the residuals of its whole window
        fresh = {frame: lead + place for place, frame in enumerate(window) if frame in later}
        fresh = {frame: place for frame, place in fresh.items() if frame not in self._kept}
        for frame, place in fresh.items():
            own = [value[:, :, place].clone() for value in stacked]
            self._kept[frame] = (
                own if self.networks.store is None else [v.to(self.networks.store) for v in own]
            )
        return tuple(stacked[:-1]), stacked[-1]

    def stored(self) -> int:
        """Bytes kept for later windows."""
        return sum(value.untyped_storage().nbytes() for values in self._kept.values() for value in values)

    def _tells_reference(self) -> bool:
        return (
            self.reference is not None
            and self.controls.reference_pose is not None
            and self.networks.pose_controlnet is not None
            and self.controls.pose_scale != 0
        )

    def _of_reference(self) -> list[Tensor]:
        """What the reference's own pose adds to frame 0, (b c h w) each; made once a step."""
        network, pose = self.networks.pose_controlnet, self.controls.reference_pose
        assert self.reference is not None
        assert pose is not None
        if self._first is None:
            made = self._of_texts(
                network, self.reference[:, :, None], pose[:, None], scale=self.controls.pose_scale
            )
            self._first = [value[:, :, 0].clone() for value in made]
        return self._first

    def _streams(self) -> list[tuple[ConditionSource | None, Any, float]]:
        return [
            (self.controls.pose, self.networks.pose_controlnet, self.controls.pose_scale),
            (self.controls.face, self.networks.face_controlnet, self.controls.face_scale),
        ]

    def _texts(self) -> list[Tensor | None]:
        """The text of each half, or the one that all halves read."""
        texts = [half.text for half in self.halves]
        return texts[:1] if all(_same(texts[0], text) for text in texts[1:]) else texts

    def _pieces(self, frames: list[int]) -> list[list[int]]:
        """The frames, so many at a time as fit into one pass of a ControlNet."""
        height, width = self.latents.shape[3:]
        most = max(1, CONTROLLED_AT_ONCE // (len(self.latents) * height * width))
        pieces = math.ceil(len(frames) / most)
        return [
            frames[len(frames) * piece // pieces : len(frames) * (piece + 1) // pieces]
            for piece in range(pieces)
        ]

    def _run(self, frames: list[int]) -> list[list[Tensor]]:
        """Summed residuals of both ControlNets for `frames`: a list a frame of (b c h w)."""
        rows: list[list[Tensor]] = []
        for part in self._pieces(frames):
            total: list[Tensor] = []
            for residuals in self._run_part(part):
                total = [_plus(a, b) for a, b in zip(total, residuals, strict=True)] if total else residuals
            rows += [list(values) for values in zip(*(v.unbind(2) for v in total), strict=True)]
        return rows

    def _run_part(self, frames: list[int]) -> Iterator[list[Tensor]]:
        """Each ControlNet's residuals for frames that fit into one pass: (b c f h w) each."""
        for source, network, scale in self._streams():
            if source is None or network is None or scale == 0:
                continue
            condition = source(frames).to(next(network.parameters()).dtype)
            yield self._of_texts(network, frames_of(self.latents, frames), condition, scale=scale)

    def _of_texts(self, network: Any, latents: Tensor, condition: Tensor, *, scale: float) -> list[Tensor]:
        """A ControlNet's residuals, (b c f h w) each; b counts the halves, too, where these read different texts."""
        texts = self._texts()
        residuals = []
        for text in texts:
            made = run_controlnet(network, latents, self.timestep, condition, text=text, scale=scale)
            lent = getattr(network, "lends", False) and len(texts) > 1  # the next call would overwrite them
            residuals.append([value.clone() for value in made] if lent else made)
        if len(residuals) == 1:
            return residuals[0]
        return [torch.cat(values) for values in zip(*residuals, strict=True)]

    def _in_place(self, window: list[int], missing: list[int], first: list[Tensor] | None) -> list[Tensor]:
        """The residuals of a window, put together where they stand: (b c r+f h w) each, r the reference's frames.

        ControlNets' results are added there one after the other, so that nothing else holds them.
        """
        lead, stacked = self.networks.unet.reference_frames, list[Tensor]()

        def stack(like: list[Tensor], axis: int | None) -> None:
            """Take the memory, (b c f h w) or (b c h w) of a frame given; the reference's frames are filled."""
            if not stacked:
                shapes = [_layout(value if axis else value[:, :, None], lead + len(window)) for value in like]
                stacked.extend(self.networks.standing.places(shapes, device=self.latents.device))
                for place, value in enumerate(stacked):
                    for frame in range(lead):
                        value[:, :, frame] = 0 if first is None else first[place]

        for part in self._pieces(missing):
            for turn, residuals in enumerate(self._run_part(part)):
                stack(residuals, 2)
                for begin, end, at in runs([lead + window.index(frame) for frame in part]):
                    for value, residual in zip(stacked, residuals, strict=True):
                        where = value[:, :, at : at + end - begin]
                        (where.add_ if turn else where.copy_)(residual[:, :, begin:end])
        for place, frame in enumerate(window):
            if frame in self._kept:
                stack(self._kept[frame], None)
                for value, residual in zip(stacked, self._kept[frame], strict=True):
                    value[:, :, lead + place].copy_(residual)
        return stacked


def frames_of(latents: Tensor, frames: Sequence[int]) -> Tensor:
    """Frames of (b c f h w), in the order given: a view where they are neighbours, otherwise a copy."""
    parts = [latents[:, :, at : at + end - begin] for begin, end, at in runs(frames)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def share_text(halves: list[Tokens]) -> list[Tokens]:
    """The halves, equal texts made one tensor: ControlNets are then seen to need one run, without comparing again."""
    first = halves[0].text
    return [replace(half, text=first) if _same(first, half.text) else half for half in halves]


def _stacked(frames: list[Tensor | None]) -> Tensor:
    """(b c h w) of each frame -> (b c f h w) that lies frame by frame, each as the given ones do; None is zeros."""
    like = next(frame for frame in frames if frame is not None)
    given = [torch.zeros_like(like) if frame is None else frame for frame in frames]
    if like.stride(1) == 1:
        return torch.stack([frame.permute(0, 2, 3, 1) for frame in given], dim=1).permute(0, 4, 1, 2, 3)
    return torch.stack(given, dim=1).transpose(1, 2)


def _layout(value: Tensor, frames: int) -> Tensor:
    """A tensor without numbers, like (b c f h w) but of so many frames, frame by frame as `_stacked` lays them."""
    batch, channels, _, height, width = value.shape
    if value.stride(1) == 1:
        empty = torch.empty(batch, frames, height, width, channels, dtype=value.dtype, device="meta")
        return empty.permute(0, 4, 1, 2, 3)
    empty = torch.empty(batch, frames, channels, height, width, dtype=value.dtype, device="meta")
    return empty.transpose(1, 2)


def _plus(total: Tensor, more: Tensor) -> Tensor:
    """The sum; without gradients in the first one's memory, which is a ControlNet's fresh result."""
    return total + more if torch.is_grad_enabled() else total.add_(more)


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first is second or torch.equal(first, second)
