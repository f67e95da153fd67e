"""The shape of a head seen from any side, and where the 68 landmarks of its face are.

A head is a stack of ellipses, one at each height: `width` across, `depth` from front to back, with a centre that
lies behind the middle at the skull and before it at the jaw. Turning the head turns every ellipse, so a pixel's
place on the surface (an angle and a height) follows in closed form, and back: whatever is painted on the surface
moves, foreshortens and hides as it should, and landmarks are exact.

Head units: half the head's height; u to the picture's right, v down, (0, 0) the middle; -1 the skull's top, 1 the chin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params, onto
from xdyna.data.synthetic.shapes import bump, per_pixel

WIDEST = -0.18
"""Height at which a head is widest."""

_MOVED = (
    "centre", "unit", "roll_cos", "roll_sin", "sin_yaw", "cos_yaw", "sin_pitch", "cos_pitch", "chin",
)  # fmt: skip


@dataclass
class Surface:
    """What a window's pixels see of a head.

    Attributes:
        u, v: (n h w) place in the picture, head units, upright (the head's roll undone).
        across: (n h w) place between the outline's left (-1) and right (1).
        outside: (n h w) level function of the outline, negative inside.
        angle: (n h w) place round the head: 0 the middle of the face, positive towards the picture's right.
        lateral: (n h w) distance from the face's middle on the surface, head units.
        height: (n h w) height on the surface: v with the nod undone.
        unit: (n,) length of a head unit in frame heights.
    """

    u: Tensor
    v: Tensor
    across: Tensor
    outside: Tensor
    angle: Tensor
    lateral: Tensor
    height: Tensor
    unit: Tensor


class HeadShape:
    """The head of each frame: geometry that the painter (pixels) and the landmarks (points) share.

    Args:
        identity, state: one row a frame (n).
        joints: of `pose_skeleton`.
    """

    def __init__(self, identity: Params, state: Params, joints: Params) -> None:
        self.identity, self.state = identity, state
        self.centre, self.unit, self.roll = joints["head"], joints["head_radius"], joints["head_roll"]
        self.roll_cos, self.roll_sin = self.roll.cos() / self.unit, self.roll.sin() / self.unit
        self.sin_yaw, self.cos_yaw = state["yaw"].sin(), state["yaw"].cos()
        self.sin_pitch, self.cos_pitch = state["pitch"].sin(), state["pitch"].cos()
        # The chin drops as the mouth opens.
        self.chin = 1 + 0.11 * state["mouth_open"]

    def outline(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Half-width in the picture, turn of the ellipse in it, shift of its centre and its lateral half-width.

        Args:
            v: (n ...) height in the picture; values outside of the head give (nearly) 0 widths.
        """
        shape = (-1,) + (1,) * (v.dim() - 1)

        def of(values: Tensor) -> Tensor:
            return values.view(shape)

        skull = (1 - ((v - WIDEST) / (1 + WIDEST)) ** 2).clamp(min=1e-4).sqrt()
        t = ((v - WIDEST) / (of(self.chin) - WIDEST)).clamp(0, 1)
        taper = 1 - of(self.identity["chin"]) * t * t
        fourth = t.square().square()
        end = (1 - fourth * (1 + of(self.identity["jaw_round"]) * (fourth - 1))).clamp(min=1e-4).sqrt()
        upper = v < WIDEST
        width = of(self.identity["head_width"]) * torch.where(upper, skull, taper * end)
        blend = t * t * (3 - 2 * t)
        depth = torch.where(upper, 0.93 * skull, (0.93 - 0.43 * blend) * end)
        shift = torch.where(upper, -0.12 * skull, -0.12 + 0.36 * blend) * of(self.sin_yaw)
        wide, deep = width * of(self.cos_yaw), depth * of(self.sin_yaw)
        return (wide * wide + deep * deep).sqrt(), torch.atan2(deep, wide), shift, width

    def nod(self, v: Tensor) -> Tensor:
        """How far the face's surface moves down per sine of the pitch, at a height in the picture."""
        return 0.82 * (1 - 0.5 * v.clamp(-1, 1) ** 2)

    def surface(self, x: Tensor, y: Tensor) -> Surface:
        """What each pixel (n h w, frame heights) sees."""
        device = x.device
        here = self.on(device)
        cos, sin = per_pixel(here.roll_cos), per_pixel(here.roll_sin)
        dx, dy = x - per_pixel(here.centre[:, 0]), y - per_pixel(here.centre[:, 1])
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        half, turn, shift, width = here.outline(v)
        across = (u - shift) / half
        # A circle in warped coordinates above the widest line, the edge of the jaw below it.
        top = (v - WIDEST).clamp(max=0) / (1 + WIDEST)
        half_widest, _, _, _ = here.outline(torch.full_like(v[:, :1, :1], WIDEST))
        skull_level = (((u - shift) / half_widest) ** 2 + top * top + 1e-6).sqrt() - 1
        jaw_level = torch.maximum((across.abs() - 1) * half, v - per_pixel(here.chin))
        outside = torch.where(v < WIDEST, skull_level * half_widest, jaw_level)
        angle = torch.asin(across.clamp(-0.9999, 0.9999)) - turn
        sin_pitch, cos_pitch = per_pixel(here.sin_pitch), per_pixel(here.cos_pitch)
        height = (v - self.nod(v) * sin_pitch) / cos_pitch
        return Surface(u, v, across, outside, angle, width * angle.sin(), height, here.unit)

    def on(self, device: torch.device) -> HeadShape:
        """This shape with its tensors on a device."""
        if self.unit.device == device:
            return self
        if not hasattr(self, "_moved"):
            moved = object.__new__(HeadShape)
            moved.identity = {
                name: onto(self.identity[name], device) for name in ("chin", "jaw_round", "head_width")
            }
            for name in _MOVED:
                setattr(moved, name, onto(getattr(self, name), device))
            self._moved = moved
        return self._moved

    def place(self, lateral: Tensor, height: Tensor, out: Tensor | float = 0.0) -> Tensor:
        """Points of the surface in the picture (n k 2), in frame heights; arguments as for `local`."""
        return self.to_frame(*self.local(lateral, height, out))

    def local(self, lateral: Tensor, height: Tensor, out: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Points of the surface in the upright picture of the head.

        Args:
            lateral, height: (n k) as in `Surface`; lateral is clipped to what the head is wide there.
            out: (n k) how far the point stands out in front of the surface (noses do).

        Returns:
            u and v, (n k) each, head units.
        """
        v = height
        for _ in range(8):
            v = height * self.cos_pitch[:, None] + self.nod(v) * self.sin_pitch[:, None]
        half, turn, shift, width = self.outline(v)
        angle = torch.asin((lateral / width).clamp(-1, 1))
        # Beyond the horizon a landmark stays on the outline, where a detector sees it.
        u = shift + half * (angle + turn).clamp(-torch.pi / 2, torch.pi / 2).sin()
        return u + out * self.sin_yaw[:, None], v + out * self.sin_pitch[:, None]

    def to_frame(self, u: Tensor, v: Tensor) -> Tensor:
        """Head units (n k) to frame heights (n k 2)."""
        cos, sin = self.roll.cos()[:, None], self.roll.sin()[:, None]
        offset = torch.stack([u * cos - v * sin, u * sin + v * cos], -1)
        return self.centre[:, None] + offset * self.unit[:, None, None]


# --- The face's curves, shared by painter and landmarks; arguments broadcast -----------------------------------


def eye_lids(
    place: Tensor, eye_y: Tensor, eye_height: Tensor, slant: Tensor, lid: Tensor
) -> tuple[Tensor, Tensor]:
    """Heights of the upper and the lower lid's edge at a place in [-1, 1] from the inner to the outer corner."""
    bow = (1 - place * place).clamp(min=0)
    line = eye_y - slant * place
    lower = line + 0.38 * eye_height * bow
    open_upper = line - 0.80 * eye_height * bow
    shut_upper = line + 0.34 * eye_height * bow
    return shut_upper + (open_upper - shut_upper) * lid, lower


def brow_line(place: Tensor, brow_y: Tensor, arch: Tensor, tilt: Tensor) -> Tensor:
    """Height of a brow at a place in [-1, 1] from inside to outside."""
    return brow_y - arch * (1 - (place - 0.25) ** 2) - 0.10 * tilt * place


def mouth_lines(
    place: Tensor, mouth_y: Tensor, smile: Tensor, opened: Tensor, pucker: Tensor, lip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heights of the upper lip's top, the gap's top, the gap's bottom and the lower lip's bottom.

    Args:
        place: in [-1, 1] from the picture's left corner to the right one.
    """
    bow = (1 - place * place).clamp(min=0)
    line = mouth_y + 0.03 * smile - 0.13 * smile * place * place
    gap = 0.30 * opened
    upper_inner = line - 0.22 * gap * bow
    lower_inner = line + 0.85 * gap * bow + 0.004
    thick = lip * (1 + 0.6 * pucker - 0.25 * smile.clamp(min=0))
    cupid = 1 - 0.28 * bump(place / 0.17)
    upper_outer = upper_inner - 0.85 * thick * bow.sqrt() * cupid
    lower_outer = lower_inner + 1.15 * thick * bow.sqrt()
    return upper_outer, upper_inner, lower_inner, lower_outer


def mouth_half_width(identity: Params, state: Params) -> Tensor:
    """(n,) half the mouth's width in head units."""
    smile = state["smile"]
    return identity["mouth_width"] * (
        1 + 0.30 * smile.clamp(min=0) - 0.42 * state["pucker"] - 0.10 * state["mouth_open"]
    )


def brow_height(identity: Params, state: Params) -> Tensor:
    """(n,) height of the brows."""
    return identity["eye_y"] - identity["brow_y"] - 0.10 * state["brow"] + 0.04 * (1 - state["lid"])


def landmarks(shape: HeadShape) -> Tensor:
    """The 68 points of the iBUG layout (n 68 2) in frame heights."""
    identity, state = shape.identity, shape.state
    count = len(shape.unit)

    def column(values: Tensor) -> Tensor:
        return values[:, None]

    def row(*values: float) -> Tensor:
        return torch.tensor(values).expand(count, -1)

    jaw = torch.linspace(-1, 1, 17).expand(count, -1)
    jaw_height = column(shape.chin) - (column(shape.chin) + 0.02) * jaw.abs() ** 1.7 - 0.012
    jaw_side = 0.97 * jaw.sign() * (jaw.abs() * 4.2).clamp(max=1) ** 0.9
    _, _, _, width = shape.outline(jaw_height)
    lateral, height, out = [jaw_side * width], [jaw_height], [0 * jaw]

    brow_y, eye_x = column(brow_height(identity, state)), column(identity["eye_x"])
    reach = 1.28 * column(identity["eye_width"])
    place = row(-1.0, -0.5, 0.0, 0.5, 1.0)
    arch, tilt = column(identity["brow_arch"]), column(state["brow_tilt"])
    for sign, order in ((-1.0, place.flip(1)), (1.0, place)):
        lateral.append(sign * (eye_x + order * reach))
        height.append(brow_line(order, brow_y, arch, tilt))
        out.append(0 * order)

    nose_y, nose_out = column(identity["nose_y"]), column(identity["nose_out"])
    bridge, wing = row(0.0, 1 / 3, 2 / 3, 1.0), row(-1.0, -0.5, 0.0, 0.5, 1.0)
    top = column(identity["eye_y"]) - 0.02
    lateral += [0 * bridge, wing * column(identity["nose_width"])]
    height += [top + (nose_y - top) * bridge, nose_y + 0.07 + 0.02 * (1 - wing.abs())]
    out += [nose_out * bridge, nose_out * (0.55 - 0.35 * wing.abs())]

    eye = [column(identity[name]) for name in ("eye_y", "eye_height", "eye_slant")] + [column(state["lid"])]
    eye_width = column(identity["eye_width"])
    for sign in (-1.0, 1.0):
        # From the picture's left corner over the upper lid to the right corner and back below.
        upper = row(1.0, 0.35, -0.35, -1.0) if sign < 0 else row(-1.0, -0.35, 0.35, 1.0)
        lower = row(-0.35, 0.35) if sign < 0 else row(0.35, -0.35)
        lateral.append(sign * (eye_x + torch.cat([upper, lower], 1) * eye_width))
        height += [eye_lids(upper, *eye)[0], eye_lids(lower, *eye)[1]]
        out.append(0 * row(*[0.0] * 6))

    half = column(mouth_half_width(identity, state))
    mouth = [column(identity["mouth_y"])] + [column(state[n]) for n in ("smile", "mouth_open", "pucker")]
    mouth.append(column(identity["lip_thick"]))
    for places, line in (
        (row(-1.0, -0.62, -0.25, 0.0, 0.25, 0.62, 1.0), 0), (row(0.62, 0.25, 0.0, -0.25, -0.62), 3),
        (row(-0.9, -0.4, 0.0, 0.4, 0.9), 1), (row(0.4, 0.0, -0.4), 2),
    ):  # fmt: skip
        lateral.append(places * half)
        height.append(mouth_lines(places, *mouth)[line])
        out.append(0 * places)
    return shape.place(torch.cat(lateral, 1), torch.cat(height, 1), torch.cat(out, 1))


def head_marks(shape: HeadShape, face: Tensor) -> Tensor:
    """Nose, right eye, left eye, right ear, left ear: (n 5 3), x and y in frame heights and 1 or, turned away, 0."""
    yaw = shape.state["yaw"]
    ones = torch.ones(len(face), 1)
    right_eye, left_eye = face[:, 36:42].mean(1), face[:, 42:48].mean(1)
    marks = [torch.cat([point, ones], 1) for point in (face[:, 30], right_eye, left_eye)]
    for sign in (-1.0, 1.0):
        # The right ear is on the picture's left; it is hidden when the face turns to the left.
        ear = ear_place(shape, sign)
        seen = (sign * yaw < 0.35).float()[:, None]
        marks.append(torch.cat([shape.to_frame(ear[:, :1], ear[:, 1:])[:, 0], seen], 1))
    return torch.stack(marks, 1)


def ear_place(shape: HeadShape, sign: float) -> Tensor:
    """Middle of an ear (n 2), head units in the picture; sign -1 is the picture's left."""
    width = shape.identity["head_width"]
    u = sign * width * 0.98 * shape.cos_yaw - 0.10 * shape.sin_yaw
    return torch.stack([u, 0.13 - 0.05 * shape.sin_pitch], -1)


def painted_values(shape: HeadShape) -> Params:
    """What the painter needs beside identity and state, each (n,) and in head units unless it is a sine or cosine."""
    identity, state = shape.identity, shape.state
    ends = torch.stack([identity["eye_y"] - 0.02, identity["nose_y"]], 1)
    nose_u, nose_v = shape.local(
        torch.zeros_like(ends), ends, torch.stack([torch.zeros_like(ends[:, 0]), identity["nose_out"]], 1)
    )
    half, _, shift, _ = shape.outline(torch.full_like(ends[:, :1], WIDEST))
    mouth = [identity["mouth_y"], state["smile"], state["mouth_open"], state["pucker"], identity["lip_thick"]]
    top, _, _, bottom = mouth_lines(torch.zeros_like(state["smile"]), *mouth)
    left, right = ear_place(shape, 1.0), ear_place(shape, -1.0)
    return {
        "sin_yaw": shape.sin_yaw, "cos_yaw": shape.cos_yaw,
        "brow_line": brow_height(identity, state), "mouth_half": mouth_half_width(identity, state),
        "nose_top_u": nose_u[:, 0], "nose_top_v": nose_v[:, 0], "nose_tip_u": nose_u[:, 1], "nose_tip_v": nose_v[:, 1],
        "lip_middle": (top + bottom) / 2, "lip_reach": (bottom - top) / 2 + 0.015,
        "half_widest": half[:, 0], "skull_u": shift[:, 0],
        "left_ear_u": left[:, 0], "left_ear_v": left[:, 1], "right_ear_u": right[:, 0], "right_ear_v": right[:, 1],
    }  # fmt: skip


def head_look(shape: HeadShape, identity: Params, state: Params, hung: Params) -> Params:
    """All values that a head's painters read, one row a frame; `hung` is of `trailing.hang`."""
    return {**identity, **state, **painted_values(shape), **hung}
