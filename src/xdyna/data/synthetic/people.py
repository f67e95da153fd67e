"""The people of a batch: posed for every frame, painted, and known exactly; and the foreign heads of the face maps."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.body import LimbPainter
from xdyna.data.synthetic.camera import camera_at
from xdyna.data.synthetic.draws import Draws, Params, take, to_device
from xdyna.data.synthetic.face import FacePainter
from xdyna.data.synthetic.hair import paint_back_hair, paint_front_hair
from xdyna.data.synthetic.head import HeadShape, head_marks, landmarks, painted_values
from xdyna.data.synthetic.motion import EXPRESSIONS, motion_at
from xdyna.data.synthetic.shapes import (
    Canvas,
    Window,
    blur,
    bounds,
    capsule,
    coverage,
    limb_shade,
    per_pixel,
    sample_texture,
)
from xdyna.data.synthetic.skeleton import frame_person, keypoints, pose_skeleton
from xdyna.data.synthetic.trunk import TrunkPainter

LAG = 0.22
"""Seconds by which hair and hems trail the body."""

_POINTS = ("neck", "pelvis", "head", "right_hand", "left_hand") + tuple(
    f"{side}_{joint}"
    for side in ("right", "left")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "toe")
)


def foreign_heads(draws: Draws) -> Params:
    """Draw how the face maps differ from the person's own face: size, place, light, colour, softness, background."""
    return {
        "map_size": torch.exp(draws.uniform(-0.12, 0.12)),
        "map_shift": 0.08 * draws.normal(2).clamp(-2, 2),
        "map_gain": 1 + 0.15 * draws.normal(3).clamp(-2, 2) + 0.15 * draws.uniform(-1, 1, 1),
        "map_gamma": torch.exp(0.3 * draws.uniform(-1, 1)),
        "map_blur": torch.where(draws.chance(0.5) > 0, draws.uniform(0.4, 1.3), 0.0),
        "map_first": draws.colour((0, 1), (0, 0.5), (0.02, 1.0)),
        "map_second": draws.colour((0, 1), (0, 0.5), (0.02, 1.0)),
        "map_noise": draws.chance(0.6) * draws.uniform(0.03, 0.2),
        "map_light": draws.uniform(-2.6, -0.5),
        "map_lift": draws.uniform(0.5, 0.95),
    }


class Cast:
    """Everybody of a batch in every frame, posed on the CPU.

    Args:
        identity, motion, foreign, camera: parameters of b clips.
        times: (b n) seconds.
        aspect: width / height of the frame.
    """

    def __init__(
        self, identity: Params, motion: Params, foreign: Params, camera: Params, times: Tensor, aspect: float
    ) -> None:
        self.clips = {"identity": identity, "motion": motion, "foreign": foreign}
        self.camera, self.times, self.aspect = camera, times, aspect
        self.placed = frame_person(identity, motion, aspect)

    def size(self) -> Tensor:
        """(b,) how large the people are, to group them."""
        return self.placed["scale"]

    def take(self, index: Tensor) -> Troupe:
        """The chosen clips' people, one row a frame."""
        chosen = {name: take(params, index) for name, params in self.clips.items()}
        return Troupe(
            chosen, take(self.camera, index), take(self.placed, index), self.times[index], self.aspect
        )


