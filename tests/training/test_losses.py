from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler

from xdyna.training.config import LossConfig, NoiseConfig
from xdyna.training.losses import (
    MOST_FACE,
    add_noise,
    detail_weights,
    kl_loss,
    prediction_loss,
    prediction_target,
    reconstruction_loss,
)
from xdyna.training.networks import build_scheduler


def test_noise_and_velocity_agree_with_the_scheduler() -> None:
    scheduler = build_scheduler(NoiseConfig())
    assert isinstance(scheduler, DDIMScheduler)
    clean, noise = torch.randn(2, 4, 3, 5, 5), torch.randn(2, 4, 3, 5, 5)
    times = torch.tensor([999, 400])
    alpha_bar = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(add_noise(clean, noise, alpha_bar), scheduler.add_noise(clean, noise, times))
    torch.testing.assert_close(
        prediction_target(clean, noise, alpha_bar, prediction="v_prediction"),
        scheduler.get_velocity(clean, noise, times),
    )


def test_the_schedule_ends_in_pure_noise_and_starts_there() -> None:
    scheduler = build_scheduler(NoiseConfig())
    scheduler.set_timesteps(8)
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[999].item() < 1e-9


def test_a_perfect_velocity_is_undone_by_sampling() -> None:
    scheduler = build_scheduler(NoiseConfig())
    scheduler.set_timesteps(4)
    clean = torch.randn(1, 2, 3, 3)
    noise = torch.randn(1, 2, 3, 3)
    sample = noise
    for time in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[time]
        # with the same noise all the way, the exact velocity is known at every step
        sample = scheduler.step(
            prediction_target(clean, noise, alpha_bar, prediction="v_prediction"), time, sample
        ).prev_sample
    torch.testing.assert_close(sample, clean, atol=1e-4, rtol=1e-4)


def test_detail_weights_mark_person_head_and_hands() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, 8:] = 1
    head = torch.tensor([[16.0, 10.0, 4.0], [0.0, 0.0, 0.0]])
    hands = torch.zeros(2, 42, 3)
    hands[0, :21] = torch.tensor([26.0, 26.0, 1.0])
    weights = detail_weights(mask, head, hands, config=LossConfig(person=0.5, face=2.0, hand=1.0))
    assert weights.shape == (2, 1, 32, 32)
    assert weights[0, 0, 2, 2] == 1.0
    assert weights[0, 0, 20, 4] == 1.5
    assert weights[0, 0, 10, 16] == 3.5
    assert weights[0, 0, 26, 26] == 2.5
    assert (weights[1] == 1).all(), "a scene without a person has plain weights"


def test_a_small_head_is_weighed_more() -> None:
    mask, hands = torch.zeros(4, 1, 64, 64), torch.zeros(4, 42, 3)
    head = torch.tensor([[32.0, 32.0, radius] for radius in (1.0, 8.0, 30.0, 0.0)])
    even = LossConfig(person=0.0, face=2.0, hand=0.0)
    weights = detail_weights(mask, head, hands, config=dataclasses.replace(even, face_share=0.25))
    plain = detail_weights(mask, head, hands, config=even)
    assert weights[0, 0, 32, 32] == 1 + MOST_FACE, "at most"
    disc = plain[1] > 1
    torch.testing.assert_close(weights[1][disc].sum() / weights[1].sum(), torch.tensor(0.25))
    assert torch.equal(weights[2:], plain[2:]), (
        "a large head has that share by the plain weight, no head has none"
    )


def test_reconstruction_loss_is_zero_only_at_the_target_and_counts_weights() -> None:
    config = LossConfig()
    target = torch.rand(1, 3, 32, 32) * 2 - 1
    even = torch.ones(1, 1, 32, 32)
    assert reconstruction_loss(target, target, even, config=config) == 0
    wrong = target.clone()
    wrong[..., :8, :8] += 0.5
    heavy = even.clone()
    heavy[..., :8, :8] = 5
    plain = reconstruction_loss(wrong, target, even, config=config)
    assert 0 < plain < reconstruction_loss(wrong, target, heavy, config=config)


def test_kl_is_zero_at_the_standard_normal() -> None:
    zero = torch.zeros(3, 4)
    assert kl_loss(zero, zero) == 0
    assert kl_loss(zero + 1, zero) > 0
    assert kl_loss(zero, zero - 1) > 0


def test_min_snr_takes_weight_from_clean_timesteps() -> None:
    output, target, weights = torch.zeros(1, 2, 1, 4, 4), torch.ones(1, 2, 1, 4, 4), torch.ones(1, 1, 1, 4, 4)
    clean = torch.full((1, 1, 1, 1, 1), 0.99)
    for prediction, expected in (("v_prediction", 5 / (0.99 / 0.01 + 1)), ("epsilon", 5 / (0.99 / 0.01))):
        plain = prediction_loss(output, target, weights, clean, min_snr=0.0, prediction=prediction)
        assert plain == 1
        weighted = prediction_loss(output, target, weights, clean, min_snr=5.0, prediction=prediction)
        torch.testing.assert_close(weighted, torch.tensor(expected), rtol=1e-4, atol=0)


def test_the_temporal_weight_counts_flicker_and_not_what_is_wrong_throughout() -> None:
    torch.manual_seed(1)
    target, weights = torch.zeros(2, 3, 16, 8, 8), torch.rand(2, 1, 16, 8, 8) + 0.5
    alpha_bar = torch.full((2, 1, 1, 1, 1), 0.5)

    def loss(output: torch.Tensor, temporal: float) -> float:
        return float(
            prediction_loss(
                output, target, weights, alpha_bar, min_snr=0.0, prediction="v_prediction", temporal=temporal
            )
        )

    constant = torch.randn(2, 3, 1, 8, 8).expand(-1, -1, 16, -1, -1)
    assert loss(constant, 0.7) == pytest.approx(loss(constant, 0.0))
    flicker = torch.randn(2, 3, 16, 8, 8)
    assert loss(flicker, 1.0) / loss(flicker, 0.0) == pytest.approx(1 + 15 / 16, rel=0.05)
    assert loss(flicker, 0.5) / loss(flicker, 0.0) == pytest.approx(1 + 15 / 32, rel=0.05)


def test_the_papers_process_is_the_official_scheduler() -> None:
    scheduler = build_scheduler(NoiseConfig(prediction="epsilon", schedule="linear", zero_snr=False))
    assert scheduler.config.prediction_type == "epsilon"
    assert scheduler.config.beta_schedule == "linear"
    assert scheduler.config.steps_offset == 1
    clean, noise = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    alpha_bar = torch.full((1, 1, 1, 1, 1), 0.3)
    assert torch.equal(prediction_target(clean, noise, alpha_bar, prediction="epsilon"), noise)
