from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_components
from xdyna.sampling import (
    ControlResiduals,
    Controls,
    Networks,
    Tokens,
    WindowPlan,
    denoise,
    guide,
    make_scheduler,
    normalise_condition,
    predict,
    set_timesteps,
    start_latents,
)

FRAMES, SIDE = 7, 8


@pytest.fixture(scope="module")
def parts() -> dict[str, object]:
    return tiny_components()


def conditions(channels: int) -> tuple[list[list[int]], object]:
    calls: list[list[int]] = []
    pictures = torch.rand(
        1, FRAMES, channels, 8 * SIDE, 8 * SIDE, generator=torch.Generator().manual_seed(channels)
    )

    def source(indices: Sequence[int]) -> Tensor:
        calls.append(list(indices))
        return pictures[:, list(indices)]

    return calls, source


def networks(parts: dict) -> Networks:
    return Networks(parts["unet"], parts["pose_controlnet"], parts["face_controlnet"])


def run(parts: dict, *, made: Networks | None = None, **changes: object) -> Tensor:
    scheduler = make_scheduler(None, parts["scheduler"])
    set_timesteps(scheduler, 2, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(1, 4, SIDE, SIDE, generator=generator)
    latents = start_latents(reference, FRAMES, scheduler, generator=generator)
    settings: dict = {
        "controls": Controls(conditions(3)[1], conditions(6)[1]),
        "plan": WindowPlan(4, 1, "closed"),
        "generator": generator,
    }
    with torch.inference_mode():
        return denoise(
            made or networks(parts), scheduler, reference=reference, latents=latents, **(settings | changes)
        )


def test_same_seed_same_bytes_over_several_windows(parts: dict) -> None:
    assert torch.equal(run(parts), run(parts))


def test_controls_act_and_scale_zero_is_off(parts: dict) -> None:
    plain = run(parts, controls=Controls())
    off = run(parts, controls=Controls(conditions(3)[1], conditions(6)[1], 0.0, 0.0))
    assert torch.equal(plain, off)
    assert not torch.allclose(plain, run(parts), atol=1e-3)


def test_reference_scale_acts(parts: dict) -> None:
    assert not torch.allclose(run(parts), run(parts, reference_scale=0.0), atol=1e-3)


def test_controlnets_run_once_a_frame_and_step(parts: dict) -> None:
    calls, source = conditions(3)
    run(parts, controls=Controls(pose=source))
    assert sorted(frame for call in calls for frame in call) == sorted(list(range(FRAMES)) * 2)


def test_shared_residuals_equal_those_of_a_window_alone(parts: dict) -> None:
    windows = [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 0, 1]]
    latents = torch.randn(1, 4, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    controls = Controls(conditions(3)[1], conditions(6)[1])
    time = torch.tensor(500)
    with torch.inference_mode():
        shared = ControlResiduals(networks(parts), controls, latents, time, [Tokens()], windows)
        for number, window in enumerate(windows):
            alone = ControlResiduals(networks(parts), controls, latents, time, [Tokens()], [window])
            for ours, theirs in zip(shared.of_window(number)[0], alone.of_window(0)[0], strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
                assert not ours[:, :, 0].any()


def test_guidance_formula() -> None:
    halves = torch.randn(2, 1, 4, 3, 2, 2)
    torch.testing.assert_close(guide(halves, 7.5), halves[0] + 7.5 * (halves[1] - halves[0]))
    assert torch.equal(guide(halves[:1], 7.5), halves[0])


def test_guidance_below_one_works_and_one_runs_one_half(parts: dict) -> None:
    empty = Tokens()
    half = run(parts, guidance=0.5, negative=empty)
    # both halves see the same, so guiding changes nothing
    torch.testing.assert_close(half, run(parts, guidance=1.0, negative=empty), atol=1e-4, rtol=1e-4)


def test_prediction_leaves_the_reference_out(parts: dict) -> None:
    with torch.inference_mode():
        out = predict(
            parts["unet"],
            reference=torch.zeros(1, 4, SIDE, SIDE),
            latents=torch.zeros(1, 4, 5, SIDE, SIDE),
            timestep=torch.tensor(1),
            halves=[Tokens(), Tokens()],
        )
    assert out.shape == (2, 1, 4, 5, SIDE, SIDE)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmsolver++", "lcm", "unipc", "DDPMScheduler", "heun"])
def test_other_schedulers_run(parts: dict, name: str) -> None:
    scheduler = make_scheduler(name, parts["scheduler"])
    set_timesteps(scheduler, 3, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(1, 4, SIDE, SIDE, generator=generator)
    latents = start_latents(reference, 3, scheduler, generator=generator)
    with torch.inference_mode():
        out = denoise(networks(parts), scheduler, reference=reference, latents=latents, generator=generator)
    assert out.isfinite().all()


def test_injected_draws_replace_the_generator() -> None:
    parts = tiny_components()
    scheduler = make_scheduler("ddim", parts["scheduler"])
    scheduler = type(scheduler).from_config(scheduler.config, rescale_betas_zero_snr=False)
    set_timesteps(scheduler, 4, torch.device("cpu"))
    reference = torch.randn(1, 4, SIDE, SIDE)
    ones, zeros = torch.ones(1, 4, 3, SIDE, SIDE), torch.zeros(1, 4, 3, SIDE, SIDE)
    start = start_latents(reference, 2, scheduler, mask=ones, noise=zeros)
    scale = scheduler.alphas_cumprod[scheduler.timesteps[0]].sqrt()
    torch.testing.assert_close(start[:, :, 0], scale * reference)


def test_constant_condition_gives_zeros_not_nan() -> None:
    pictures = torch.full((2, 4, 4, 3), 9, dtype=torch.uint8)
    assert torch.equal(normalise_condition(pictures), torch.zeros(2, 3, 4, 4))


def test_condition_is_stretched_by_the_whole_clip() -> None:
    pictures = torch.tensor([10, 60], dtype=torch.uint8).view(2, 1, 1, 1)
    assert normalise_condition(pictures).flatten().tolist() == [0.0, 1.0]
    assert normalise_condition(pictures[:1], low=0, high=100).item() == pytest.approx(0.1)
