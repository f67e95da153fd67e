"""The losses, as plain functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional

from xdyna.training.config import LossConfig

MOST_FACE = 12.0
"""Most that `face_share` adds to a pixel of the head's disc: more would leave the training to a few pixels."""


def detail_weights(
    mask: torch.Tensor, head: torch.Tensor, hands: torch.Tensor, *, config: LossConfig
) -> torch.Tensor:
    """How much each pixel counts: more on the person, in the head's disc and around the hands.

    Args:
        mask: (n 1 h w) in [0, 1], the person.
        head: (n 3) centre x, y and half height in pixels; 0 for "no head".
        hands: (n k 3) x, y, score of hand points in pixels.
        config: the extra weights.

    Returns:
        (n 1 h w) float32, at least 1.
    """
    height, width = mask.shape[-2:]
    y = torch.arange(height, device=mask.device).view(1, height, 1) + 0.5
    x = torch.arange(width, device=mask.device).view(1, 1, width) + 0.5
    weights = 1 + config.person * mask[:, 0].float()
    if config.face or config.face_share:
        cx, cy, radius = (head[:, i].view(-1, 1, 1) for i in range(3))
        disc = ((x - cx) ** 2 + (y - cy) ** 2 < radius**2).float()
        area = disc.mean((1, 2), keepdim=True).clamp(min=1 / (height * width))
        share = config.face_share
        needed = (
            share / (1 - share) * (1 - area) / area - 1
        )  # what makes the disc's part of all weights that share
        weights = weights + disc * needed.clamp(min=config.face, max=max(config.face, MOST_FACE))
    if config.hand:
        there = hands[..., 2] > 0
        reach = 0.35 * head[:, 2].clamp(min=1).view(-1, 1)
        low = torch.where(there[..., None], hands[..., :2], torch.inf).amin(1) - reach
        high = torch.where(there[..., None], hands[..., :2], -torch.inf).amax(1) + reach
        inside_x = (x > low[:, 0].view(-1, 1, 1)) & (x < high[:, 0].view(-1, 1, 1))
        inside_y = (y > low[:, 1].view(-1, 1, 1)) & (y < high[:, 1].view(-1, 1, 1))
        weights = weights + config.hand * (inside_x & inside_y)
    return weights[:, None]


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, *, config: LossConfig
) -> torch.Tensor:
    """Weighted L1, plus L1 of the picture's gradients, plus L1 at a quarter and a sixteenth of the size.

    The gradients keep edges sharp; the small sizes keep large even areas at their colour, so that walls do not
    flicker from frame to frame.

    Args:
        output: (n c h w) in [-1, 1].
        target: the same.
        weights: (n 1 h w).
        config: `gradient` and `multiscale` are read.
    """
    error = output - target
    weights = weights / weights.mean()
    loss = (error.abs() * weights).mean()
    if config.gradient:
        across = (error.diff(dim=-1).abs() * weights[..., 1:]).mean()
        down = (error.diff(dim=-2).abs() * weights[..., 1:, :]).mean()
        loss = loss + config.gradient * (across + down)
    if config.multiscale:
        for size in (4, 16):
            loss = loss + config.multiscale * functional.avg_pool2d(error, size).abs().mean()
    return loss


def kl_loss(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Mean divergence of a diagonal normal distribution from the standard one, per element."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def prediction_target(
    clean: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor, *, prediction: str
) -> torch.Tensor:
    """What the denoiser is to predict: the noise ("epsilon"), or v = sqrt(abar) e - sqrt(1 - abar) z (Salimans and
    Ho 2022, "v_prediction")."""
    if prediction == "epsilon":
        return noise
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean


def add_noise(clean: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """z_t = sqrt(abar) z + sqrt(1 - abar) e."""
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def prediction_loss(
    output: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor,
    alpha_bar: torch.Tensor,
    *,
    min_snr: float,
    prediction: str,
    temporal: float = 0.0,
) -> torch.Tensor:
    """Weighted mean squared error of the prediction.

    Any positive weighting of a clip's errors and their differences has the same best prediction; what little a model
    cannot learn goes where it shows least. A wall that is a shade too dark in all frames looks like a wall, one that is
    a shade darker or lighter in each does not.

    Args:
        output: (b c f h w).
        target: the same.
        weights: (b 1 f h w), normalised to mean 1 here.
        alpha_bar: (b 1 1 1 1) of each sample's timestep.
        min_snr: gamma of min-SNR weighting (Hang et al. 2023): min(SNR, gamma) / SNR for the noise, / (SNR + 1) for
            the velocity; 0 = none.
        prediction: "epsilon" or "v_prediction".
        temporal: weight of the error's change from frame to frame; errors that know nothing of each other count by it
            once more.
    """
    weights = weights / weights.mean()
    difference = output.float() - target
    error = difference.square() * weights
    if temporal:
        changes = difference.diff(dim=2).square() * (weights[:, :, 1:] + weights[:, :, :-1]) / 4
        # half of each change to either of its frames, so that what follows weighs them as it does these
        before, after = (functional.pad(changes, (0, 0, 0, 0, *side)) for side in ((1, 0), (0, 1)))
        error = error + temporal * (before + after) / 2
    if min_snr:
        ratio = alpha_bar / (1 - alpha_bar).clamp(min=1e-8)
        over = ratio.clamp(min=1e-8) if prediction == "epsilon" else ratio + 1
        error = error * ratio.clamp(max=min_snr) / over
    return error.mean()
