"""Where a person's joints are: identity and motion to points in the picture, and to keypoints.

The person is posed in depth (x right, y down, z towards the viewer) and seen without perspective, in frame heights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.motion import HAND_POSES

SIDES = {"right": -1.0, "left": 1.0}
"""The person's own sides and where they are in the picture."""

# Knuckles of index to little finger, along the hand and towards the thumb, in hand lengths; then finger lengths.
KNUCKLES = ((0.50, 0.17), (0.53, 0.05), (0.51, -0.07), (0.46, -0.18))
FINGER_LENGTHS = (0.42, 0.47, 0.43, 0.34)
PHALANGES = (0.46, 0.30, 0.24)
BENDS = (1.30, 1.75, 1.0)
SPLAY = (0.28, 0.05, -0.18, -0.42)


def frame_person(identity: Params, motion: Params, aspect: float) -> Params:
    """Size and place of a person in the frame.

    Args:
        aspect: width / height of the frame.

    Returns:
        `scale` (height of the standing person), `x` and `y` of the neck at rest, each (b,), in frame heights.
    """
    framing, fill = motion["framing"], motion["fill"]
    head = identity["head_height"]
    narrow = min(1.0, aspect / 0.8)
    close = (0.26 + 0.36 * fill) * narrow / head
    half = (1.25 + 0.95 * fill) * min(1.0, narrow * 1.15)
    full = 0.70 + 0.22 * fill
    scale = torch.where(framing == 0, close, torch.where(framing == 1, half, full))
    low = torch.tensor([0.07, 0.05, 0.03])[framing.long()]
    high = torch.tensor([0.22, 0.16, 0.09])[framing.long()]
    high = torch.where(framing == 2, torch.minimum(high, 0.975 - scale), high)
    top = low + (high - low).clamp(min=0) * motion["top"]
    free = (aspect / 2 - 0.5 * head * scale * 1.4).clamp(min=0)
    x = aspect / 2 + motion["place"] * torch.minimum(free, torch.tensor([0.16, 0.2, 0.3])[framing.long()])
    return {"scale": scale, "x": x, "y": top + (1.13 * head + identity["neck"]) * scale}


