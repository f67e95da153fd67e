"""What stands still is held still: where a clip only shimmers about the picture, it becomes the picture.

A denoiser makes every frame anew, so walls shimmer by a grey level or two, and a pattern on them comes out a little
wrong. Where the scene lives, the clip is far from the picture, all the time or now and then; where nothing moves it
stays near, and the two are told apart easily (docs/concepts/scenes.md). There the picture, and where the person stood
in it the clip's mean, take the clip's place: in the latents, so that what is beside them is decoded beside them, and
in the pixels, since a decoder's norms let every place stir a little with the person. Heads are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xdyna.models.warping import PARTS, nearness

STILL, ALIVE = 0.02, 0.05
"""Mean squared distance from the picture, in scaled latents, up to which a place stands still and from which it lives.
Of still walls half lie below .01, of water, fire and crowds nine tenths above .05."""
MOMENT = 2.0
"""A single frame may be so many times further away: what passes by is not still while it does."""
HEAD, BODY = 0.8, 0.8
"""How far from head and body the person may be, in the reaches of their parts (`models.warping`). Heads are never held:
a face changes by less than a wall shimmers. Of the rest of a person what moves is told apart as everywhere."""
LEAST = 3
"""Frames in which a place must be free of the person to be known by those alone."""


@dataclass(frozen=True)
class Still:
    """What of a clip stands still.

    Attributes:
        share: (f h w) in [0, 1], of the latents' cells: 1 takes the background's place.
        plate: (c h w) the background's latents.
        own: (h w) bool, where they are the picture's; elsewhere they are the clip's mean.
    """

    share: Tensor
    plate: Tensor
    own: Tensor

    def hold(self, latents: Tensor) -> Tensor:
        """The clip's latents (1 c f h w) with what stands still replaced, dtype and device as they are."""
        plate = self.plate.unsqueeze(1).expand_as(latents[0])
        return torch.lerp(latents[0].float(), plate, self.share).to(latents.dtype).unsqueeze(0)

    def background(self, picture: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        """The background in pixels.

        Args:
            picture: (h w 3) uint8, the reference.
            decoded: (h w 3) uint8, the plate as the autoencoder decodes it.

        Returns:
            (h w 3) float32, 0..255.
        """
        own = _enlarged(self.own.float(), picture.shape[:2])
        return own * picture + (1 - own) * decoded

    def put_into(self, frame: np.ndarray, background: np.ndarray, index: int) -> np.ndarray:
        """A decoded frame (h w 3) uint8 with the background of `background` where it stands still."""
        share = _enlarged(self.share[index], frame.shape[:2])
        mixed = frame + share * (background - frame)
        return np.asarray(np.rint(mixed).clip(0, 255), dtype=np.uint8)


def find_still(
    latents: Tensor, reference: Tensor, body: Tensor, own: Tensor | None, *, size: tuple[int, int]
) -> Still:
    """Look where a clip stands still.

    Args:
        latents: (1 c f h w) clean latents of the clip.
        reference: (1 c h w) the picture's.
        body: (f 18 3) the driven person's points: x, y in pixels and a score.
        own: (18 3) the reference person's; None if they are not known. Then what the person hid is left as it is.
        size: (height, width) in pixels of the pictures that the points lie in.
    """
    cells = (latents.shape[-2], latents.shape[-1])
    clip, picture = latents[0].float(), reference[0].float()
    head, free = _free(body.to(clip.device), size, cells)
    seen = free.sum(0)
    plate, hidden = picture, torch.zeros(cells, dtype=torch.bool, device=clip.device)
    if own is not None:
        hidden = ~_free(own[None].to(clip.device), size, cells)[1][0] & (seen >= LEAST)
        plate = torch.where(hidden, (clip * free).sum(1) / seen.clamp(min=1), picture)
    # frame by frame: the clip is the longest tensor there is
    away = torch.stack([(frame - plate).square().mean(0) for frame in clip.unbind(1)])
    among = _smooth(away * free) / _smooth(free.float()).clamp(min=1e-3)
    always = torch.where(seen >= LEAST, (among * free).sum(0) / seen.clamp(min=1), _smooth(away).mean(0))
    share = _still(always, 1.0) * _still(_lately(away), MOMENT) * head
    return Still(share, plate, ~hidden)


def _free(body: Tensor, size: tuple[int, int], cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(f h w) bool each: where no head is, and where nobody is."""
    head, rest = (nearness(body, size=size, cells=cells, parts=parts) for parts in (PARTS[:1], PARTS[1:]))
    return head > HEAD, (head > HEAD) & (rest > BODY)


def _still(away: Tensor, factor: float) -> Tensor:
    """1 where so far away is still, 0 where it is alive."""
    return ((factor * ALIVE - away) / (factor * (ALIVE - STILL))).clamp(0, 1)


def _smooth(values: Tensor) -> Tensor:
    """Means (f h w) over 3 x 3 cells."""
    return F.avg_pool2d(F.pad(values.unsqueeze(1), (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]


def _lately(values: Tensor) -> Tensor:
    """The largest (f h w) of a frame and its neighbours."""
    return F.max_pool3d(values[None], (3, 1, 1), 1, (1, 0, 0))[0]


def _enlarged(cells: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """(h w) of cells as (h w 1) float32 of pixels."""
    pixels = F.interpolate(cells[None, None], size=size, mode="bilinear", align_corners=False)
    return pixels[0, 0, :, :, None].cpu().numpy()
