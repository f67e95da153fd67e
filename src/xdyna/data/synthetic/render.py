"""Rendering: parameters to clips with their control maps and exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.appearance import blur_background, film
from xdyna.data.synthetic.backdrop import paint_scenes, stacked
from xdyna.data.synthetic.camera import MOVING_SHARE, camera_at
from xdyna.data.synthetic.company import COMPANY_SHARE, CompanyParams, place_company
from xdyna.data.synthetic.controls import draw_pose_maps, face_boxes, keep_boxes
from xdyna.data.synthetic.draws import Params, onto
from xdyna.data.synthetic.modelled.people import ModelledTroupe
from xdyna.data.synthetic.modelled.shape import with_measures
from xdyna.data.synthetic.motion import EXPRESSIONS
from xdyna.data.synthetic.params import SceneParams, sample_params
from xdyna.data.synthetic.people import Cast
from xdyna.data.synthetic.shapes import Canvas
from xdyna.data.synthetic.tempo import FROZEN_SHARE

_LARGEST_CHUNK = 1088  # frames painted at once on an accelerator: 64 clips of 17
_LARGEST_CPU_CHUNK = 17
_AHEAD = ("cuda", "mps")
"""Devices on which starting a kernel costs more than its work: what a few clips of each group need is painted for all
groups at once, scenes by kind and second people together, in memory that a CPU's caches would not have."""


