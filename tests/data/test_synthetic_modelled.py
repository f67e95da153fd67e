"""Modelled people: the body's file, the rasteriser, and that what is known of a picture is what it shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from xdyna.data.synthetic import SyntheticBatch, SyntheticParams, make_batch, render, sample_params
from xdyna.data.synthetic.modelled.asset import BODY_FILE, body_on, load_body
from xdyna.data.synthetic.modelled.people import ModelledTroupe
from xdyna.data.synthetic.modelled.picture import light_up
from xdyna.data.synthetic.modelled.raster import rasterise
from xdyna.data.synthetic.modelled.shape import rest_bodies, sample_modelled
from xdyna.data.synthetic.motion import CHANNELS
from xdyna.data.synthetic.people import Cast
from xdyna.errors import InputError

SIZE = (96, 96)
CPU = torch.device("cpu")


def rendered(params: SyntheticParams, *, size: tuple[int, int] = SIZE) -> SyntheticBatch:
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human, modelled=params.modelled, maps=False,
    )  # fmt: skip


def people(seed: int, batch: int, *, frames: int = 1, framing: float | None = None) -> SyntheticParams:
    """Modelled people before still cameras, all of one framing (0 close, 1 half, 2 full) if one is given."""
    params = sample_params(
        seed, batch, frames=frames, human_share=1.0, moving_camera_share=0.0, modelled_share=1.0
    )
    if framing is None:
        return params
    return replace(params, motion=params.motion | {"framing": torch.full((batch,), framing)})


def held(params: SyntheticParams, **channels: float) -> SyntheticParams:
    """The same people, who keep still and hold some channels of their motion at a value; nobody blinks."""
    rest = params.motion["rest"].clone()
    quiet = {
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "pucker": 0.0,
        "squint": 0.0,
        "smile": 0.0,
        "mouth_open": 0.0,
    }
    for name, value in (quiet | channels).items():
        rest[:, CHANNELS.index(name)] = value
    still = torch.zeros_like(params.motion["reach"])
    blink = torch.zeros_like(params.motion["blink_phase"])
    motion = params.motion | {"rest": rest, "reach": still, "blink_phase": blink, "step": blink}
    return replace(params, motion=motion, times=torch.zeros_like(params.times))


def landmarks(params: SyntheticParams) -> Tensor:
    """The first frames' landmarks (b 68 2), in heads: half the head's height is 1."""
    batch = rendered(params)
    head = batch.head[:, 0]
    return (batch.face[:, 0, :, :2] - head[:, None, :2]) / head[:, None, 2:]


def test_the_body_ships_small_and_whole() -> None:
    assert BODY_FILE.stat().st_size < 3 * 2**20
    with safe_open(BODY_FILE, "pt") as file:
        assert file.metadata()["licence"] == "CC0-1.0 AND Apache-2.0"
    body = load_body()
    assert body.triangles.max() < len(body.mean)
    assert body.marks.max() < len(body.mean)
    torch.testing.assert_close(body.weights.sum(1), torch.ones(len(body.mean)))
    torch.testing.assert_close(body.mark_shares.sum(1), torch.ones(68))
    assert torch.isfinite(body.shapes).all()


def test_a_missing_or_broken_body_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_body(tmp_path / "body.safetensors")
    (tmp_path / "body.safetensors").write_bytes(b"not a body")
    with pytest.raises(InputError, match="not a body"):
        load_body(tmp_path / "body.safetensors")


def test_bodies_stand_on_the_ground_and_differ() -> None:
    params = sample_params(3, 6)
    rest = rest_bodies(body_on(CPU), params.identity, sample_modelled(3, 6, 1.0))
    points, bones, eyes = rest.skin, rest.bones, rest.eyes
    torch.testing.assert_close(points[..., 1].amax(1), torch.zeros(6))
    torch.testing.assert_close(points[..., 1].amin(1), -torch.ones(6))
    assert points.std(0).amax() > 0.005
    # Eyes lie in the head, right ones on the picture's left.
    assert (eyes[:, 0, 0] < 0).all()
    assert (eyes[:, 1, 0] > 0).all()
    assert ((eyes[..., 1] < bones[:, body_on(CPU).bone("neck01"), 1, None]) & (eyes[..., 1] > -1)).all()


def test_the_rasteriser_shows_the_nearest_surface_where_it_is() -> None:
    """Two squares of known places: which one each pixel shows, and where in it, is known in closed form."""
    square = torch.tensor([[2.0, 2.0], [10.0, 2.0], [10.0, 10.0], [2.0, 10.0]])
    near, far = torch.full((4, 1), 1.0), torch.full((4, 1), 0.0)
    points = torch.cat([torch.cat([square, far], 1), torch.cat([square + 4, near], 1)])[None]
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    never = torch.full((4,), -9.0)
    keep = torch.ones(1, 8)
    shown = rasterise(points, triangles, keep, (16, 16), behind=never)
    picture = torch.zeros(256, dtype=torch.long)
    picture[shown.pixel] = 1 + torch.div(shown.triangle, 2, rounding_mode="floor")
    expected = torch.zeros(16, 16, dtype=torch.long)
    expected[2:10, 2:10] = 1
    expected[6:14, 6:14] = 2
    assert torch.equal(picture.view(16, 16), expected)
    place = shown.at(points)
    rows, columns = torch.div(shown.pixel, 16, rounding_mode="floor"), shown.pixel % 16
    torch.testing.assert_close(place[:, :2], torch.stack([columns + 0.5, rows + 0.5], 1))
    # A surface ends where `keep` falls below 0, and shows its back only where it may.
    keep[0, :4] = torch.tensor([1.0, -1.0, -1.0, 1.0])
    half = rasterise(points, triangles[:2], keep, (16, 16), behind=never[:2])
    assert sorted(set((half.pixel % 16).tolist())) == [2, 3, 4, 5]
    turned = triangles.flip(1)
    assert len(rasterise(points, turned, torch.ones(1, 8), (16, 16), behind=never).pixel) == 0
    assert len(rasterise(points, turned, torch.ones(1, 8), (16, 16), behind=-never).pixel) == len(shown.pixel)


def test_a_modelled_share_changes_nothing_but_the_people() -> None:
    drawn, mixed = (sample_params(5, 6, frames=1, modelled_share=share) for share in (0.0, 0.5))
    for name, value in drawn.identity.items():
        assert torch.equal(value, mixed.identity[name])
    assert torch.equal(drawn.scene.texture, mixed.scene.texture)
    assert 0 < int(mixed.modelled["here"].sum()) < 6
    assert int(drawn.modelled["here"].sum()) == 0
    options = {"frames": 1, "size": (48, 48), "maps": False, "company_share": 0.0}
    first, second = make_batch(5, 6, **options), make_batch(5, 6, modelled_share=0.5, **options)
    assert torch.equal(first.frames[~second.modelled], second.frames[~second.modelled])
    assert not torch.equal(first.frames[second.modelled], second.frames[second.modelled])
    assert not first.modelled.any()
    assert second.human[second.modelled].all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (make_batch(7, 2, frames=1, size=(64, 64), modelled_share=1.0) for _ in range(2))
    for name in ("frames", "mask", "pose", "face_global", "face_local", "body", "face"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("framing", [0.0, 1.0, 2.0])
def test_what_is_known_lies_on_the_person(framing: float) -> None:
    batch = rendered(people(11, 5, framing=framing), size=(128, 128))
    # A few pixels of slack: a joint lies inside the limb, a landmark of the jaw on the face's edge.
    near = torch.nn.functional.max_pool2d(batch.mask.flatten(0, 1), 7, 1, 3).unflatten(
        0, batch.mask.shape[:2]
    )
    for name, least in (("body", 0.97), ("face", 0.99), ("left_hand", 0.95), ("right_hand", 0.95)):
        points = getattr(batch, name)
        x, y = points[..., 0].long(), points[..., 1].long()
        seen = (points[..., 2] > 0) & (x >= 0) & (y >= 0) & (x < 128) & (y < 128)
        if "hand" in name and framing < 2:
            continue  # a hand may be outside of the picture
        clip, frame, _ = torch.nonzero(seen, as_tuple=True)
        inside = near[clip, frame, 0, y[seen], x[seen]] > 0.5
        assert inside.float().mean() >= least, name
    assert (batch.mask.flatten(2).amax(2) == 1).all()
    head = batch.head
    away = (batch.face[..., :2] - head[..., None, :2]).norm(dim=-1) / head[..., None, 2]
    assert (away < 1.5).all()


def test_joints_go_where_the_drawn_persons_would() -> None:
    """A modelled person and a drawn one of the same proportions take the same pose."""
    params = people(13, 6, framing=2.0)
    cast = Cast(params.identity, params.motion, params.scene, params.times, 1.0, modelled=params.modelled)
    index = torch.arange(6)
    drawn, modelled = cast.take(index), cast.take(index, ModelledTroupe)
    for name in ("right_elbow", "left_wrist", "right_ankle", "head"):
        apart = (drawn.joints[name] - modelled.joints[name]).norm(dim=1) / drawn.joints["scale"]
        assert apart.median() < 0.08, name


@pytest.mark.parametrize(
    ("channel", "low", "high", "upper", "lower"),
    [
        ("mouth_open", 0.0, 1.0, slice(61, 64), slice(65, 68)),
        ("brow", 0.8, -0.8, slice(17, 27), slice(36, 48)),
        ("smile", 1.0, -0.6, [48, 54], [57]),
    ],
)
def test_expressions_move_landmarks(
    channel: str, low: float, high: float, upper: slice | list[int], lower: slice | list[int]
) -> None:
    """From the low to the high value, points of the upper set and of the lower one come apart or nearer."""
    params = people(17, 3, framing=0.0)
    gaps = []
    for value in (low, (low + high) / 2, high):
        points = landmarks(held(params, **{channel: value}))[..., 1]
        gaps.append(points[:, lower].mean(1) - points[:, upper].mean(1))
    difference = torch.stack(gaps).diff(dim=0)
    assert (difference > 0).all() if channel == "mouth_open" else (difference < 0).all()


def test_lids_shut_and_eyes_turn() -> None:
    params = held(people(19, 3, framing=0.0))
    shut = replace(params, motion=params.motion | {"blink_phase": torch.full((3,), 0.5)})
    open_eye, shut_eye = (landmarks(p)[..., 1] for p in (params, shut))
    for upper, lower in (((37, 38), (40, 41)), ((43, 44), (46, 47))):
        gap = [points[:, lower].mean(1) - points[:, upper].mean(1) for points in (open_eye, shut_eye)]
        assert (gap[1] < 0.35 * gap[0]).all()
    right, left = (
        rendered(held(people(19, 3, framing=0.0), gaze_x=value), size=(160, 160)) for value in (1.0, -1.0)
    )
    assert torch.equal(right.face, left.face)
    changed = (right.frames[:, 0] - left.frames[:, 0]).abs().amax(1)
    for clip in range(3):
        rows, columns = torch.nonzero(changed[clip] > 0.04, as_tuple=True)
        assert len(rows)
        eyes = right.face[clip, 0, 36:48, :2]
        places = torch.stack([columns, rows], 1) + 0.5
        # Nothing but the eyes (and what the film's softness makes of them) has changed.
        assert (places > eyes.amin(0) - 12).all()
        assert (places < eyes.amax(0) + 12).all()


def test_maps_go_with_modelled_people() -> None:
    batch = make_batch(23, 2, frames=1, size=(96, 96), human_share=1.0, modelled_share=1.0)
    assert batch.pose.amax() > 0.5
    for clip in range(2):
        if (batch.face[clip, 1, :, 2] > 0).all():
            assert batch.face_global[clip, 1].amax() > 0


def test_only_the_search_for_pixels_looks_at_values() -> None:
    # A meta tensor has no values: whoever asks for one, or mixes devices, gets an error.
    device = torch.device("meta")
    params = people(31, 2, frames=1)
    cast = Cast(params.identity, params.motion, params.scene, params.times, 1.0, modelled=params.modelled)
    troupe = cast.take(torch.arange(2), ModelledTroupe)
    assert isinstance(troupe, ModelledTroupe)
    light = params.scene.appearance["light"].repeat_interleave(2, 0)
    layers, painter, posed = troupe.posed(device, light)
    assert posed.points.device == posed.keep.device == device
    assert posed.points.shape == (4, len(layers.canon), 3)
    pixels, rows = torch.zeros(9, 3, device=device), torch.zeros(9, dtype=torch.long, device=device)
    for paint in painter.by_layer.values():
        looks = paint(rows, pixels, rows, rows)
        lit = light_up(looks, pixels, pixels[:, 0], pixels[:, 0], posed.light[rows])
        assert lit.device == device
        assert lit.shape == (9, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_paints_the_same_people() -> None:
    options = {"frames": 2, "size": (128, 128), "human_share": 1.0, "modelled_share": 1.0}
    here, there = make_batch(29, 3, **options), make_batch(29, 3, device="cuda", **options)
    assert torch.equal(here.face, there.face.cpu())
    apart = (here.frames - there.frames.cpu()).abs()
    assert apart.mean() < 2e-3
    assert (here.mask - there.mask.cpu()).abs().mean() < 2e-3