class Troupe:
    """The people of some clips, one row a frame, on the CPU.

    Attributes:
        identity, motion, state, joints: one row a frame.
        shape: their heads.
        textures: one a clip.
    """

    def __init__(
        self, clips: dict[str, Params], camera: Params, placed: Params, times: Tensor, aspect: float
    ) -> None:
        count = times.shape[1]

        def rows(params: Params) -> Params:
            return {
                name: value.repeat_interleave(count, 0)
                for name, value in params.items()
                if name != "cloth_texture"
            }

        self.count = count
        self.texture = clips["identity"]["cloth_texture"]
        self.foreign_texture = clips["foreign"]["cloth_texture"]
        self.identity, self.motion, self.foreign = (
            rows(clips[name]) for name in ("identity", "motion", "foreign")
        )
        spot = rows(placed)

        def pose(moments: Tensor) -> tuple[Params, Params]:
            state = {name: value.flatten() for name, value in motion_at(clips["motion"], moments).items()}
            joints = pose_skeleton(self.identity, self.motion, state, spot)
            zoom, pan = (value.flatten(0, 1) for value in camera_at(camera, times))
            middle = torch.tensor([aspect / 2, 0.5])
            for name in _POINTS:
                shape = (-1,) + (1,) * (joints[name].dim() - 2) + (2,)
                joints[name] = (
                    (joints[name] - middle) * zoom.view(shape[:-1] + (1,)) + middle + pan.view(shape)
                )
            for name in ("scale", "head_radius"):
                joints[name] = joints[name] * zoom
            return state, joints

        self.state, self.joints = pose(times)
        _, earlier = pose(times - LAG)
        drag = earlier["head"] - self.joints["head"]
        self.sway = (
            drag[:, 0] / self.joints["head_radius"] + 0.6 * (earlier["head_roll"] - self.joints["head_roll"])
        ).clamp(-0.8, 0.8)
        leg = (self.identity["thigh"] + self.identity["calf"]) * self.joints["scale"]
        self.joints["hem_lag"] = 1.3 * (earlier["pelvis"] - self.joints["pelvis"])[:, 0]
        self.joints["skirt_fall"] = self.identity["hem"] * leg * self.identity["skirt"]
        self.joints["coat_fall"] = self.identity["coat_length"] * leg * self.identity["coat"]
        self.shape = HeadShape(self.identity, self.state, self.joints)
        self.landmarks = landmarks(self.shape)

    def truth(self, size: tuple[int, int]) -> Params:
        """Keypoints, head and expression of every frame, in pixels; see `SyntheticBatch`."""
        marks = head_marks(self.shape, self.landmarks)
        known = keypoints(self.joints, self.landmarks, marks, size)
        head = torch.cat([self.joints["head"], self.joints["head_radius"][:, None]], 1)
        known["head"] = head * size[0]
        known["expression"] = torch.stack([self.state[name] for name in EXPRESSIONS], 1)
        return known

    def paint_foreign(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """The foreign heads: same place, pose and expression, another person, light and background.

        Returns:
            pictures (n 3 h w) in [0, 1] and landmarks (n 68 3) in pixels.
        """
        height, width = size
        foreign = self.foreign
        unit = self.joints["head_radius"] * foreign["map_size"]
        joints = {
            "head": self.joints["head"] + foreign["map_shift"] * unit[:, None],
            "neck": self.joints["neck"], "head_radius": unit, "head_roll": self.joints["head_roll"],
        }  # fmt: skip
        shape = HeadShape(foreign, self.state, joints)
        points = landmarks(shape)
        middle = points.mean(1)
        inside = (
            (middle[:, 0] > 0) & (middle[:, 0] < width / height) & (middle[:, 1] > 0) & (middle[:, 1] < 1)
        )
        scored = torch.cat([points * height, inside[:, None, None].expand(-1, 68, 1).float()], -1)

        canvas = Canvas(torch.zeros(len(unit), 3, height, width, device=device))
        low, high = points.amin(1), points.amax(1)
        reach = 1.5 * (high - low).amax(1)
        box = bounds([(low + high) / 2], reach)
        window = canvas.window(box)
        angle, lift = foreign["map_light"], foreign["map_lift"]
        flat_part = (1 - lift * lift).sqrt()
        light = torch.stack(
            [angle.cos() * flat_part, angle.sin() * flat_part, lift, 0.5 + 0 * lift, 0 * lift], 1
        ).to(device)
        look = to_device(head_look(shape, foreign, self.state, self.sway), device)
        texture = self.foreign_texture.to(device)
        moved = to_device(joints, device)

        slope = (window.y - window.y.mean((1, 2), keepdim=True)) * 1.5 + 0.5
        first, second = look["map_first"][:, :, None, None], look["map_second"][:, :, None, None]
        grain = sample_texture(
            texture[:, :1],
            window.x.unflatten(0, (len(texture), -1)),
            window.y.unflatten(0, (len(texture), -1)),
        )
        grain = grain.flatten(0, 2)[:, None] * look["map_noise"][:, None, None, None]
        window.image.copy_((first + (second - first) * slope.clamp(0, 1)[:, None] + grain).clamp(0, 1))
        paint_back_hair(window, shape, look)
        _bust(window, moved, look, light)
        window.close()
        FacePainter(canvas, shape, points, look, light, texture, covers=False).paint()
        window = canvas.window(box)
        paint_front_hair(window, shape, look, light, texture)
        picture = blur(window.image, foreign["map_blur"] * min(size) / 256, radius=3)
        gain, gamma = look["map_gain"][:, :, None, None], look["map_gamma"][:, None, None, None]
        window.image.copy_((picture * gain).clamp(1e-4, 1).pow(gamma))
        window.close()
        return canvas.image, scored


def _bust(window: Window, joints: Params, look: Params, light: Tensor) -> None:
    """Neck and shoulders below a foreign head."""
    head, unit = joints["head"], joints["head_radius"]
    below = torch.stack([0 * unit, 1.6 * unit], 1)
    base = head + below
    level = (
        ((window.x - per_pixel(base[:, 0])) / per_pixel(1.9 * unit)) ** 2
        + ((window.y - per_pixel(base[:, 1]) - per_pixel(0.35 * unit)) / per_pixel(0.75 * unit)) ** 2
        + 1e-6
    ).sqrt() - 1
    window.paint(coverage(level), look["top"], covers=False)
    distance, along, across = capsule(window.x, window.y, base, head, unit * 0.42, unit * 0.38)
    shade = limb_shade(across, base, head, light) * (0.97 - 0.3 * along)
    window.paint((0.5 - distance / window.pixel).clamp(0, 1), look["skin"], shade, covers=False)


def head_look(shape: HeadShape, identity: Params, state: Params, sway: Tensor) -> Params:
    """All values that a head's painters read, one row a frame."""
    return {**identity, **state, **painted_values(shape), "sway": sway}


def paint_people(canvas: Canvas, people: Troupe, light: Tensor) -> None:
    """Paint everybody, from back to front: far hair, arms behind, legs, trunk, head, arms before.

    Args:
        light: (n 5) on the CPU.
    """
    device = canvas.image.device
    places = people.joints
    look = to_device(head_look(people.shape, people.identity, people.state, people.sway), device)
    joints, light, texture = to_device(places, device), light.to(device), people.texture.to(device)
    front = people.motion["arms_front"].to(device)
    trunk = TrunkPainter(canvas, look, joints, places, people.identity, light, texture)
    limbs = LimbPainter(trunk)

    unit = places["head_radius"]
    reach = 1.5 + people.identity["hair_volume"]
    box = bounds([places["head"]], reach * unit)
    back = box.clone()
    back[:, 3] += unit * (people.identity["hair_length"].clamp(min=0) + 0.8)
    back[:, 0] -= 0.5 * unit
    back[:, 2] += 0.5 * unit
    window = canvas.window(back)
    paint_back_hair(window, people.shape, look)
    window.close()
    if bool((people.motion["arms_front"] == 0).any()):
        for side in ("right", "left"):
            limbs.arm(side, 1 - front)
    limbs.legs()
    trunk.paint()
    locks = people.identity["locks"] * people.identity["hair_length"].clamp(min=0)
    box[:, 3] += unit * (locks - 0.4).clamp(min=0)
    FacePainter(canvas, people.shape, people.landmarks, look, light, texture).paint()
    window = canvas.window(box)
    paint_front_hair(window, people.shape, look, light, texture)
    window.close()
    if bool((people.motion["arms_front"] > 0).any()):
        for side in ("right", "left"):
            limbs.arm(side, front)
