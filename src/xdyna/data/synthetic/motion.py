"""How a person moves: smooth sums of sines for every joint and every expression, a function of time alone.

Because a motion knows no state, any moment of it can be asked for in any order: frames at random moments, and
moments a little earlier for what lags behind (hair, hems).
"""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.captured import play
from xdyna.data.synthetic.draws import TAU, Draws, Params

EXPRESSIONS = ("mouth_open", "smile", "lid", "gaze_x", "gaze_y", "brow", "yaw", "pitch")
"""Names of the expression values, in order: mouth_open and lid in [0, 1] (lid 1 = open), the rest about [-1, 1]
with 0 at rest; gaze_x, gaze_y and pitch grow to the picture's right and downwards; yaw and pitch in radians."""

FRAMINGS = ("close", "half", "full")
FRAMING_SHARES = (0.35, 0.35, 0.30)

CHANNELS = (
    "x", "y", "zoom", "lean", "turn", "tilt", "sway", "bob",
    "right_raise", "left_raise", "right_elbow", "left_elbow", "right_forward", "left_forward",
    "right_wrist", "left_wrist", "right_palm", "left_palm", "right_grip", "left_grip",
    "roll", "yaw", "pitch",
    "gaze_x", "gaze_y", "brow", "brow_tilt", "mouth_open", "smile", "pucker", "squint",
)  # fmt: skip

LIMITS = {
    "turn": (-0.9, 0.9), "right_raise": (-0.1, 2.9), "left_raise": (-0.1, 2.9),
    "right_elbow": (-2.3, 2.3), "left_elbow": (-2.3, 2.3), "right_forward": (0.0, 1.25), "left_forward": (0.0, 1.25),
    "right_wrist": (-0.7, 0.7), "left_wrist": (-0.7, 0.7), "right_grip": (0, 1), "left_grip": (0, 1),
    "roll": (-0.45, 0.45), "yaw": (-0.75, 0.75), "pitch": (-0.4, 0.4),
    "gaze_x": (-1, 1), "gaze_y": (-1, 1), "brow": (-0.8, 1), "brow_tilt": (-1, 1),
    "mouth_open": (0, 1), "smile": (-0.6, 1), "pucker": (0, 1), "squint": (0.0, 1.0), "bob": (0, 1),
}  # fmt: skip

# Curls of thumb to little finger (0 straight, 1 folded), then how far the fingers fan out.
HAND_POSES = (
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.35),  # open
    (0.9, 1.0, 1.0, 1.0, 1.0, 0.0),  # fist
    (0.8, 0.0, 1.0, 1.0, 1.0, 0.1),  # point
    (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),  # spread
    (0.3, 0.30, 0.38, 0.42, 0.45, 0.2),  # relaxed
    (0.9, 0.0, 0.0, 1.0, 1.0, 0.7),  # victory
    (0.0, 1.0, 1.0, 1.0, 1.0, 0.2),  # thumb up
)