@dataclass
class SyntheticBatch:
    """Rendered clips and everything known about them. Frame 0 of a clip is its reference.

    Pixels are (x, y) with (0, 0) the picture's top left corner, as in `conditions.draw`. Clips without a person have
    blank pose and face maps, an empty mask and scores 0.

    Attributes:
        frames: (b 1+f 3 h w) float in [0, 1]; the reference shows another moment of the same clip.
        mask: (b 1+f 1 h w) float in [0, 1], the driven person's share of a pixel.
        pose: (b 1+f 3 h w) float in [0, 1], pose maps.
        face_local, face_global: (b 1+f 3 h w) float in [0, 1], another identity's face with the same expression.
        body: (b 1+f 18 3); left_hand, right_hand: (b 1+f 21 3); face: (b 1+f 68 3): x, y in pixels, score.
        head: (b 1+f 3) the head's middle (x, y) and half its height, in pixels.
        expression: (b 1+f 8), the values named by `EXPRESSIONS`.
        human: (b,) bool.
        modelled: (b,) bool: the person is modelled in three dimensions, not drawn.
        scene: (b,) int64, places in `SCENES`.
        still: (b,) bool: nothing behind the person moves: no scene, no camera, no second person.
        company: (b,) bool: a second person is there, whom neither the mask nor any map or truth shows.
        speed: (b,) of the scene: 1 the usual pace, 0 frozen.
        motion_energy: (b,) how lively the scene is: mean absolute change from frame to frame, of values 0..255, over
            all pixels of frames 1..f of the scene alone, as filmed but without any person. Exactly 0 where neither
            scene nor camera moves, and where there are not two frames beside the reference.
        camera: (b 1+f 4) zoom, pan to the right and down in pixels, and roll in radians, positive clockwise as seen.
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
    modelled: Tensor
    scene: Tensor
    still: Tensor
    company: Tensor
    speed: Tensor
    motion_energy: Tensor
    camera: Tensor


def make_batch(
    seed: int,
    batch: int,
    *,
    frames: int = 16,
    size: tuple[int, int] = (256, 256),
    device: str | torch.device = "cpu",
    human_share: float = 0.8,
    still_share: float = 0.35,
    moving_camera_share: float = MOVING_SHARE,
    company_share: float = COMPANY_SHARE,
    frozen_share: float = FROZEN_SHARE,
    scatter: bool = False,
    modelled_share: float = 0.0,
    captured_share: float = 0.0,
    maps: bool = True,
    landmarks: bool = False,
) -> SyntheticBatch:
    """Make clips of people before scenes; the same arguments give the same bytes.

    Args:
        seed, batch, frames: see `sample_params`, as for all shares and `scatter`.
        size: (height, width) of the pictures, any aspect.
        device: where to render. The world is the same on every device, pixels within rounding.
        maps: also draw pose and face maps; without, they are zero.
        landmarks: also draw the face's 68 landmarks into the pose maps.
    """
    params = sample_params(
        seed, batch, frames=frames, human_share=human_share, still_share=still_share,
        moving_camera_share=moving_camera_share, company_share=company_share, frozen_share=frozen_share,
        scatter=scatter, modelled_share=modelled_share, captured_share=captured_share,
    )  # fmt: skip
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human, company=params.company, modelled=params.modelled, device=device, maps=maps,
        landmarks=landmarks,
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
    company: CompanyParams | None = None,
    modelled: Params | None = None,
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
        company: second people, shown in clips with a first one; None means none anywhere.
        modelled: who is modelled and how, see `modelled.shape.sample_modelled`; None means that all are drawn.
        device, maps, landmarks: see `make_batch`.
    """
    device = torch.device(device)
    batch, count = times.shape
    height, width = size
    human = torch.ones(batch, dtype=torch.bool) if human is None else human
    aspect = width / height
    solid = human & (modelled["here"] > 0) if modelled else torch.zeros_like(human)
    if modelled and bool(solid.any()):
        identity = with_measures(identity, modelled, solid)
    cast = Cast(identity, motion, scene, times, aspect, foreign=foreign, modelled=modelled)
    others = None
    joined = torch.zeros_like(human)
    if company is not None and bool((company.here & human).any()):
        joined = company.here & human
        spot = place_company(cast.placed, company, identity, aspect)
        others = Cast(company.identity, company.motion, scene, times, aspect, placed=spot)
    result = _empty(batch, count, size, device)
    result.human, result.scene = onto(human, device), onto(scene.kind, device)
    result.modelled = onto(solid, device)
    result.company, result.speed = onto(joined, device), onto(scene.tempo["speed"], device)
    still = scene.still()
    result.still = onto(still & ~joined, device)
    view = camera_at(scene.camera, times)
    result.camera = onto(view * torch.tensor([1.0, height, height, 1.0]), device)

    ahead = device.type in _AHEAD
    scenes = paint_scenes(scene, times, size, device) if ahead else []
    peopled: dict[int, Tensor] = {}
    if ahead and others is not None:
        peopled = _peopled(others, joined.nonzero()[:, 0], scene, scenes)

    for index in _chunks(human, solid, cast.size(), count, device):
        chosen = scene.take(index)
        clips = index.tolist()
        painted = (
            [scenes[clip] for clip in clips] if ahead else paint_scenes(chosen, times[index], size, device)
        )
        background = blur_background(stacked(painted), chosen.appearance)
        moves = background.shape[1] == count > 1
        frames = background.expand(-1, count, -1, -1, -1).flatten(0, 1).contiguous()
        where = onto(index, device)
        present = bool(human[index[0]])
        if present:
            if moves:
                # People are painted over the scene in place.
                frames = frames.clone()
            light = chosen.appearance["light"]
            for place, clip in enumerate(clips):
                if clip in peopled:
                    frames[place * count : (place + 1) * count] = peopled.pop(clip)
            if others is not None and not ahead:
                _paint_company(
                    frames, others, index[joined[index]], torch.nonzero(joined[index])[:, 0], light
                )
            canvas = Canvas(frames)
            people = cast.take(index, ModelledTroupe if bool(solid[index[0]]) else None)
            people.paint(canvas, light.repeat_interleave(count, 0))
            result.mask[where] = canvas.mask.unflatten(0, (-1, count))
            truth = people.truth(size)
            for name in ("body", "left_hand", "right_hand", "face", "head", "expression"):
                getattr(result, name)[where] = onto(truth[name].unflatten(0, (-1, count)), device)
            if maps:
                pose = draw_pose_maps(truth, size, device, landmarks=landmarks)
                result.pose[where] = pose.unflatten(0, (-1, count))
                heads, foreign_face = people.paint_foreign(size, device)
                box, patches = face_boxes(foreign_face, size)
                result.face_global[where] = keep_boxes(heads, box[:, None]).unflatten(0, (-1, count))
                result.face_local[where] = keep_boxes(heads, patches).unflatten(0, (-1, count))
        filmed = film(frames.unflatten(0, (-1, count)), chosen.appearance)
        result.frames[where] = filmed
        if moves and count > 2:
            alone = film(background[:, 1:], chosen.appearance) if present else filmed[:, 1:]
            energy = 255 * alone.diff(dim=1).abs_().mean((1, 2, 3, 4))
            result.motion_energy[where] = energy * onto(~still[index], device)
    return result


