"""Painting the body: legs, trunk, neck, arms and hands, and the clothes on them."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.shapes import (
    Canvas,
    Window,
    capsule,
    coverage,
    limb_shade,
    lit,
    per_pixel,
    ramp,
    sample_texture,
    smooth_ramp,
)

HAND_BONES = tuple(
    (0 if joint == 1 else joint - 1, joint)
    for finger in range(5)
    for joint in range(4 * finger + 1, 4 * finger + 5)
)


def bounds(points: list[Tensor], margin: Tensor) -> Tensor:
    """Boxes (n 4) round points (each (n 2) or (n k 2)), widened by a margin (n,)."""
    every = torch.cat([p[:, None] if p.dim() == 2 else p for p in points], 1)
    return torch.cat([every.amin(1) - margin[:, None], every.amax(1) + margin[:, None]], 1)


class Dresser:
    """Paints the parts of one chunk's people.

    Args:
        canvas: what is painted on.
        look: identity and state, one row a frame, on the canvas's device.
        joints, places: of `pose_skeleton`, on the device and on the CPU (windows are laid out from the latter).
        light: (n 5).
        texture: (b c t t) cloth, one a clip.
    """

    def __init__(
        self, canvas: Canvas, look: Params, joints: Params, places: Params, light: Tensor, texture: Tensor
    ) -> None:
        self.canvas, self.look, self.joints, self.places = canvas, look, joints, places
        self.light, self.texture = light, texture
        self.scale = joints["scale"]

    def _limb(
        self,
        window: Window,
        start: Tensor,
        end: Tensor,
        radii: tuple[Tensor, Tensor],
        colour: Tensor,
        *,
        here: Tensor | None = None,
        folds: float = 0.0,
        phase: float = 0.0,
    ) -> None:
        distance, along, across = capsule(window.x, window.y, start, end, *radii)
        shade = limb_shade(across, start, end, self.light)
        if folds:
            shade = shade * (
                1 + folds * (along * 17 + across * 3 + phase).sin() * (along * 7 + 2 * phase).sin()
            )
        alpha = (0.5 - distance / window.pixel).clamp(0, 1)
        window.paint(alpha if here is None else alpha * per_pixel(here), colour, shade)

    def legs(self) -> None:
        """Both legs with trousers, socks and shoes."""
        look, joints, places = self.look, self.joints, self.places
        names = [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle", "toe")]
        window = self.canvas.window(bounds([places[n] for n in names], places["scale"] * 0.10))
        for side in ("right", "left"):
            hip, knee, ankle, toe = (joints[f"{side}_{n}"] for n in ("hip", "knee", "ankle", "toe"))
            radius, skin = look["leg_radius"] * self.scale, look["skin"]
            cover, wide = look["leg_cover"], look["trouser_width"]
            # Shoe: upper and sole.
            shoe = look["shoe"]
            self._limb(window, ankle, toe, (radius * 0.62, radius * 0.58), shoe)
            sole = torch.stack([torch.zeros_like(radius), radius * 0.35], -1)
            self._limb(window, ankle + sole, toe + sole, (radius * 0.50, radius * 0.45), shoe * 0.55)
            self._limb(window, ankle, toe, (radius * 0.60, radius * 0.50), shoe)
            self._limb(window, knee, ankle, (radius * 0.74, radius * 0.46), skin)
            sock = look["sock"][:, None]
            self._limb(
                window,
                ankle + (knee - ankle) * sock,
                ankle,
                (radius * (0.48 + 0.28 * look["sock"]), radius * 0.49),
                look["sock_colour"],
                here=(look["sock"] > 0).float(),
            )
            self._limb(window, hip, knee, (radius * 1.15, radius * 0.80), skin)
            lower = (cover - 1).clamp(0, 1)[:, None]
            self._limb(
                window,
                knee,
                knee + (ankle - knee) * lower * 0.96,
                (radius * 0.84 * wide, radius * (0.60 * wide**1.8)),
                look["bottom"],
                here=(cover > 1).float(),
                folds=0.07,
                phase=1.0,
            )
            upper = cover.clamp(0, 1)[:, None]
            self._limb(
                window,
                hip,
                hip + (knee - hip) * upper,
                (radius * 1.24, radius * 0.92 * wide),
                look["bottom"],
                here=(cover > 0).float(),
                folds=0.05,
            )
        window.close()

    def trunk(self) -> None:
        """Neck, trunk with its top, hips, skirt, belt and coat."""
        look, joints, places = self.look, self.joints, self.places
        scale = places["scale"]
        margin = scale * 0.16
        box = bounds(
            [
                places["neck"],
                places["pelvis"],
                places["right_shoulder"],
                places["left_shoulder"],
                places["head"],
            ],
            margin,
        )
        falls = torch.maximum(self.places["skirt_fall"], self.places["coat_fall"])
        box[:, 3] = torch.maximum(box[:, 3], places["pelvis"][:, 1] + falls * 1.05)
        wide = falls * 0.75 + 0.05 * scale
        box[:, 0] = torch.minimum(box[:, 0], places["pelvis"][:, 0] - wide)
        box[:, 2] = torch.maximum(box[:, 2], places["pelvis"][:, 0] + wide)
        window = self.canvas.window(box)
        at = {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}
        unit = per_pixel(self.scale)

        neck, pelvis = joints["neck"], joints["pelvis"]
        axis = pelvis - neck
        length = axis.norm(dim=1, keepdim=True)
        axis, length = axis / length, per_pixel(length[:, 0])
        dx, dy = window.x - per_pixel(neck[:, 0]), window.y - per_pixel(neck[:, 1])
        ax, ay = per_pixel(axis[:, 0]), per_pixel(axis[:, 1])
        v = (dx * ax + dy * ay) / length  # 0 at the neck, 1 at the hips
        u = dx * ay - dy * ax
        narrow = (1 - 0.30 * at["turn"].sin().abs()) * unit
        shoulder, hip = (at["shoulder"] + 0.012) * narrow, (at["hip"] + 0.045) * narrow
        waist = 0.5 * (shoulder + hip) * at["waist"]
        low = smooth_ramp(v, 0.55, 1.0)
        half = shoulder * 0.93 + (waist - shoulder * 0.93) * smooth_ramp(v, 0.12, 0.62) + (hip - waist) * low
        # The slope from neck to shoulder.
        half = half * (1 - 0.42 * ramp(v, 0.16, -0.02) ** 1.4)
        round_u = (u / half).clamp(-1, 1)
        angle = torch.asin(round_u * 0.999) - at["turn"]
        light = self.light
        facing = (
            round_u * per_pixel(light[:, 0])
            + torch.sqrt(1 - round_u**2 * 0.98) * per_pixel(light[:, 2])
            + 0.15 * per_pixel(light[:, 1]) * (v - 0.5)
        )
        chest = (
            at["feminine"]
            * (
                torch.exp(-(((angle - 0.42) / 0.25) ** 2) - ((v - 0.42) / 0.09) ** 2)
                + torch.exp(-(((angle + 0.42) / 0.25) ** 2) - ((v - 0.42) / 0.09) ** 2)
            )
            * (0.4 * ramp(0.42 - v, -0.1, 0.05) - 0.25)
        )
        shade = lit(facing, light) * (1 + 0.35 * chest)
        wrinkle = self._cloth(angle * 0.18, v * 0.35)
        body = torch.maximum(u.abs() - half, torch.maximum(-0.045 - v, v - 1.02) * length)
        skin_shape = coverage(body)

        # Skin first: what the clothes leave bare.
        muscle = 1 - 0.05 * torch.exp(-((angle / 0.05) ** 2)) * ramp(v, 0.2, 0.3)
        window.paint(skin_shape, look["skin"], shade * muscle)
        self._neck(window)
        folds = 1 + 0.035 * wrinkle
        # Trousers' waist or skirt.
        self._hips(window, at, u, v, hip, length, folds)
        top_alpha = coverage(
            torch.maximum(u.abs() - half * at["loose"], torch.maximum(-0.055 - v, v - at["crop"]) * length)
        )
        open_neck = self._neckline(at, angle, v)
        top_alpha = top_alpha * at["top_here"] * (1 - open_neck)
        colour = self._pattern(look, at, angle, v, wrinkle)
        window.paint(top_alpha, colour, shade * folds)
        self._collar(window, look, at, angle, v, top_alpha, shade)
        belt = coverage(torch.maximum((v - 0.985).abs() - 0.022, (u.abs() - hip * 1.03) / length))
        window.paint(belt * at["belt"], look["shoe"] * 0.7, shade)
        self._coat(window, at, u, v, half, hip, length, angle, shade * folds)
        window.close()

    def _cloth(self, u: Tensor, v: Tensor) -> Tensor:
        batch = len(self.texture)
        found = sample_texture(self.texture[:, :1], u.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1)))
        return found.flatten(0, 2)

    def _neck(self, window: Window) -> None:
        joints, look = self.joints, self.look
        radius = joints["head_radius"]
        neck = joints["neck"] + torch.stack([torch.zeros_like(radius), 0.02 * self.scale], -1)
        thick = radius * (0.36 + 0.08 * (1 - look["feminine"]))
        distance, along, across = capsule(window.x, window.y, neck, joints["head"], thick * 1.08, thick)
        # The chin's shadow falls on the neck.
        shade = limb_shade(across, neck, joints["head"], self.light) * (
            0.97 - 0.33 * smooth_ramp(along, 0.15, 0.55)
        )
        window.paint((0.5 - distance / window.pixel).clamp(0, 1), look["skin"], shade)

    def _neckline(self, at: Params, angle: Tensor, v: Tensor) -> Tensor:
        """Where the top is open at the neck (n h w)."""
        size, kind = at["neckline"], at["collar"]
        rounded = ((angle / (0.42 * size)) ** 2 + ((v + 0.02) / (0.13 * size)) ** 2 + 1e-6).sqrt() - 1
        pointed = angle.abs() / (0.36 * size) + v / (0.27 * size) - 1
        wide = ((angle / (0.78 * size)) ** 2 + ((v + 0.02) / (0.17 * size)) ** 2 + 1e-6).sqrt() - 1
        shut = torch.ones_like(v)
        level = torch.where(
            kind == 1, pointed, torch.where(kind == 2, wide, torch.where(kind == 3, shut, rounded))
        )
        level = torch.where(kind == 4, angle.abs() / 0.22 + v / 0.16 - 1, level)
        return coverage(level)

    def _collar(
        self, window: Window, look: Params, at: Params, angle: Tensor, v: Tensor, top: Tensor, shade: Tensor
    ) -> None:
        kind = at["collar"]
        polo = ((kind == 3) * at["top_here"]).float()
        radius = self.joints["head_radius"]
        up = self.joints["head"] - self.joints["neck"]
        neck = self.joints["neck"] - torch.stack([torch.zeros_like(radius), 0.01 * self.scale], -1)
        distance, _, across = capsule(
            window.x, window.y, neck, neck + up * 0.34, radius * 0.50, radius * 0.45
        )
        alpha = (0.5 - distance / window.pixel).clamp(0, 1)
        window.paint(alpha * polo, look["top"] * 0.92, limb_shade(across, neck, neck + up, self.light))
        # Shirt: two flaps and a row of buttons on a placket.
        shirt = (kind == 4).float() * top
        flap = coverage(
            torch.maximum(
                (angle.abs() - 0.10 - 0.9 * (v + 0.06)).abs() - 0.10, torch.maximum(v - 0.15, -0.05 - v)
            )
        )
        window.paint(flap * shirt, (look["top"] * 1.08).clamp(max=1), shade * 0.95)
        window.darken(torch.exp(-((angle / 0.018) ** 2)) * shirt * 0.25)
        row = (v * 7) % 1 - 0.5
        button = (
            coverage((((angle - 0.045) / 0.03) ** 2 + (row / 0.13) ** 2 + 1e-6).sqrt() - 1)
            * (v > 0.1).float()
        )
        window.paint(button * shirt, look["top_second"])

    def _pattern(self, look: Params, at: Params, angle: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        """The top's colour (n 3 h w)."""
        k, kind = at["pattern_size"], at["pattern"]
        a = torch.where(at["pattern_turn"] > 0, v * 1.6, angle)
        b = torch.where(at["pattern_turn"] > 0, angle, v * 1.6)

        def sharp(x: Tensor) -> Tensor:
            return (x * 6 + 0.5).clamp(0, 1)

        stripes = sharp((b * k * 2.4).sin())
        pins = sharp((a * k * 3).sin() - 0.8)
        checks = 0.5 * (sharp((a * k * 1.5).sin()) + sharp((b * k * 1.5).sin()))
        dots = sharp((a * k * 1.6).sin() * (b * k * 1.6).sin() - 0.5)
        marble = sharp(noise * 0.8 - 0.2)
        logo = sharp(
            0.30
            + 0.06 * (torch.atan2(v - 0.40, angle * 0.5) * (k / 2).floor()).sin()
            - ((angle * 0.7) ** 2 + ((v - 0.40) * 1.7) ** 2 + 1e-6).sqrt()
        )
        amount = torch.zeros_like(v)
        for index, drawn in enumerate((stripes, pins, checks, dots, marble, logo), start=1):
            amount = torch.where(kind == index, drawn, amount)
        first, second = look["top"][:, :, None, None], look["top_second"][:, :, None, None]
        return first + (second - first) * amount[:, None]

    def _hips(
        self, window: Window, at: Params, u: Tensor, v: Tensor, hip: Tensor, length: Tensor, folds: Tensor
    ) -> None:
        look = self.look
        band = torch.maximum(u.abs() - hip * 1.02, torch.maximum(0.93 - v, v - 1.10) * length)
        round_u = (u / (hip * 1.02)).clamp(-1, 1)
        shade = lit(
            round_u * per_pixel(self.light[:, 0])
            + torch.sqrt(1 - round_u**2 * 0.98) * per_pixel(self.light[:, 2]),
            self.light,
        )
        trousers = ((look["leg_cover"] > 0) | (look["skirt"] > 0)).float()
        window.paint(coverage(band) * per_pixel(trousers), look["bottom"], shade * folds)
        # The skirt widens downwards, lags behind the hips and hangs in folds.
        fall = per_pixel(self.joints["skirt_fall"])
        start = 0.62 * at["dress"] + 0.90 * (1 - at["dress"])
        down = ((v - start) * length / ((1 - start) * length + fall)).clamp(0, 1.2)
        t = ((v - 1) * length / fall.clamp(min=1e-3)).clamp(0, 1.2)
        lag = per_pixel(self.joints["hem_lag"])
        swayed = u - lag * t * t
        waist = hip * (0.80 + 0.25 * smooth_ramp(v, start, 1.0))
        half = waist + fall * at["flare"] * t * (1.1 - 0.25 * t)
        place = (swayed / half).clamp(-1, 1)
        pleat = (torch.asin(place * 0.999) * at["pleats"] + 3 * lag / self_scale(self.scale)).sin()
        hem = (1 - v) * length + fall * (1 + 0.03 * pleat)
        level = torch.maximum(swayed.abs() - half, torch.maximum(-hem, (start - v) * length))
        facing = place * per_pixel(self.light[:, 0]) + torch.sqrt(1 - place**2 * 0.98) * per_pixel(
            self.light[:, 2]
        )
        tone = lit(facing, self.light) * (1 + 0.13 * pleat * down)
        colour = torch.where(look["dress"][:, None] > 0, look["top"], look["bottom"])
        window.paint(coverage(level) * at["skirt"], colour, tone)

    def _coat(
        self,
        window: Window,
        at: Params,
        u: Tensor,
        v: Tensor,
        half: Tensor,
        hip: Tensor,
        length: Tensor,
        angle: Tensor,
        shade: Tensor,
    ) -> None:
        fall = per_pixel(self.joints["coat_fall"])
        t = ((v - 1) * length / fall.clamp(min=1e-3)).clamp(0, 1)
        swayed = u - per_pixel(self.joints["hem_lag"]) * t * t
        edge = torch.maximum(half, hip) * 1.10 + fall * 0.16 * t
        gap = at["coat_gap"] * (0.25 + 0.75 * smooth_ramp(v, 0.0, 0.4)) + 0.4 * t * at["coat_gap"]
        level = torch.maximum(swayed.abs() - edge, torch.maximum(-0.06 - v, v - 1 - fall / length) * length)
        open_front = coverage((angle.abs() - gap) * half)
        alpha = coverage(level) * (1 - open_front) * at["coat"]
        window.paint(alpha, self.look["coat_colour"], shade)
        rim = torch.exp(-(((angle.abs() - gap - 0.05) / 0.05) ** 2)) * alpha
        window.darken(rim * 0.25)

    def arm(self, side: str, here: Tensor) -> None:
        """One arm with its sleeve and hand.

        Args:
            side: "right" or "left".
            here: (n,) 1 where it is painted now (arms go behind the trunk or before it).
        """
        look, joints, places = self.look, self.joints, self.places
        hand = f"{side}_hand"
        names = [f"{side}_{n}" for n in ("shoulder", "elbow", "wrist")]
        window = self.canvas.window(bounds([places[n] for n in names], places["scale"] * 0.055))
        shoulder, elbow, wrist = (joints[n] for n in names)
        radius = look["arm_radius"] * self.scale
        self._limb(window, elbow, wrist, (radius * 0.92, radius * 0.62), look["skin"], here=here)
        self._limb(window, shoulder, elbow, (radius * 1.18, radius * 0.92), look["skin"], here=here)
        sleeve, wide = look["sleeve"], look["sleeve_width"]
        colour = torch.where(look["coat"][:, None] > 0, look["coat_colour"], self.look["top"])
        lower = (sleeve - 1).clamp(0, 1)[:, None]
        self._limb(
            window,
            elbow,
            elbow + (wrist - elbow) * lower * 0.97,
            (radius * 0.98 * wide, radius * 0.78 * wide),
            colour,
            here=here * (sleeve > 1),
            folds=0.08,
            phase=2.0,
        )
        upper = sleeve.clamp(0, 1)[:, None]
        puff = 1 + 0.55 * look["puff"]
        self._limb(
            window,
            shoulder,
            shoulder + (elbow - shoulder) * upper,
            (radius * 1.25 * wide * puff, radius * 1.02 * wide),
            colour,
            here=here * (sleeve > 0),
            folds=0.06,
        )
        window.close()
        window = self.canvas.window(bounds([places[hand]], places["scale"] * 0.022))
        self._hand(window, joints[hand], here)
        window.close()

    def _hand(self, window: Window, points: Tensor, here: Tensor) -> None:
        """Palm and fingers: every bone a capsule, all at once; the nearest one gives a pixel its shade."""
        look = self.look
        size = look["hand"] * self.scale
        x, y = window.x[:, None], window.y[:, None]
        start, end = points[:, [a for a, _ in HAND_BONES]], points[:, [b for _, b in HAND_BONES]]
        tip = torch.tensor([1.0 - 0.085 * ((b - 1) % 4) for _, b in HAND_BONES], device=points.device)
        root = torch.tensor([1.0 if a else 1.35 for a, _ in HAND_BONES], device=points.device)
        thumb = torch.tensor([1.15 if b <= 4 else 1.0 for _, b in HAND_BONES], device=points.device)
        radius = (size * 0.088)[:, None] * tip * root * thumb
        ax, ay = (end - start)[..., 0, None, None], (end - start)[..., 1, None, None]
        px, py = x - start[..., 0, None, None], y - start[..., 1, None, None]
        along = ((px * ax + py * ay) / (ax * ax + ay * ay + 1e-8)).clamp(0, 1)
        spread = torch.sqrt((px - ax * along) ** 2 + (py - ay * along) ** 2 + 1e-12)
        distance, which = (spread - radius[..., None, None]).min(1)
        # The palm: a wide capsule from the wrist to the middle knuckles.
        knuckles = points[:, [5, 9, 13, 17]]
        width = (knuckles[:, 0] - knuckles[:, 3]).norm(dim=1)
        palm, _, _ = capsule(
            window.x,
            window.y,
            points[:, 0] * 0.8 + knuckles.mean(1) * 0.2,
            knuckles.mean(1) * 0.86 + points[:, 0] * 0.14,
            width * 0.42 + size * 0.05,
            width * 0.50 + size * 0.05,
        )
        deep = (-distance / (size * 0.088)[:, None, None]).clamp(0, 1)
        on_palm = ramp(-palm, 0.0, 1.0) * 0
        shade = 0.74 + 0.32 * deep**0.7 + on_palm
        inside_palm = (palm < 0) & (which % 4 == 0)
        shade = torch.where(inside_palm, torch.full_like(shade, 0.98), shade)
        alpha = (0.5 - torch.minimum(distance, palm) / window.pixel).clamp(0, 1) * per_pixel(here)
        window.paint(alpha, look["skin"], shade)


def self_scale(scale: Tensor) -> Tensor:
    """(n,) to (n 1 1), never 0."""
    return per_pixel(scale.clamp(min=1e-3))
