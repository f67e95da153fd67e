"""Backdrops: the scenes of some clips as their cameras see them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdyna.data.synthetic.camera import camera_at, unproject
from xdyna.data.synthetic.draws import onto
from xdyna.data.synthetic.params import SceneParams
from xdyna.data.synthetic.scenery import Scenery
from xdyna.data.synthetic.scenes import PAINTERS, SCENES
from xdyna.data.synthetic.tempo import scene_time, wind_at


def paint_scenes(
    scene: SceneParams, times: Tensor, size: tuple[int, int], device: torch.device
) -> list[Tensor]:
    """The scenes of b clips, each (n 3 h w) in [0, 1], or (1 3 h w) where nothing moves.

    Args:
        scene: b clips.
        times: (b n) seconds.
        size: (height, width).
    """
    height, width = size
    y = ((torch.arange(height, device=device) + 0.5) / height)[None, None, :, None]
    x = ((torch.arange(width, device=device) + 0.5) / height - width / height / 2)[None, None, None, :]
    still, moves = scene.still(), scene.camera["moves"] > 0
    moments = scene_time(scene.tempo, times)
    # Time, wind and the camera's four values travel to the device in one copy.
    sent = onto(
        torch.cat(
            [moments[..., None], wind_at(scene.tempo, moments)[..., None], camera_at(scene.camera, times)], -1
        ),
        device,
    )
    knobs, texture = onto(scene.knobs, device), onto(scene.texture, device)
    # Clips of a kind are painted together, apart by what stands still: a still scene is painted once for all
    # its frames, and a still camera spares most of a scene the frames' axis.
    groups: dict[tuple[int, bool, bool], list[int]] = {}
    for clip, key in enumerate(zip(scene.kind.tolist(), still.tolist(), moves.tolist(), strict=True)):
        groups.setdefault(key, []).append(clip)
    done: dict[int, Tensor] = {}
    for (kind, stands, moving), clips in groups.items():
        first, last = clips[0], clips[-1] + 1
        # A slice needs no index on the device; most groups are one clip.
        index: slice | Tensor = (
            slice(first, last) if last - first == len(clips) else onto(torch.tensor(clips), device)
        )
        part = sent[index][:, :1] if stands else sent[index]
        seen_x, seen_y = x, y
        if moving:
            seen_x, seen_y = unproject(x, y - 0.5, part[..., 2:])
            seen_y = seen_y + 0.5
        seen_x, seen_y = (axis.expand(len(clips), -1, -1, -1) for axis in (seen_x, seen_y))
        time, wind = part[:, :, 0, None, None], part[:, :, 1, None, None]
        scenery = Scenery(seen_x, seen_y, time, wind, knobs[index], texture[index], 1 / height)
        picture = PAINTERS[SCENES[kind]](scenery).clamp(0, 1)
        # A picture may lack an axis along which it does not change.
        picture = picture.expand(-1, -1, -1, height, width)
        done |= {clip: picture[place] for place, clip in enumerate(clips)}
    return [done[clip] for clip in range(len(scene.kind))]


def stacked(scenes: Sequence[Tensor]) -> Tensor:
    """Some of `paint_scenes`' as (b n 3 h w); n is 1 where all of them stand still."""
    longest = max(clip.shape[0] for clip in scenes)
    return torch.stack([clip.expand(longest, -1, -1, -1) for clip in scenes])
