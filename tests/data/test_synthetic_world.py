"""What moves in the synthetic world beside the driven person: scene, camera, hair and cloth, company."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from xdyna.data.synthetic import (
    MOVING_SCENES,
    SCENES,
    STILL_SCENES,
    SyntheticBatch,
    SyntheticParams,
    make_batch,
    render,
    sample_params,
)
from xdyna.data.synthetic.camera import camera_at, project, unproject
from xdyna.data.synthetic.draws import Draws
from xdyna.data.synthetic.tempo import SPEEDS, sample_tempo, scene_time, wind_at
from xdyna.data.synthetic.trailing import HEM, MOMENTS, STEP, Spring, hang, trail

SIZE = (64, 64)


def rendered(params: SyntheticParams, *, size: tuple[int, int] = SIZE, people: bool = True) -> SyntheticBatch:
    return render(
        params.identity, params.motion, params.foreign, params.scene, params.times, size,
        human=params.human & people, company=params.company, maps=False,
    )  # fmt: skip


def in_scene(params: SyntheticParams, name: str, *, speed: float = 1.0) -> SyntheticParams:
    """The same clips before one kind of scene at one speed."""
    tempo = params.scene.tempo | {"speed": torch.full_like(params.scene.tempo["speed"], speed)}
    kind = torch.full_like(params.scene.kind, SCENES.index(name))
    return replace(params, scene=replace(params.scene, kind=kind, tempo=tempo))


def test_there_are_many_scenes() -> None:
    assert len(MOVING_SCENES) >= 25
    assert len(STILL_SCENES) >= 6
    assert set(MOVING_SCENES) | set(STILL_SCENES) == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_scenes_are_functions_of_place_and_time(name: str) -> None:
    params = in_scene(sample_params(3, 1, frames=2, human_share=0.0, moving_camera_share=0.0), name)
    forth = rendered(params)
    back = rendered(replace(params, times=params.times.flip(1)))
    assert torch.equal(forth.frames.flip(1), back.frames)


@pytest.mark.parametrize("name", MOVING_SCENES)
def test_scenes_have_a_speed_and_can_be_frozen(name: str) -> None:
    params = sample_params(53, 2, frames=3, human_share=0.0, moving_camera_share=0.0)
    moving, frozen = (rendered(in_scene(params, name, speed=speed)) for speed in (1.0, 0.0))
    assert (moving.motion_energy > 0).all()
    assert not moving.still.any()
    assert torch.equal(frozen.motion_energy, torch.zeros(2))
    assert frozen.still.all()
    assert torch.equal(frozen.frames, frozen.frames[:, :1].expand_as(frozen.frames))


def test_slower_scenes_change_less() -> None:
    params = sample_params(59, 6, frames=4, human_share=0.0, moving_camera_share=0.0)
    energy = [rendered(in_scene(params, "underwater", speed=s)).motion_energy.mean() for s in (0.25, 0.5, 1)]
    assert energy[0] < 0.85 * energy[1] < 0.85**2 * energy[2]


def test_motion_energy_is_that_of_the_scene_without_people() -> None:
    params = sample_params(61, 10, frames=3, human_share=1.0, still_share=0.4, company_share=0.3)
    full, empty = rendered(params), rendered(params, people=False)
    shown = 255 * empty.frames[:, 1:].diff(dim=1).abs().mean((1, 2, 3, 4))
    assert torch.allclose(empty.motion_energy, shown, atol=1e-4)
    assert torch.allclose(full.motion_energy, empty.motion_energy, atol=1e-4)
    assert (full.motion_energy > 0).any()
    assert torch.equal(full.motion_energy == 0, empty.still)


def test_shares_are_obeyed() -> None:
    params = sample_params(
        67, 400, frames=1, moving_camera_share=0.5, company_share=0.25, frozen_share=0.3
    )  # fmt: skip
    camera, tempo = params.scene.camera, params.scene.tempo
    assert float((camera["moves"] > 0).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert float(params.company.here.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert float((tempo["speed"] == 0).float().mean()) == pytest.approx(0.3, abs=0.07)
    calm = sample_params(67, 50, frames=1, moving_camera_share=0, company_share=0, frozen_share=0)
    assert not calm.scene.camera["moves"].any()
    assert not calm.company.here.any()
    assert (calm.scene.tempo["speed"] > 0).all()
    assert torch.equal(camera_at(calm.scene.camera, calm.times)[..., 1:], torch.zeros(50, 2, 3))


def test_every_moving_camera_moves_and_some_roll() -> None:
    params = sample_params(71, 60, frames=2, moving_camera_share=1.0)
    view = camera_at(params.scene.camera, torch.arange(0, 6, 0.25).expand(60, -1))
    reach = view.amax(1) - view.amin(1)
    assert (reach.amax(1) > 0).all()
    assert 0.3 < float((reach[:, 3] > 0).float().mean()) < 0.9
    assert 0.02 < float(reach[:, 3].max()) < 0.3
    assert float((view[..., 1:3].abs()).max()) < 0.25


def test_projection_and_its_inverse() -> None:
    params = sample_params(73, 5, frames=3, moving_camera_share=1.0)
    view = camera_at(params.scene.camera, params.times)
    points, middle = torch.rand(20, 7, 2), torch.tensor([0.7, 0.5])
    seen = project(points, view.flatten(0, 1), middle) - middle
    x, y = unproject(*(part.reshape(5, 4, 7, 1) for part in seen.unbind(-1)), view)
    found = torch.stack([x, y], -1).reshape(20, 7, 2) + middle
    assert torch.allclose(found, points, atol=1e-5)


def test_the_camera_is_what_is_said() -> None:
    params = sample_params(79, 4, frames=2, human_share=0.0, moving_camera_share=1.0)
    params = in_scene(params, "room")
    look = {name: torch.zeros_like(value) for name, value in params.scene.appearance.items()}
    for name in ("gain", "gamma", "contrast", "saturation"):
        look[name] = torch.ones_like(params.scene.appearance[name])
    params = replace(params, scene=replace(params.scene, appearance=look))
    at_rest = replace(
        params, scene=replace(params.scene, camera={k: 0 * v for k, v in params.scene.camera.items()})
    )
    size = (96, 96)
    moved, still = rendered(params, size=size), rendered(at_rest, size=size)
    zoom, pan_x, pan_y, roll = (part[..., None, None] for part in moved.camera.unbind(-1))
    # Where each pixel of the moved frame comes from, from the camera alone.
    rows, columns = torch.meshgrid(torch.arange(96) + 0.5 - 48, torch.arange(96) + 0.5 - 48, indexing="ij")
    x, y = (columns - pan_x) / zoom, (rows - pan_y) / zoom
    x, y = x * roll.cos() + y * roll.sin(), y * roll.cos() - x * roll.sin()
    grid = torch.stack([x, y], -1).flatten(0, 1) / 48
    warped = torch.nn.functional.grid_sample(still.frames.flatten(0, 1), grid, align_corners=False)
    # The frame's edges come from outside of the still picture.
    inner = (grid.abs() < 0.95).all(-1)[:, None].expand_as(warped)
    before = (moved.frames - still.frames).flatten(0, 1).abs()[inner].mean()
    after = (moved.frames.flatten(0, 1) - warped).abs()[inner].mean()
    assert after < 0.4 * before


def test_keypoints_follow_the_camera() -> None:
    params = sample_params(83, 4, frames=2, human_share=1.0, moving_camera_share=1.0)
    at_rest = replace(
        params, scene=replace(params.scene, camera={k: 0 * v for k, v in params.scene.camera.items()})
    )
    moved, still = rendered(params), rendered(at_rest)
    view = moved.camera.flatten(0, 1) / torch.tensor([1.0, 64, 64, 1])
    for name in ("body", "left_hand", "face"):
        there = project(getattr(still, name).flatten(0, 1)[..., :2] / 64, view, torch.tensor([0.5, 0.5]))
        found = getattr(moved, name).flatten(0, 1)[..., :2] / 64
        # A turned head is drawn upright in the head's frame, so the face agrees but for rounding.
        assert torch.allclose(found, there, atol=2e-3), name


def test_company_is_seen_and_nothing_else_changes() -> None:
    params = sample_params(89, 6, frames=2, human_share=1.0, still_share=1.0, company_share=1.0)
    both = rendered(params)
    alone = rendered(replace(params, company=replace(params.company, here=torch.zeros(6, dtype=torch.bool))))
    for name in ("mask", "body", "left_hand", "right_hand", "face", "head", "expression", "motion_energy"):
        assert torch.equal(getattr(both, name), getattr(alone, name)), name
    assert both.company.all()
    assert not both.still.any()
    assert not alone.company.any()
    changed = ((both.frames - alone.frames).abs() > 0.05).any(2).float().mean((1, 2, 3))
    assert (changed > 0.01).all()
    # They stand behind: where the person is, nothing changes (but near edges, by the film's softness).
    inside = torch.nn.functional.avg_pool2d(both.mask.flatten(0, 1), 9, 1, 4)[:, 0] > 0.999
    difference = (both.frames - alone.frames).abs().amax(2).flatten(0, 1)
    assert float(difference[inside].mean()) < 0.01


def test_company_needs_a_person() -> None:
    clips = make_batch(97, 6, frames=1, size=SIZE, human_share=0.0, company_share=1.0, maps=False)
    assert not clips.company.any()


@pytest.mark.parametrize("spring", [HEM, Spring(1.2, 0.3)])
def test_a_trail_is_a_damped_spring(spring: Spring) -> None:
    past = STEP * torch.arange(MOMENTS)

    def body(time: torch.Tensor) -> torch.Tensor:
        return (2 * math.pi * 0.4 * time).sin() + 0.4 * (2 * math.pi * 0.9 * time + 1).sin()

    times = torch.linspace(5, 8, 40)
    ours = trail(body(times[:, None] - past)[None], spring)[0]
    # The same spring, simulated in small steps from long before.
    step, place, speed, found = 0.0005, 0.0, 0.0, []
    rate = 2 * math.pi * spring.rate
    wanted = [round(float(time) / step) for time in times]
    for i in range(wanted[-1] + 1):
        now = math.sin(0.8 * math.pi * i * step) + 0.4 * math.sin(1.8 * math.pi * i * step + 1)
        if i in wanted:
            found.append(place - now)
        speed += step * (rate**2 * (now - place) - 2 * spring.damping * rate * speed)
        place += step * speed
    expected = torch.tensor(found)
    agreement = torch.corrcoef(torch.stack([ours, expected]))[0, 1]
    assert float(agreement) > 0.93
    assert (ours - expected).abs().mean() < 0.4 * expected.abs().mean()


def test_a_trail_rests_overshoots_and_comes_to_rest() -> None:
    assert float(trail(torch.ones(1, 1, MOMENTS), HEM)) == pytest.approx(0, abs=1e-5)
    # The body jumped by 1 so many moments ago.
    jumps = [
        float(trail((torch.arange(MOMENTS) < since).float()[None, None], HEM)) for since in range(1, MOMENTS)
    ]
    assert jumps[0] < -0.9
    assert max(jumps) > 0.1


def hung(windy: float, *, side: float = 1.0) -> dict[str, torch.Tensor]:
    params = sample_params(101, 8, frames=3, human_share=1.0)
    tempo = params.scene.tempo | {"wind": torch.full((8,), side)}
    placed = {"scale": torch.ones(8), "x": torch.full((8,), 0.5), "y": torch.full((8,), 0.3)}
    clips = {"identity": params.identity, "motion": params.motion}
    return hang(clips, placed, tempo, params.times, torch.full((8,), windy))


def test_wind_blows_hair_and_cloth_its_way() -> None:
    calm, right, left = hung(0.0), hung(1.0), hung(1.0, side=-1.0)
    for name in ("sway_tip", "hem_lag"):
        assert (right[name] - calm[name]).mean() > 0.02
        assert (left[name] - calm[name]).mean() < -0.02
    ends = [values["scarf"][:, :, -1] for values in (calm, right, left)]
    assert (ends[1][..., 0] > ends[0][..., 0]).float().mean() > 0.9
    assert (ends[2][..., 0] < ends[0][..., 0]).float().mean() > 0.9
    length = sample_params(101, 8, frames=3).identity["scarf_long"]
    spans = right["scarf"].diff(dim=2).norm(dim=-1).sum(2)
    assert torch.allclose(spans, length[:, None].expand_as(spans), rtol=1e-3)


def test_long_hair_moves_pixels_after_the_head() -> None:
    params = in_scene(sample_params(103, 4, frames=0, human_share=1.0, company_share=0.0), "dust")
    identity = params.identity | {"cut": torch.full((4,), 6.0), "hair_here": torch.ones(4)}
    identity |= {"hair_length": torch.full((4,), 2.0), "hat": torch.zeros(4)}
    motion = params.motion | {"framing": torch.ones(4)}
    params = replace(params, identity=identity, motion=motion)
    calm = params.scene.tempo | {"wind": torch.zeros(4)}
    still_air = rendered(replace(params, scene=replace(params.scene, tempo=calm)), size=(96, 96))
    blown = rendered(params, size=(96, 96))
    changed = (still_air.mask - blown.mask).abs().flatten(1).sum(1)
    assert (changed > 10).all()


def test_clocks_and_winds() -> None:
    drawn = sample_tempo(Draws(1, 300), 0.1)
    moving = drawn["speed"] > 0
    assert float(drawn["speed"][moving].min()) >= SPEEDS[0] - 1e-6
    assert float(drawn["speed"].max()) <= SPEEDS[1] + 1e-6
    times = torch.tensor([[0.0, 1.0, 3.0]]).expand(300, -1)
    steps = scene_time(drawn, times).diff(dim=1)
    assert torch.allclose(steps[:, 1], 2 * drawn["speed"], atol=1e-4)
    wind = wind_at(drawn, scene_time(drawn, times))
    assert (wind.sign() == drawn["wind"].sign()[:, None]).all()
    assert float(wind.abs().max()) <= 1


def every_scene(*, frames: int, **shares: float) -> SyntheticParams:
    """A clip before each kind of scene."""
    params = sample_params(107, len(SCENES), frames=frames, **shares)
    kind = torch.arange(len(SCENES))
    return replace(params, scene=replace(params.scene, kind=kind))


@pytest.mark.parametrize("people", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rendering_never_waits_for_the_device(people: bool) -> None:
    # A meta tensor has no values: whoever asks for one, or mixes devices, gets an error.
    params = every_scene(frames=2, company_share=1.0, moving_camera_share=0.4)
    # Texture look-ups are slow on this device: behind people, one scene will do.
    index = torch.arange(1) if people else torch.arange(len(SCENES))
    human = torch.full((len(index),), people)
    groups = [
        {name: value[index] for name, value in part.items()}
        for part in (params.identity, params.motion, params.foreign)
    ]
    clips = render(
        *groups, params.scene.take(index), params.times[index], (32, 32),
        human=human, company=params.company.take(index), device="meta",
    )  # fmt: skip
    assert clips.frames.shape == (len(index), 3, 3, 32, 32)
    assert clips.frames.device == clips.motion_energy.device == clips.camera.device == torch.device("meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_accelerator_shows_the_same_scenes_company_and_energy() -> None:
    params = every_scene(frames=2, human_share=0.5, company_share=0.5, moving_camera_share=0.3)

    def on(device: str) -> SyntheticBatch:
        return render(
            params.identity, params.motion, params.foreign, params.scene, params.times, SIZE,
            human=params.human, company=params.company, device=device, maps=False,
        )  # fmt: skip

    here, there = on("cpu"), on("cuda")
    apart = (here.frames - there.frames.cpu()).abs().mean((1, 2, 3, 4))
    assert (apart < 0.01).all(), [SCENES[params.scene.kind[i]] for i in torch.nonzero(apart >= 0.01)[:, 0]]
    assert torch.allclose(here.motion_energy, there.motion_energy.cpu(), rtol=0.05, atol=0.05)
    assert torch.equal(here.still, there.still.cpu())