def _peopled(cast: Cast, clips: Tensor, scene: SceneParams, scenes: list[Tensor]) -> dict[int, Tensor]:
    """Backgrounds with second people before them, (n 3 h w) of each of some clips by number.

    Args:
        cast: of all clips.
        clips: (k,) which have a second person.
        scene, scenes: of all clips, and as painted.
    """
    chosen, count = scene.take(clips), cast.times.shape[1]
    background = blur_background(stacked([scenes[clip] for clip in clips.tolist()]), chosen.appearance)
    frames = background.expand(-1, count, -1, -1, -1).flatten(0, 1).contiguous()
    _paint_company(frames, cast, clips, torch.arange(len(clips)), chosen.appearance["light"])
    return dict(zip(clips.tolist(), frames.unflatten(0, (-1, count)), strict=True))


def _paint_company(frames: Tensor, cast: Cast, clips: Tensor, places: Tensor, light: Tensor) -> None:
    """Paint the second people of some clips into their frames, in place.

    Args:
        frames: (b*n 3 h w) of a chunk of clips.
        clips: (k,) the clips in the batch, for `cast`; places: (k,) the same clips in the chunk.
        light: (b 5) of the chunk.
    """
    if not len(clips):
        return
    count = cast.times.shape[1]
    rows = onto((places[:, None] * count + torch.arange(count)).flatten(), frames.device)
    canvas = Canvas(frames[rows])
    cast.take(clips).paint(canvas, light[places].repeat_interleave(count, 0))
    frames[rows] = canvas.image


def _empty(batch: int, count: int, size: tuple[int, int], device: torch.device) -> SyntheticBatch:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(batch, count, *shape, device=device)

    pictures = {name: zeros(3, *size) for name in ("frames", "pose", "face_local", "face_global")}
    points = {"body": 18, "left_hand": 21, "right_hand": 21, "face": 68}
    flat = torch.zeros(batch, device=device)
    return SyntheticBatch(
        **pictures, **{name: zeros(k, 3) for name, k in points.items()}, mask=zeros(1, *size), head=zeros(3),
        expression=zeros(len(EXPRESSIONS)), human=flat, modelled=flat, scene=flat, still=flat, company=flat, speed=flat,
        motion_energy=torch.zeros(batch, device=device), camera=zeros(4),
    )  # fmt: skip


def _chunks(
    human: Tensor, solid: Tensor, sizes: Tensor, count: int, device: torch.device
) -> Iterator[Tensor]:
    """Clips to render together: with drawn people, modelled ones or none, and people of about one size."""
    largest = _LARGEST_CPU_CHUNK if device.type == "cpu" else _LARGEST_CHUNK
    clips = max(1, largest // count)
    for present, chosen in ((True, human & ~solid), (True, solid), (False, ~human)):
        index = torch.nonzero(chosen)[:, 0]
        if present:
            index = index[torch.argsort(sizes[index], stable=True)]
        # On an accelerator at least two groups by size, however small the batch.
        parts = max(1, -(-len(index) // clips), min(3, len(index) // 4) if device.type != "cpu" else 1)
        yield from (part for part in torch.tensor_split(index, parts) if len(part))
