"""What trails a person's motion and swings past it: hair, hems, sleeves and scarves, in still air or in wind.

Each of them is a damped spring between the body and something that hangs on it. A spring's place is the body's past
weighted with the spring's answer to a push (a sine that dies out), so that a motion, which is a function of time,
gives the spring's place at any moment without a simulation from the clip's beginning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import TAU, Params
from xdyna.data.synthetic.motion import motion_at
from xdyna.data.synthetic.skeleton import SIDES, pose_upper
from xdyna.data.synthetic.tempo import scene_time, wind_at

MOMENTS, STEP = 15, 0.07
"""How many moments of the past are weighed, and the seconds between them."""

SCARF_POINTS = 5

_BODY = ("torso", "thigh", "calf", "shoulder", "upper_arm", "forearm", "hip", "head_height", "neck")


@dataclass(frozen=True)
class Spring:
    """A damped spring: `rate` swings a second; `damping` 1 would creep back without a swing."""

    rate: float
    damping: float

    def weights(self) -> Tensor:
        """(MOMENTS,) of the past from now backwards, with sum 1."""
        past = STEP * torch.arange(MOMENTS, dtype=torch.float32)
        free = math.sqrt(1 - self.damping**2)
        swing = torch.exp(-self.damping * TAU * self.rate * past) * (TAU * self.rate * free * past).sin()
        return swing / swing.sum()


HAIR, HAIR_TIPS = Spring(1.05, 0.42), Spring(0.72, 0.30)
HEM, HEM_WAVE = Spring(0.80, 0.26), Spring(1.5, 0.3)
SLEEVE = Spring(1.2, 0.30)
TURN = Spring(0.8, 0.35)


def trail(past: Tensor, spring: Spring) -> Tensor:
    """How far what hangs on the spring is from where the body is now (b n ...).

    Args:
        past: (b n MOMENTS ...) the body's place now (first) and at the moments before.
    """
    weights = spring.weights().view((-1,) + (1,) * (past.dim() - 3))
    return (past * weights).sum(2) - past[:, :, 0]


def hang(clips: dict[str, Params], placed: Params, tempo: Params, times: Tensor, windy: Tensor) -> Params:
    """Everything that trails, at some moments.

    Args:
        clips: `identity` and `motion` of b people.
        placed: of `frame_person`, (b,) each.
        tempo: of `sample_tempo`.
        times: (b n) seconds.
        windy: (b,) how hard the wind pulls, in [0, 1].

    Returns:
        (b n): `sway`, `sway_tip`: hair to the picture's right at half its length and at its ends, in head radii and
        in the head's own frame; `lift`: how far the ends rise, as a share of the length; `hem_lag`, `hem_wave`:
        of skirts and coats at the hem and half way, in frame heights; `billow`: how much wider skirts are, as a
        share; (b n 2) `right_sleeve`, `left_sleeve`; (b n SCARF_POINTS 2) `scarf` from the neck to its end: frame
        heights, without the camera's zoom.
    """
    count = times.shape[1]
    past = times[..., None] - STEP * torch.arange(MOMENTS, dtype=torch.float32)
    state = motion_at(clips["motion"], past.flatten(1))

    def rows(values: Tensor) -> Tensor:
        return values.repeat_interleave(count * MOMENTS, 0)

    body = {name: rows(clips["identity"][name]) for name in _BODY}
    spot = {name: rows(value) for name, value in placed.items()}
    flat = {name: value.flatten() for name, value in state.items()}
    points = pose_upper(body, {"sit": rows(clips["motion"]["sit"])}, flat, spot)

    def history(name: str) -> Tensor:
        return points[name].unflatten(0, (len(times), count, MOMENTS))

    moments = scene_time(tempo, times)
    wind = wind_at(tempo, moments) * windy[:, None]
    flutter = wind * (TAU * 2.3 * moments + tempo["gust_phase"][:, :1]).sin()
    head, pelvis, unit = history("head"), history("pelvis"), history("head_radius")[:, :, 0]
    roll = history("head_roll")
    result: Params = {}
    for name, spring, gain, hangs, push in (
        ("sway", HAIR, 1.0, 0.22, 0.35), ("sway_tip", HAIR_TIPS, 1.25, 0.5, 0.8),
    ):  # fmt: skip
        moved = gain * trail(head, spring) / unit[..., None]
        turned = roll[:, :, 0]
        # In the head's frame, which leans while hair hangs down.
        aside = moved[..., 0] * turned.cos() + moved[..., 1] * turned.sin()
        aside = aside + hangs * (turned - trail(roll, spring)).sin()
        aside = aside - 0.35 * trail(history_of(state["yaw"], count), spring) * gain
        result[name] = aside + push * (wind + 0.35 * flutter)
        if name == "sway_tip":
            result["lift"] = (-0.4 * moved[..., 1] + 0.18 * wind.abs()).clamp(-0.12, 0.35)
    result["sway"], result["sway_tip"] = result["sway"].clamp(-0.7, 0.7), result["sway_tip"].clamp(-1.2, 1.2)
    length = ((clips["identity"]["thigh"] + clips["identity"]["calf"]) * placed["scale"])[:, None]
    result["hem_lag"] = (
        1.7 * trail(pelvis[..., 0], HEM) + 0.16 * length * (wind + 0.3 * flutter)
    ).clamp(-0.35 * length, 0.35 * length)  # fmt: skip
    result["hem_wave"] = (1.3 * trail(pelvis[..., 0], HEM_WAVE) + 0.04 * length * flutter).clamp(
        -0.15 * length, 0.15 * length
    )
    spin = trail(history_of(state["turn"], count), TURN)
    fall = trail(pelvis[..., 1], HEM) / length
    result["billow"] = (0.9 * spin.abs() - 1.5 * fall + 0.15 * wind.abs()).clamp(-0.15, 0.6)
    for side in SIDES:
        wrist = history(f"{side}_wrist")
        result[f"{side}_sleeve"] = (
            0.9 * trail(wrist, SLEEVE) + _right(0.03 * (wind + flutter)) * length[..., None]
        )
    result["scarf"] = _scarf(history("neck"), wind, flutter, clips["identity"], placed)
    return result


def history_of(channel: Tensor, count: int) -> Tensor:
    """A channel of the motion (b n*MOMENTS) as (b n MOMENTS)."""
    return channel.unflatten(1, (count, MOMENTS))


def _right(amount: Tensor) -> Tensor:
    return torch.stack([amount, torch.zeros_like(amount)], -1)


def _scarf(neck: Tensor, wind: Tensor, flutter: Tensor, identity: Params, placed: Params) -> Tensor:
    """A scarf's loose end: a chain that hangs and is blown aside; each link swings more slowly than the one above."""
    scale = placed["scale"][:, None]
    link = identity["scarf_long"][:, None] * scale / (SCARF_POINTS - 1)
    point = _right(0.035 * scale * identity["scarf_side"][:, None]) + 0 * neck[:, :, 0]
    points = [point]
    for i in range(1, SCARF_POINTS):
        share = i / (SCARF_POINTS - 1)
        swung = trail(neck, Spring(1.3 - 0.6 * share, 0.32)) * 1.5 / placed["scale"][:, None, None]
        wave = (1.0 - 0.5 * share) * flutter
        # An angle from straight down: pushed by the body's motion and by the wind, which carries the end up.
        angle = (7.0 * share * swung[..., 0] + 1.5 * wind * share**0.5 + 0.5 * wave).clamp(-1.7, 1.7)
        point = point + torch.stack([angle.sin() * link, angle.cos() * link], -1)
        points.append(point)
    return torch.stack(points, 2)
