"""Rendering: parameters to clips with their control maps and exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.appearance import blur_background, film, sample_appearance
from xdyna.data.synthetic.camera import camera_at, sample_camera
from xdyna.data.synthetic.controls import draw_pose_maps, face_boxes, keep_boxes
from xdyna.data.synthetic.draws import Draws, Params, take
from xdyna.data.synthetic.identity import sample_identity
from xdyna.data.synthetic.motion import EXPRESSIONS, sample_motion
from xdyna.data.synthetic.people import Cast, foreign_heads, paint_people
from xdyna.data.synthetic.scenery import KNOBS, Scenery
from xdyna.data.synthetic.scenes import MOVING_SCENES, PAINTERS, SCENES, SLOPES, STILL_SCENES
from xdyna.data.synthetic.shapes import Canvas

HELD_OUT_SEED = 900_000_000
"""Seeds from here on are for evaluation; training must stay below."""

STEP = 1 / 8
"""Seconds between consecutive frames."""

_LARGEST_CHUNK = 544  # frames painted at once on an accelerator: 32 clips of 17
_LARGEST_CPU_CHUNK = 17


@dataclass
class SceneParams:
    """Scenes and how they were filmed, b clips, on the CPU.

    Attributes:
        kind: (b,) int64 places in `SCENES`.
        knobs: (b KNOBS) uniform numbers that the scene's painter uses up.
        texture: (b 3 t t) periodic noise.
        camera: of `camera.sample_camera`.
        appearance: of `appearance.sample_appearance`.
    """

    kind: Tensor
    knobs: Tensor
    texture: Tensor
    camera: Params
    appearance: Params

    def take(self, index: Tensor) -> SceneParams:
        """The scenes of the chosen clips."""
        return SceneParams(
            self.kind[index],
            self.knobs[index],
            self.texture[index],
            take(self.camera, index),
            take(self.appearance, index),
        )


@dataclass
class SyntheticParams:
    """All that defines a batch but the pictures' size, on the CPU.

    Attributes:
        identity, motion: the people and how they move.
        foreign: identities whose heads the face maps show, with the augmentation of those maps.
        scene: what is behind the people.
        human: (b,) bool, False for clips without a person.
        times: (b 1+f) seconds, the reference's moment first.
    """

    identity: Params
    motion: Params
    foreign: Params
    scene: SceneParams
    human: Tensor
    times: Tensor


@dataclass
class SyntheticBatch:
    """Rendered clips and everything known about them. Frame 0 of a clip is its reference.

    Pixels are (x, y) with (0, 0) the picture's top left corner, as in `conditions.draw`. Clips without a person have
    blank pose and face maps, an empty mask and scores 0.

    Attributes:
        frames: (b 1+f 3 h w) float in [0, 1]; the reference shows another moment of the same clip.
        mask: (b 1+f 1 h w) float in [0, 1], the person's share of a pixel.
        pose: (b 1+f 3 h w) float in [0, 1], pose maps.
        face_local, face_global: (b 1+f 3 h w) float in [0, 1], another identity's face with the same expression.
        body: (b 1+f 18 3); left_hand, right_hand: (b 1+f 21 3); face: (b 1+f 68 3): x, y in pixels, score.
        head: (b 1+f 3) the head's middle (x, y) and half its height, in pixels.
        expression: (b 1+f 8), the values named by `EXPRESSIONS`.
        human: (b,) bool.
        scene: (b,) int64, places in `SCENES`.
        still: (b,) bool: nothing in the background moves, the camera neither.
        camera: (b 1+f 3) zoom, and pan to the right and down in pixels.
    """

    frames: Tensor
    mask: Tensor
    pose: Tensor
    face_local: Tensor
    face_global: Tensor
    body: Tensor
    left_hand: Tensor
    right_hand: Tensor
    face: Tensor
    head: Tensor
    expression: Tensor
    human: Tensor
    scene: Tensor
    still: Tensor
    camera: Tensor


def sample_params(
    seed: int,
    batch: int,
    *,
    frames: int = 16,
    human_share: float = 0.8,
    still_share: float = 0.35,
    scatter: bool = False,
) -> SyntheticParams:
    """Draw the parameters of a batch on the CPU.

    Args:
        seed: any non-negative int; see `HELD_OUT_SEED`.
        batch: how many clips.
        frames: how many frames beside the reference.
        human_share: share of clips with a person.
        still_share: share of still scenes among the clips with a person; clips without one always move.
        scatter: frames at random moments of the clip instead of consecutive ones.
    """
    draws = Draws(seed, batch)
    human = draws.chance(human_share) > 0
    is_still = (draws.chance(still_share) > 0) & human
    still = torch.tensor([SCENES.index(name) for name in STILL_SCENES])[draws.choice((1.6, 1.0))]
    moving = torch.tensor([SCENES.index(name) for name in MOVING_SCENES])[
        draws.choice([1.0] * len(MOVING_SCENES))
    ]
    kind = torch.where(is_still, still, moving)
    slopes = torch.tensor([SLOPES.get(name, 1.3) for name in SCENES])[kind] + draws.uniform(-0.12, 0.12)
    identity, motion, foreign = sample_identity(draws), sample_motion(draws), sample_identity(draws)
    foreign |= foreign_heads(draws)
    scene = SceneParams(
        kind,
        draws.uniform(0, 1, KNOBS),
        draws.texture(3, slopes),
        sample_camera(draws),
        sample_appearance(draws),
    )
    start = draws.uniform(0, 20, 1)
    times = start + (draws.uniform(-2, 4, frames) if scatter else STEP * torch.arange(frames))
    reference = start + draws.uniform(-2, 4, 1)
    return SyntheticParams(identity, motion, foreign, scene, human, torch.cat([reference, times], 1))


def make_batch(
    seed: int,
    batch: int,
    *,
    frames: int = 16,
    size: tuple[int, int] = (256, 256),
    device: str | torch.device = "cpu",
    human_share: float = 0.8,
    still_share: float = 0.35,
    scatter: bool = False,
    maps: bool = True,
    landmarks: bool = False,
) -> SyntheticBatch:
    """Make clips of people before scenes; the same arguments give the same bytes.

    Args:
        seed, batch, frames, human_share, still_share, scatter: see `sample_params`.
        size: (height, width) of the pictures, any aspect.
        device: where to render. The world is the same on every device, pixels within rounding.
        maps: also draw pose and face maps; without, they are zero.
        landmarks: also draw the face's 68 landmarks into the pose maps.
    """
    params = sample_params(
        seed, batch, frames=frames, human_share=human_share, still_share=still_share, scatter=scatter
    )
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human, device=device, maps=maps, landmarks=landmarks,
    )  # fmt: skip


@torch.no_grad()
def render(
    identity: Params,
    motion: Params,
    foreign: Params,
    scene: SceneParams,
    times: Tensor,
    size: tuple[int, int],
    *,
    human: Tensor | None = None,
    device: str | torch.device = "cpu",
    maps: bool = True,
    landmarks: bool = False,
) -> SyntheticBatch:
    """Render clips from parameters; any identity goes with any motion and scene.

    Args:
        identity, motion, foreign, scene: b clips each, see `SyntheticParams`.
        times: (b n) seconds; the first column is the reference.
        size: (height, width).
        human: (b,) bool; None means that every clip has a person.
        device, maps, landmarks: see `make_batch`.
    """
    device = torch.device(device)
    batch, count = times.shape
    height, width = size
    human = torch.ones(batch, dtype=torch.bool) if human is None else human
    cast = Cast(identity, motion, foreign, scene.camera, times, width / height)
    result = _empty(batch, count, size, device)
    result.human, result.scene = human.to(device), scene.kind.to(device)
    still = torch.tensor([name in STILL_SCENES for name in SCENES])[scene.kind] & (scene.camera["moves"] == 0)
    result.still = still.to(device)
    zoom, pan = camera_at(scene.camera, times)
    result.camera = torch.cat([zoom[..., None], pan * height], -1).to(device)

    for index in _chunks(human, cast.size(), count, device):
        chosen = scene.take(index)
        background = _backgrounds(chosen, times[index], size, device)
        background = blur_background(background, chosen.appearance)
        frames = background.expand(-1, count, -1, -1, -1).flatten(0, 1).contiguous()
        if background.shape[1] == count:
            frames = frames.clone()
        where = index.to(device)
        if bool(human[index[0]]):
            canvas = Canvas(frames)
            people = cast.take(index)
            light = chosen.appearance["light"].repeat_interleave(count, 0)
            paint_people(canvas, people, light)
            result.mask[where] = canvas.mask.unflatten(0, (-1, count))
            truth = people.truth(size)
            for name in ("body", "left_hand", "right_hand", "face", "head", "expression"):
                getattr(result, name)[where] = truth[name].unflatten(0, (-1, count)).to(device)
            if maps:
                pose = draw_pose_maps(truth, size, device, landmarks=landmarks)
                result.pose[where] = pose.unflatten(0, (-1, count))
                heads, foreign_face = people.paint_foreign(size, device)
                box, patches = face_boxes(foreign_face, size)
                result.face_global[where] = keep_boxes(heads, box[:, None]).unflatten(0, (-1, count))
                result.face_local[where] = keep_boxes(heads, patches).unflatten(0, (-1, count))
        result.frames[where] = film(frames.unflatten(0, (-1, count)), chosen.appearance)
    return result


def _empty(batch: int, count: int, size: tuple[int, int], device: torch.device) -> SyntheticBatch:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(batch, count, *shape, device=device)

    pictures = {name: zeros(3, *size) for name in ("frames", "pose", "face_local", "face_global")}
    points = {"body": 18, "left_hand": 21, "right_hand": 21, "face": 68}
    flat = torch.zeros(batch, device=device)
    return SyntheticBatch(
        **pictures, **{name: zeros(k, 3) for name, k in points.items()}, mask=zeros(1, *size), head=zeros(3),
        expression=zeros(len(EXPRESSIONS)), human=flat, scene=flat, still=flat, camera=zeros(3),
    )  # fmt: skip


def _chunks(human: Tensor, sizes: Tensor, count: int, device: torch.device) -> Iterator[Tensor]:
    """Clips to render together: with a person or without, and people of about one size, so that windows fit."""
    largest = _LARGEST_CPU_CHUNK if device.type == "cpu" else _LARGEST_CHUNK
    clips = max(1, largest // count)
    for present in (True, False):
        index = torch.nonzero(human == present)[:, 0]
        if present:
            index = index[torch.argsort(sizes[index], stable=True)]
        # On an accelerator at least two groups by size, however small the batch.
        parts = max(1, -(-len(index) // clips), min(3, len(index) // 4) if device.type != "cpu" else 1)
        yield from (part for part in torch.tensor_split(index, parts) if len(part))


def _backgrounds(scene: SceneParams, times: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """The scenes (b n 3 h w) in [0, 1]; n is 1 when every clip of the group stands still."""
    height, width = size
    y = ((torch.arange(height, device=device) + 0.5) / height)[None, None, :, None]
    x = ((torch.arange(width, device=device) + 0.5) / height - width / height / 2)[None, None, None, :]
    zoom, pan = camera_at(scene.camera, times)
    done: dict[int, Tensor] = {}
    for kind in sorted(set(scene.kind.tolist())):
        group = torch.nonzero(scene.kind == kind)[:, 0]
        moves = bool(scene.camera["moves"][group].any())
        # A still scene is painted once for all its frames.
        once = SCENES[kind] in STILL_SCENES and not moves
        moments = times[group][:, :1] if once else times[group]
        shape = (len(group), moments.shape[1] if moves else 1, height, width)
        if moves:
            by = zoom[group].to(device)[:, :, None, None]
            seen_x = (x - pan[group, :, 0].to(device)[:, :, None, None]) / by
            seen_y = (y - 0.5 - pan[group, :, 1].to(device)[:, :, None, None]) / by + 0.5
        else:
            seen_x, seen_y = x, y
        scenery = Scenery(
            seen_x.expand(shape), seen_y.expand(shape), moments.to(device)[:, :, None, None],
            scene.knobs[group].to(device), scene.texture[group].to(device), 1 / height,
        )  # fmt: skip
        picture = PAINTERS[SCENES[kind]](scenery).clamp(0, 1)
        for place, clip in enumerate(group.tolist()):
            done[clip] = picture[place]
    longest = max(clip.shape[0] for clip in done.values())
    return torch.stack([done[i].expand(longest, -1, -1, -1) for i in range(len(scene.kind))])