def pose_upper(identity: Params, motion: Params, state: Params, placed: Params) -> Params:
    """Head, trunk and arms of every frame: the part of `pose_skeleton` that hair and cloth hang on.

    Args:
        identity, motion, placed: with one row a frame (n).
        state: of `motion_at`, flattened to (n,).

    Returns:
        (n 2) for `neck`, `pelvis`, `head` and, with prefix right_ and left_, shoulder, elbow, wrist, hip;
        (n,) for `scale`, `head_radius` (half the head's height) and `head_roll`.
    """
    scale = placed["scale"] * state["zoom"].exp()
    leg = identity["thigh"] + identity["calf"]
    bob = (0.05 * state["bob"] + 0.42 * motion["sit"]) * leg * scale
    neck = torch.stack(
        [placed["x"] + state["x"], placed["y"] + state["y"] + bob * (1 - 0.7 * motion["sit"])], -1
    )
    lean, turn, tilt = state["lean"], state["turn"], state["tilt"]

    def move(start: Tensor, length: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """One bone: its direction is turned with the body before it is seen."""
        seen = torch.stack([x * turn.cos() + z * turn.sin(), y], -1)
        return start + seen * (length * scale)[:, None]

    zero = torch.zeros_like(scale)
    pelvis = (
        neck
        + torch.stack([lean.sin() * identity["torso"] + state["sway"], lean.cos() * identity["torso"]], -1)
        * scale[:, None]
    )
    joints: Params = {"neck": neck, "pelvis": pelvis, "scale": scale}
    for side, sign in SIDES.items():
        shoulder = move(neck, identity["shoulder"], sign * tilt.cos(), 0.03 + sign * tilt.sin(), zero)
        raised, forward = state[f"{side}_raise"], state[f"{side}_forward"]
        swing = state[f"{side}_swing"]
        elbow = move(
            shoulder,
            identity["upper_arm"],
            sign * raised.sin() * swing.cos(),
            raised.cos() * swing.cos(),
            swing.sin(),
        )
        bent = raised + state[f"{side}_elbow"]
        wrist = move(
            elbow,
            identity["forearm"],
            sign * bent.sin() * forward.cos(),
            bent.cos() * forward.cos(),
            forward.sin(),
        )
        hip = move(pelvis, identity["hip"], sign + zero, zero, zero)
        joints |= {
            f"{side}_shoulder": shoulder,
            f"{side}_elbow": elbow,
            f"{side}_wrist": wrist,
            f"{side}_hip": hip,
        }
    up = state["roll"] - 0.25 * lean
    radius = identity["head_height"] * scale / 2
    reach = radius * 1.16 + identity["neck"] * scale
    joints["head"] = neck + torch.stack([up.sin() * reach - 0.2 * lean * radius, -up.cos() * reach], -1)
    joints["head"] = joints["head"] + torch.stack([0.12 * state["yaw"].sin() * radius, zero], -1)
    joints["head_radius"], joints["head_roll"] = radius, up
    return joints


def pose_skeleton(identity: Params, motion: Params, state: Params, placed: Params) -> Params:
    """Joints of every frame.

    Args:
        identity, motion, placed: with one row a frame (n).
        state: of `motion_at`, flattened to (n,).

    Returns:
        those of `pose_upper`; (n 2) with prefix right_ and left_ for knee, ankle, toe; (n 21 2) for right_hand and
        left_hand.
    """
    joints = pose_upper(identity, motion, state, placed)
    leg = identity["thigh"] + identity["calf"]
    ground = placed["y"] + (identity["torso"] + leg) * placed["scale"]
    for index, side in enumerate(SIDES):
        wrist, elbow, hip = (joints[f"{side}_{name}"] for name in ("wrist", "elbow", "hip"))
        joints[f"{side}_hand"] = _hand(
            identity, motion, state, side, wrist, wrist - elbow, joints["scale"], index
        )
        joints |= _leg(identity, motion, state, side, hip, placed["x"], ground, joints["scale"])
    return joints


def _leg(
    identity: Params,
    motion: Params,
    state: Params,
    side: str,
    hip: Tensor,
    base_x: Tensor,
    ground: Tensor,
    scale: Tensor,
) -> Params:
    """Knee, ankle and toe: the foot stands (or steps) on its place and the knee follows."""
    sign, length = SIDES[side], (identity["thigh"] + identity["calf"]) * scale
    lift = state[f"{side}_step"] * 0.16 * length
    spread = motion["stance"] * identity["hip"] * scale + 0.25 * motion["sit"] * length
    foot = torch.stack([base_x + sign * spread, ground - lift], -1)
    along = foot - hip
    distance = along.norm(dim=1).clamp(min=1e-6)
    reach = torch.minimum(distance, 0.995 * length)
    ankle = hip + along * (reach / distance)[:, None]
    # A bent leg is seen shortened; its knee points a little outwards. Sitting, the thigh points at the viewer.
    slack = (length**2 - reach**2).clamp(min=0).sqrt()
    share = identity["thigh"] / (identity["thigh"] + identity["calf"]) * (1 - 0.45 * motion["sit"])
    outward = sign * slack * (0.16 + 0.12 * motion["sit"])
    knee = hip + (ankle - hip) * share[:, None] + torch.stack([outward, torch.zeros_like(outward)], -1)
    toe = ankle + torch.stack([sign * 0.030 * scale + state["turn"].sin() * 0.03 * scale, 0.030 * scale], -1)
    return {f"{side}_knee": knee, f"{side}_ankle": ankle, f"{side}_toe": toe}


def _hand(
    identity: Params,
    motion: Params,
    state: Params,
    side: str,
    wrist: Tensor,
    forearm: Tensor,
    scale: Tensor,
    index: int,
) -> Tensor:
    """The 21 points (n 21 2) of one hand: bones in the hand's own frame, rolled about the forearm's line."""
    table = torch.tensor(HAND_POSES)
    poses = table[motion["hand_poses"].long()][:, 2 * index : 2 * index + 2]
    grip = state[f"{side}_grip"]
    mix = (grip * grip * (3 - 2 * grip))[:, None]
    shape = poses[:, 0] + (poses[:, 1] - poses[:, 0]) * mix
    curls, fan = shape[:, :5], shape[:, 5]
    zero = torch.zeros_like(fan)

    points = [torch.stack([zero, zero, zero], -1)]  # along the hand, towards the thumb, out of the palm
    # Thumb: from the side of the palm, folding across it.
    thumb = torch.stack([zero + 0.14, zero + 0.14, zero], -1)
    angle = 0.95 - 0.25 * curls[:, 0] + 0.15 * fan
    points.append(thumb)
    for length, turn in ((0.20, 0.15), (0.17, 0.75), (0.13, 0.9)):
        angle = angle - turn * curls[:, 0]
        out = 0.55 * curls[:, 0]
        step = torch.stack([angle.cos(), angle.sin(), out], -1)
        thumb = thumb + step / step.norm(dim=1, keepdim=True) * length
        points.append(thumb)
    for finger in range(4):
        along, across = KNUCKLES[finger]
        joint = torch.stack([zero + along, zero + across, zero], -1)
        points.append(joint)
        splay, bend = SPLAY[finger] * fan, zero
        for share, limit in zip(PHALANGES, BENDS, strict=True):
            bend = bend + limit * curls[:, 1 + finger]
            length = share * FINGER_LENGTHS[finger]
            joint = joint + length * torch.stack(
                [bend.cos() * splay.cos(), bend.cos() * splay.sin(), bend.sin()], -1
            )
            points.append(joint)
    local = torch.stack(points, 1) * (identity["hand"] * scale)[:, None, None]

    direction = forearm / forearm.norm(dim=1, keepdim=True).clamp(min=1e-4)
    bend = state[f"{side}_wrist"]
    direction = torch.stack(
        [
            direction[:, 0] * bend.cos() - direction[:, 1] * bend.sin(),
            direction[:, 0] * bend.sin() + direction[:, 1] * bend.cos(),
        ],
        -1,
    )
    # A right hand that shows its palm with the fingers up has its thumb on the picture's right.
    thumbwards = torch.stack([-direction[:, 1], direction[:, 0]], -1) * -SIDES[side]
    palm = state[f"{side}_palm"]
    sideways = local[..., 1] * palm.cos()[:, None] - local[..., 2] * palm.sin()[:, None]
    return wrist[:, None] + local[..., :1] * direction[:, None] + sideways[..., None] * thumbwards[:, None]


BODY_JOINTS = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip


def keypoints(joints: Mapping[str, Tensor], face: Tensor, marks: Tensor, size: tuple[int, int]) -> Params:
    """Joints as keypoints in pixels.

    Args:
        joints: of `pose_skeleton`.
        face: (n 68 2) landmarks in frame heights.
        marks: (n 5 3) nose, right eye, left eye, right ear, left ear, with a third value 0 where turned away.

    Returns:
        body (n 18 3), right_hand and left_hand (n 21 3), face (n 68 3): x, y, score. The score is 1 for points
        in or near the frame (a tenth of it beyond the edge) and 0 elsewhere.
    """
    height, width = size
    own = dict(zip(("nose", "right_eye", "left_eye", "right_ear", "left_ear"), marks.unbind(1), strict=True))
    ones = torch.ones(len(face), 1)
    rows = [own[name] if name in own else torch.cat([joints[name], ones], 1) for name in BODY_JOINTS]

    def scored(points: Tensor, seen: Tensor) -> Tensor:
        xy = points * height
        x, y = xy.unbind(-1)
        near = (x > -0.1 * width) & (x < 1.1 * width) & (y > -0.1 * height) & (y < 1.1 * height)
        return torch.cat([xy, (near * seen)[..., None].float()], -1)

    body = torch.stack(rows, 1)
    result = {"body": scored(body[..., :2], body[..., 2])}
    for name in ("left_hand", "right_hand"):
        centre = joints[name].mean(1)
        inside = (
            (centre[:, 0] > 0) & (centre[:, 0] < width / height) & (centre[:, 1] > 0) & (centre[:, 1] < 1)
        )
        result[name] = scored(joints[name], inside[:, None].float())
    centre = face.mean(1)
    inside = (centre[:, 0] > 0) & (centre[:, 0] < width / height) & (centre[:, 1] > 0) & (centre[:, 1] < 1)
    result["face"] = scored(face, inside[:, None].float())
    return result
