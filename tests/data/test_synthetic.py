"""The synthetic world: repeatable, and its truth agrees with its pixels."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from xdyna.conditions.draw import draw_pose
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.keypoints import Keypoints
from xdyna.data.synthetic import (
    EXPRESSIONS,
    MOVING_SCENES,
    SCENES,
    SyntheticBatch,
    SyntheticParams,
    make_batch,
    render,
    sample_params,
)
from xdyna.data.synthetic.controls import draw_pose_maps, face_boxes, keep_boxes

SIZE = (64, 64)


def rendered(params: SyntheticParams, size: tuple[int, int] = SIZE, *, maps: bool = False) -> SyntheticBatch:
    return render(
        params.identity,
        params.motion,
        params.foreign,
        params.scene,
        params.times,
        size,
        human=params.human,
        company=params.company,
        maps=maps,
    )


def plainly(params: SyntheticParams) -> SyntheticParams:
    """Without what the camera adds, so that pixels can be compared."""
    look = dict(params.scene.appearance)
    for name in ("grain", "softness", "compression", "depth_blur", "vignette", "lift"):
        look[name] = torch.zeros_like(look[name])
    for name in ("gain", "gamma", "contrast", "saturation"):
        look[name] = torch.ones_like(look[name])
    return replace(params, scene=replace(params.scene, appearance=look))


@pytest.fixture(scope="module")
def batch() -> SyntheticBatch:
    return make_batch(11, 12, frames=3, size=SIZE, human_share=0.75)


@pytest.fixture(scope="module")
def people() -> SyntheticBatch:
    return make_batch(5, 16, frames=1, size=(96, 96), human_share=1.0)


def test_same_seed_same_bytes_and_another_seed_another_world() -> None:
    first, again = (make_batch(7, 4, frames=2, size=SIZE) for _ in range(2))
    for field in fields(SyntheticBatch):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name)), field.name
    other = make_batch(8, 4, frames=2, size=SIZE)
    assert (first.frames - other.frames).abs().mean() > 0.05


def test_shapes_ranges_and_dtypes(batch: SyntheticBatch) -> None:
    lead = (12, 4)
    for name, rest in {
        "frames": (3, *SIZE), "mask": (1, *SIZE), "pose": (3, *SIZE), "face_local": (3, *SIZE),
        "face_global": (3, *SIZE),
        "body": (18, 3), "left_hand": (21, 3), "right_hand": (21, 3), "face": (68, 3), "head": (3,),
        "expression": (len(EXPRESSIONS),), "camera": (4,),
    }.items():  # fmt: skip
        value = getattr(batch, name)
        assert value.shape == lead + rest, name
        assert torch.isfinite(value).all(), name
        assert value.dtype == torch.float32
    for name in ("frames", "mask", "pose", "face_local", "face_global"):
        value = getattr(batch, name)
        assert value.min() >= 0, name
        assert value.max() <= 1, name
    assert batch.human.dtype == batch.still.dtype == batch.company.dtype == torch.bool
    assert batch.speed.shape == batch.motion_energy.shape == (12,)
    assert batch.speed.dtype == batch.motion_energy.dtype == torch.float32
    assert batch.scene.dtype == torch.int64


def test_clips_without_people_are_blank_where_people_would_be(batch: SyntheticBatch) -> None:
    empty = ~batch.human
    assert 0 < int(empty.sum()) < 12
    for name in (
        "mask",
        "pose",
        "face_local",
        "face_global",
        "body",
        "left_hand",
        "right_hand",
        "face",
        "head",
    ):
        assert not getattr(batch, name)[empty].any(), name
        assert getattr(batch, name)[~empty].any(), name
    moving = torch.tensor([SCENES.index(name) for name in MOVING_SCENES])
    assert torch.isin(batch.scene[empty], moving).all()


@pytest.mark.parametrize("size", [(64, 64), (96, 54), (54, 96), (50, 70)])
def test_any_size(size: tuple[int, int]) -> None:
    clips = make_batch(3, 3, frames=1, size=size, human_share=1.0)
    assert clips.frames.shape[-2:] == size
    seen = clips.body[..., 2] > 0
    assert (clips.mask.flatten(2).mean(2) > 0.01).all()
    assert seen.any(2).all()
    assert (clips.body[..., 0][seen] < 1.1 * size[1] + 1e-3).all()
    assert (clips.body[..., 1][seen] < 1.1 * size[0] + 1e-3).all()


def test_world_is_the_same_at_another_size() -> None:
    params = plainly(sample_params(21, 3, frames=1, human_share=1.0))
    small, large = rendered(params, (64, 64)), rendered(params, (128, 128))
    assert torch.allclose(small.body[..., :2] * 2, large.body[..., :2], atol=1e-3)
    shrunk = torch.nn.functional.avg_pool2d(large.frames.flatten(0, 1), 2)
    assert (shrunk - small.frames.flatten(0, 1)).abs().mean() < 0.03


def test_keypoints_lie_on_the_person(people: SyntheticBatch) -> None:
    height, width = people.mask.shape[-2:]
    hits, total = 0, 0
    for name in ("body", "face"):
        points = getattr(people, name)
        x, y = points[..., 0].floor().long(), points[..., 1].floor().long()
        inside = (points[..., 2] > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        flat = people.mask.flatten(2)
        found = flat.gather(2, (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)))
        hits, total = hits + int(((found > 0.3) & inside).sum()), total + int(inside.sum())
    assert total > 1000
    assert hits / total > 0.95


def test_mask_is_where_the_person_is() -> None:
    params = plainly(sample_params(31, 6, frames=0, human_share=1.0))
    with_person = rendered(params)
    without = rendered(replace(params, human=torch.zeros(6, dtype=torch.bool)))
    changed = (with_person.frames - without.frames).abs().amax(2, keepdim=True) > 0.02
    mask = with_person.mask
    assert not (changed & (mask == 0)).any()
    assert changed[mask > 0.9].float().mean() > 0.9


def close_ups(values: dict[str, float], *, clips: int = 4) -> SyntheticBatch:
    """Faces from near, with some channels of the motion held at a value and the others at rest."""
    from xdyna.data.synthetic.motion import CHANNELS

    params = plainly(sample_params(41, clips, frames=0, human_share=1.0))
    motion = dict(params.motion)
    motion["framing"] = torch.zeros(clips)
    motion["rest"], motion["reach"] = torch.zeros(clips, len(CHANNELS)), torch.zeros(clips, len(CHANNELS))
    motion["blink_rate"], motion["blink_phase"] = torch.full((clips,), 0.25), torch.zeros(clips)
    for name, value in values.items():
        motion["rest"][:, CHANNELS.index(name)] = value
    identity = dict(params.identity)
    for name in ("glasses", "beard", "moustache", "hat"):
        identity[name] = torch.zeros(clips)
    times = torch.full((clips, 1), 2.0 if values.get("shut") else 0.0)
    return rendered(replace(params, motion=motion, identity=identity, times=times), (128, 128))


def eye_patch(clips: SyntheticBatch, index: int) -> torch.Tensor:
    centre = clips.face[index, 0, 36:42, :2].mean(0).long()
    x, y = int(centre[0]), int(centre[1])
    return clips.frames[index, 0, :, y - 6 : y + 6, x - 10 : x + 10]


def test_closed_lids_hide_the_white_of_the_eye() -> None:
    wide, shut = close_ups({"squint": 0.0}), close_ups({"squint": 1.0})
    assert (
        wide.expression[..., EXPRESSIONS.index("lid")] > shut.expression[..., EXPRESSIONS.index("lid")] + 0.5
    ).all()
    for i in range(4):
        whitest = [eye_patch(c, i).amin(0) for c in (wide, shut)]
        assert (whitest[0] > 0.6).sum() > (whitest[1] > 0.6).sum()
    gap = [(c.face[:, 0, 41, 1] - c.face[:, 0, 37, 1]) for c in (wide, shut)]
    assert (gap[0] > 1.8 * gap[1]).all()


def test_expressions_move_pixels_and_landmarks() -> None:
    rest = close_ups({})
    opened, smiling = close_ups({"mouth_open": 0.9}), close_ups({"smile": 0.9})
    assert torch.allclose(opened.expression[:, 0, 0], torch.tensor(0.9))

    def height(clips: SyntheticBatch) -> torch.Tensor:
        return clips.face[:, 0, 66, 1] - clips.face[:, 0, 62, 1]

    def corners(clips: SyntheticBatch) -> torch.Tensor:
        return clips.face[:, 0, 54, 0] - clips.face[:, 0, 48, 0]

    assert (height(opened) > height(rest) + 0.1 * rest.head[:, 0, 2]).all()
    assert (corners(smiling) > 1.15 * corners(rest)).all()
    for other in (
        opened,
        smiling,
        close_ups({"gaze_x": 1.0}),
        close_ups({"brow": 1.0}),
        close_ups({"yaw": 0.6}),
    ):
        assert ((other.frames - rest.frames).abs().amax((1, 2, 3, 4)) > 0.1).all()
    turned = close_ups({"yaw": 0.6})
    # The nose leads: it moves towards where the face turns, against the face's outline.
    middle = (turned.face[:, 0, 0, 0] + turned.face[:, 0, 16, 0]) / 2
    assert (turned.face[:, 0, 30, 0] > middle + 0.1 * turned.head[:, 0, 2]).all()


def test_layout_puts_the_right_side_on_the_pictures_left_and_brows_above_eyes(people: SyntheticBatch) -> None:
    face = people.face
    assert (face[..., 36, 0] < face[..., 45, 0]).all()
    assert (people.body[..., 2, 0] < people.body[..., 5, 0]).all()
    upright = (face[..., 19, 1] < face[..., 37, 1]) & (face[..., 41, 1] < face[..., 33, 1])
    assert upright.float().mean() > 0.95
    assert (face[..., 8, 1] > face[..., 57, 1]).all()


def test_still_backgrounds_stand_still_and_others_move() -> None:
    clips = make_batch(13, 16, frames=4, size=SIZE, human_share=1.0, still_share=0.5, maps=False)
    assert clips.still.any()
    assert not clips.still.all()
    # Softness and the blocks of the compression carry the person a few pixels outwards.
    near = torch.nn.functional.max_pool2d(clips.mask.amax(1), 19, stride=1, padding=9)[:, 0]
    for i in range(16):
        change = (clips.frames[i] - clips.frames[i, :1]).abs()[:, :, near[i] == 0]
        if clips.still[i]:
            assert change.numel() == 0 or float(change.max()) < 1e-5
        else:
            assert float(change.max()) > 0.02


def test_still_background_is_exactly_still_without_the_camera_s_traces() -> None:
    params = plainly(sample_params(17, 12, frames=3, human_share=1.0, still_share=1.0))
    clips = rendered(params)
    outside = (clips.mask == 0).all(1, keepdim=True).expand(-1, 4, 3, -1, -1)
    for i in range(12):
        if clips.still[i]:
            change = (clips.frames[i] - clips.frames[i, :1]).abs()
            assert float(change[outside[i]].max()) == 0


def test_moving_cameras_are_flagged_and_known() -> None:
    params = sample_params(19, 200, frames=2, still_share=1.0, human_share=1.0)
    share = float((params.scene.camera["moves"] > 0).float().mean())
    assert 0.02 < share < 0.2
    index = torch.nonzero(params.scene.camera["moves"])[:1, 0]
    chosen = params.scene.take(index)
    picked = [
        {k: v[index] for k, v in group.items()} for group in (params.identity, params.motion, params.foreign)
    ]
    clips = render(*picked, chosen, params.times[index] + torch.tensor([[0.0, 0.0, 3.0]]), SIZE, maps=False)
    assert not clips.still.any()
    assert float((clips.camera[0, 0] - clips.camera[0, 2]).abs().max()) > 0


def test_pose_maps_are_those_of_the_conditions_room(people: SyntheticBatch) -> None:
    size = (people.frames.shape[-2], people.frames.shape[-1])
    worst = 0.0
    for i in range(8):
        parts = {n: getattr(people, n)[i].numpy() for n in ("body", "left_hand", "right_hand", "face")}
        drawn = draw_pose(Keypoints(**parts, size=size), 1)
        ours = (people.pose[i, 1].permute(1, 2, 0).numpy() * 255).round()
        worst = max(worst, float(np.abs(ours - drawn.astype(np.float32)).mean()))
    assert worst < 0.2
    assert people.pose.amax((1, 2, 3, 4)).min() > 0.6


def test_pose_maps_with_landmarks_are_those_of_the_conditions_room() -> None:
    plain, marked = (
        make_batch(2, 4, frames=1, size=SIZE, human_share=1.0, landmarks=marked) for marked in (False, True)
    )
    for name in ("frames", "face_local", "face_global", "face", "body"):
        assert torch.equal(getattr(plain, name), getattr(marked, name)), "nothing else changes"
    size = (plain.frames.shape[-2], plain.frames.shape[-1])
    for i in range(4):
        parts = {n: getattr(marked, n)[i].numpy() for n in ("body", "left_hand", "right_hand", "face")}
        drawn = draw_pose(Keypoints(**parts, size=size), 1, landmarks=True)
        ours = (marked.pose[i, 1].permute(1, 2, 0).numpy() * 255).round()
        assert float(np.abs(ours - drawn.astype(np.float32)).mean()) < 0.2
    assert float((marked.pose - plain.pose).abs().mean()) > 1e-3
    blank = make_batch(2, 2, frames=1, size=(32, 32), human_share=0.0, landmarks=True)
    assert not blank.pose.any()


def test_points_without_a_score_are_not_drawn(people: SyntheticBatch) -> None:
    points = {n: getattr(people, n)[:2, 0].clone() for n in ("body", "left_hand", "right_hand")}
    for part in points.values():
        part[..., 2] = 0
    assert not draw_pose_maps(points, (96, 96), torch.device("cpu")).any()


def test_face_boxes_are_those_of_the_conditions_room(people: SyntheticBatch) -> None:
    size = (96, 96)
    box, patches = face_boxes(people.face[:, 0], size)
    for i in range(len(box)):
        frame = np.full((*size, 3), 255, np.uint8)
        local, whole = FaceTracker().step(frame, people.face[i, 0].numpy())
        white = torch.ones(1, 3, *size)
        for theirs, boxes in ((whole, box[i][None, None]), (local, patches[i][None])):
            ours = keep_boxes(white, boxes)[0].permute(1, 2, 0).numpy() * 255
            # Float rounding may move an edge by a pixel.
            assert (np.abs(ours - theirs) > 0).mean() < 0.03


def test_face_maps_show_another_identity_at_the_same_place(people: SyntheticBatch) -> None:
    shown = people.face_global.amax(2, keepdim=True) > 0
    local = people.face_local.amax(2, keepdim=True) > 0
    assert (local.flatten(1).sum(1) < shown.flatten(1).sum(1)).all()
    for i in range(16):
        centre = torch.nonzero(shown[i, 1, 0]).float().mean(0)
        head = people.head[i, 1]
        if 20 < head[0] < 76 and 20 < head[1] < 76 and head[2] < 20:
            assert abs(float(centre[1] - head[0])) < 0.8 * float(head[2])
    # Inside the box the pixels are not the person's own.
    both = shown & (people.mask > 0.9)
    difference = (people.face_global - people.frames).abs().mean(2, keepdim=True)
    assert float(difference[both].mean()) > 0.1


def test_foreign_face_follows_the_expression_not_the_identity() -> None:
    params = sample_params(23, 4, frames=1, human_share=1.0)
    swapped = replace(params, identity={k: v.flip(0) for k, v in params.identity.items()})
    own, other = rendered(params, maps=True), rendered(swapped, maps=True)
    assert torch.equal(own.expression, other.expression)
    assert (own.frames - other.frames).abs().mean() > 0.01


def test_one_person_with_anothers_motion() -> None:
    params = sample_params(29, 4, frames=2, human_share=1.0)
    driven = replace(
        params, motion={k: v.roll(1, 0) for k, v in params.motion.items()}, times=params.times.roll(1, 0)
    )
    own, crossed = rendered(params), rendered(driven)
    assert torch.equal(own.expression.roll(1, 0), crossed.expression)


def test_scatter_gives_other_moments() -> None:
    even, uneven = sample_params(1, 3, frames=5), sample_params(1, 3, frames=5, scatter=True)
    steps = even.times[:, 1:].diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 1 / 8), atol=1e-5)
    assert uneven.times[:, 1:].diff(dim=1).std() > 0.3


def test_without_maps_maps_are_zero_and_frames_the_same() -> None:
    full, bare = (make_batch(2, 2, frames=1, size=SIZE, human_share=1.0, maps=m) for m in (True, False))
    assert torch.equal(full.frames, bare.frames)
    assert not bare.pose.any()
    assert not bare.face_global.any()


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_fills_the_frame_with_varied_pictures(name: str) -> None:
    params = plainly(sample_params(37, 3, frames=2, human_share=0.0))
    kind = torch.full_like(params.scene.kind, SCENES.index(name))
    clips = rendered(replace(params, scene=replace(params.scene, kind=kind)))
    assert clips.frames.std((2, 3, 4)).min() > 0.01
    assert (clips.frames[0] - clips.frames[1]).abs().mean() > 0.02
    motion = (clips.frames[:, 1] - clips.frames[:, 2]).abs().mean((1, 2, 3))
    still = name not in MOVING_SCENES and not params.scene.camera["moves"].any()
    assert bool((motion == 0).all()) if still else bool((motion > 0).any())


def test_what_is_painted_for_all_groups_at_once_is_the_same_world(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"frames": 3, "size": SIZE, "modelled_share": 0.4, "company_share": 0.5}
    one_by_one = make_batch(7, 16, **given)
    assert one_by_one.company.any()
    # the package's function of the same name hides the module
    monkeypatch.setattr(sys.modules["xdyna.data.synthetic.render"], "_AHEAD", ("cpu",))
    together = make_batch(7, 16, **given)
    for name in ("mask", "pose", "face_local", "body", "expression", "still", "motion_energy"):
        assert torch.equal(getattr(one_by_one, name), getattr(together, name)), name
    # speckle follows the last bits of numbers, which vary with how many are computed together
    differs = (one_by_one.frames - together.frames).abs().mean((1, 2, 3, 4))
    assert differs.max() < 0.01
    assert differs.median() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_accelerator_shows_the_same_world() -> None:
    here = make_batch(7, 4, frames=2, size=SIZE)
    there = make_batch(7, 4, frames=2, size=SIZE, device="cuda")
    assert torch.equal(here.body, there.body.cpu())
    assert (here.frames - there.frames.cpu()).abs().mean() < 0.01