def sample_motion(draws: Draws) -> Params:
    """Draw motions: framing, resting pose, how far and how fast everything moves (see `motion_at`)."""
    count = draws.count
    rest, reach = torch.zeros(count, len(CHANNELS)), torch.zeros(count, len(CHANNELS))

    def channel(name: str, base: Tensor | float, amplitude: Tensor | float) -> None:
        rest[:, CHANNELS.index(name)] = base
        reach[:, CHANNELS.index(name)] = amplitude

    uniform = draws.uniform
    framing = draws.choice(FRAMING_SHARES)
    close = (framing == 0).float()
    energy = uniform(0.35, 1.3)
    channel("x", 0.0, 0.045 * energy)
    channel("y", 0.0, 0.012 * energy)
    channel("zoom", 0.0, 0.03 * energy)
    channel("lean", uniform(-0.1, 0.1), 0.10 * energy)
    channel("turn", uniform(-0.5, 0.5), 0.35 * energy)
    channel("tilt", 0.0, 0.10 * energy)
    channel("sway", 0.0, 0.035 * energy)
    channel("bob", uniform(0.0, 0.3), 0.35 * energy)
    for side in ("right", "left"):
        # Hanging, anywhere, or up.
        kind = draws.choice((0.35, 0.45, 0.2))
        raised = torch.where(
            kind == 0, uniform(0.08, 0.3), torch.where(kind == 1, uniform(0.2, 1.9), uniform(1.9, 2.6))
        )
        bent = torch.where(draws.chance(0.65) > 0, uniform(0.1, 1.8), uniform(-1.9, -0.4))
        bent = torch.where(kind == 0, uniform(-0.25, 0.2), bent)
        calm = torch.where(kind == 0, 0.4, 1.0)
        channel(f"{side}_raise", raised, uniform(0.15, 0.9) * energy * calm)
        channel(f"{side}_elbow", bent, uniform(0.2, 0.9) * energy * calm)
        channel(f"{side}_forward", uniform(0.0, 0.6) * calm, 0.4 * energy)
        channel(f"{side}_wrist", 0.0, 0.4)
        # 0 shows the palm, pi the back of the hand; what hangs shows its back or its edge.
        shows_back = torch.where(kind == 0, draws.chance(0.85), draws.chance(0.4))
        channel(f"{side}_palm", shows_back * TAU / 2 + uniform(-0.7, 0.7), 0.35)
        channel(f"{side}_grip", 0.5, 0.9)
    channel("roll", uniform(-0.1, 0.1), 0.18)
    channel("yaw", uniform(-0.4, 0.4), uniform(0.15, 0.5))
    channel("pitch", uniform(-0.12, 0.15), uniform(0.08, 0.25))
    channel("gaze_x", uniform(-0.2, 0.2), 0.9)
    channel("gaze_y", uniform(-0.1, 0.2), 0.7)
    channel("brow", uniform(-0.3, 0.35), 0.6)
    channel("brow_tilt", uniform(-0.3, 0.3), 0.4)
    channel("mouth_open", uniform(-0.25, 0.5), uniform(0.3, 0.9))
    channel("smile", uniform(-0.3, 0.6), uniform(0.3, 0.8))
    channel("pucker", uniform(-0.6, 0.15), 0.6)
    channel("squint", uniform(-0.1, 0.3), uniform(0.1, 0.5))

    size = len(CHANNELS)
    bands = [uniform(0.10, 0.35, size), uniform(0.3, 0.8, size), uniform(0.7, 1.4, size)]
    weights = [uniform(0.4, 1.0, size), uniform(0.1, 0.6, size), uniform(0.0, 0.22, size)]
    return {
        "framing": framing.float(),
        "place": uniform(-1, 1),
        "top": uniform(0, 1),
        "fill": uniform(0, 1),
        "rest": rest,
        "reach": reach,
        "frequency": torch.stack(bands, -1),
        "weight": torch.stack(weights, -1),
        "phase": uniform(0, TAU, size, 3),
        "blink_rate": uniform(0.25, 0.7),
        "blink_phase": uniform(0, 1),
        "step": draws.chance(0.4) * uniform(0.4, 1.0),
        "step_rate": uniform(0.5, 1.1),
        "step_phase": uniform(0, 1),
        "stance": uniform(0.6, 2.2),
        "sit": draws.chance(0.10) * (1 - close),
        "arms_front": draws.chance(0.8) + 0 * close,
        "hand_poses": torch.stack([draws.choice((2, 1, 1, 1.5, 3, 0.7, 0.5)) for _ in range(4)], 1).float(),
    }


def motion_at(motion: Params, times: Tensor) -> Params:
    """The state of every channel at some moments.

    Args:
        motion: of `sample_motion`, b clips.
        times: (b n) seconds.

    Returns:
        (b n) for each name in `CHANNELS`, and `lid`, `right_step` and `left_step` (0 on the ground, 1 lifted),
        `right_swing` and `left_swing` (how far an upper arm points ahead, as `forward` says of the forearm).
    """
    angle = motion["frequency"][:, None] * times[:, :, None, None] * TAU + motion["phase"][:, None]
    wave = (motion["weight"][:, None] * angle.sin()).sum(-1)
    values = motion["rest"][:, None] + motion["reach"][:, None] * wave
    state = {name: values[..., i] for i, name in enumerate(CHANNELS)}
    for name, (low, high) in LIMITS.items():
        state[name] = state[name].clamp(low, high)
    # A pout and a broad grin exclude each other.
    state["pucker"] = state["pucker"] * (1 - state["smile"].clamp(min=0))
    rate = motion["blink_rate"][:, None]
    phase = (times * rate + motion["blink_phase"][:, None]) % 1
    # Shut for about a quarter of a second, whatever the rate.
    blink = torch.exp(-(((phase - 0.5) / (rate * 0.16)) ** 2))
    state["lid"] = (1 - blink) * (1 - 0.75 * state["squint"])
    step = (times * motion["step_rate"][:, None] + motion["step_phase"][:, None]) * TAU
    state["right_step"] = motion["step"][:, None] * step.sin().clamp(min=0)
    state["left_step"] = motion["step"][:, None] * (-step.sin()).clamp(min=0)
    for side in ("right", "left"):
        state[f"{side}_swing"] = 0.5 * state[f"{side}_forward"]
    if "captured" in motion:
        play(motion, times, state)
    return state
