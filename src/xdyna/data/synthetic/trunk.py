"""Painting the trunk: neck, chest, hips, and the tops, skirts, dresses and coats on them."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.shapes import (
    Canvas,
    Window,
    bounds,
    bump,
    capsule,
    coverage,
    limb_shade,
    lit,
    per_pixel,
    ramp,
    sample_texture,
    smooth_ramp,
)


class TrunkPainter:
    """Paints the trunks of one chunk's people.

    Args:
        canvas: what is painted on.
        look: identity and state, one row a frame, on the canvas's device.
        joints, places: of `pose_skeleton`, on the device and on the CPU (windows are laid out from the latter).
        identity: one row a frame, on the CPU: tells what nobody wears and so need not be painted.
        light: (n 5).
        texture: (b c t t) cloth, one a clip.
    """

    def __init__(
        self, canvas: Canvas, look: Params, joints: Params, places: Params, identity: Params,
        light: Tensor, texture: Tensor,
    ) -> None:  # fmt: skip
        self.canvas, self.look, self.joints, self.places = canvas, look, joints, places
        self.identity, self.light, self.texture = identity, light, texture
        self.at = {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}
        narrow = (1 - 0.30 * self.at["turn"].sin().abs()) * per_pixel(joints["scale"])
        self.hip = (self.at["hip"] + 0.045) * narrow
        self.shoulder = (self.at["shoulder"] + 0.012) * narrow

    def wears(self, name: str) -> bool:
        """Whether anybody of the chunk has the thing."""
        return bool((self.identity[name] > 0).any())

    def paint(self) -> None:
        """Skirt, body, top, collar, belt and coat."""
        if self.wears("skirt"):
            self._skirt()
        places, scale = self.places, self.places["scale"]
        points = [places[n] for n in ("neck", "pelvis", "right_shoulder", "left_shoulder", "head")]
        box = bounds(points, scale * 0.06)
        box[:, :2] -= 0.04 * scale[:, None]
        box[:, 2] += 0.04 * scale
        if self.wears("coat"):
            box[:, 3] = torch.maximum(
                box[:, 3], places["pelvis"][:, 1] + 1.03 * places["coat_fall"] + 0.02 * scale
            )
            box[:, 0] -= 0.3 * places["coat_fall"]
            box[:, 2] += 0.3 * places["coat_fall"]
        window = self.canvas.window(box)
        u, v, length = self._axes(window)
        at, look = self.at, self.look
        shoulder, hip = self.shoulder, self.hip
        waist = 0.5 * (shoulder + hip) * at["waist"]
        half = shoulder * 0.93 + (waist - shoulder * 0.93) * smooth_ramp(v, 0.12, 0.62)
        half = half + (hip - waist) * smooth_ramp(v, 0.55, 1.0)
        # The line from neck to shoulder.
        rise = ramp(u.abs() / shoulder, 0.95, 0.30)
        upper = -0.06 - 0.09 * rise * rise
        round_u = (u / half).clamp(-1, 1)
        angle = torch.asin(round_u * 0.999) - at["turn"]
        shade = self._shade(round_u, 0.15 * per_pixel(self.light[:, 1]) * (v - 0.5))
        if self.wears("feminine"):
            side = bump((angle.abs() - 0.42) / 0.3) * bump((v - 0.42) / 0.11) * at["feminine"]
            shade = shade * (1 + side * (0.14 * ramp(0.42 - v, -0.1, 0.05) - 0.09))
        noise = self._cloth(angle * 0.18, v * 0.35)
        folds = 1 + 0.035 * noise

        # Skin first: what the clothes leave bare. A dress has its skirt from the waist on.
        body = torch.maximum(u.abs() - half, torch.maximum(upper - v, v - 1.02) * length)
        bare = coverage(body) * (1 - at["dress"] * (v > 0.72))
        window.paint(bare, look["skin"], shade)
        self._neck(window)
        self._hips(window, u, v, length, folds)
        if self.wears("top_here"):
            end = torch.maximum(upper - 0.008 - v, v - torch.where(at["dress"] > 0, 0.8, at["crop"])) * length
            alpha = coverage(torch.maximum(u.abs() - half * at["loose"], end)) * at["top_here"]
            alpha = alpha * (1 - self._neckline(angle, v))
            window.paint(alpha, self.pattern(angle, v, noise), shade * folds)
            self._collar(window, angle, v, alpha, shade)
        if self.wears("belt"):
            belt = coverage(torch.maximum((v - 0.985).abs() * length - 0.022 * length, u.abs() - hip * 1.03))
            window.paint(belt * at["belt"], look["shoe"] * 0.7, shade)
        if self.wears("coat"):
            self._coat(window, u, torch.stack([v, upper]), half, length, angle, shade * folds)
        window.close()

    def _axes(self, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """Places across the trunk (frame heights) and along it (0 the neck, 1 the hips), and its length."""
        neck = self.joints["neck"]
        axis = self.joints["pelvis"] - neck
        length = axis.norm(dim=1, keepdim=True)
        axis = axis / length
        dx, dy = window.x - per_pixel(neck[:, 0]), window.y - per_pixel(neck[:, 1])
        ax, ay, long = per_pixel(axis[:, 0]), per_pixel(axis[:, 1]), per_pixel(length[:, 0])
        return dx * ay - dy * ax, (dx * ax + dy * ay) / long, long

    def _shade(self, round_u: Tensor, more: Tensor | float = 0.0) -> Tensor:
        """Light on an upright cylinder."""
        out = torch.sqrt(1 - round_u * round_u * 0.98)
        return lit(
            round_u * per_pixel(self.light[:, 0]) + out * per_pixel(self.light[:, 2]) + more, self.light
        )

    def _cloth(self, u: Tensor, v: Tensor) -> Tensor:
        batch = len(self.texture)
        u, v = torch.broadcast_tensors(u, v)
        found = sample_texture(self.texture[:, :1], u.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1)))
        return found.flatten(0, 2)

    def _neck(self, window: Window) -> None:
        joints, look = self.joints, self.look
        radius = joints["head_radius"]
        neck = joints["neck"] + torch.stack([torch.zeros_like(radius), 0.02 * joints["scale"]], -1)
        thick = radius * (0.36 + 0.08 * (1 - look["feminine"]))
        distance, along, across = capsule(window.x, window.y, neck, joints["head"], thick * 1.08, thick)
        # The chin's shadow falls on the neck.
        shade = limb_shade(across, neck, joints["head"], self.light) * (
            0.97 - 0.33 * smooth_ramp(along, 0.15, 0.55)
        )
        window.paint((0.5 - distance / window.pixel).clamp(0, 1), look["skin"], shade)

    def _hips(self, window: Window, u: Tensor, v: Tensor, length: Tensor, folds: Tensor) -> None:
        """The upper end of trousers or skirt."""
        look, wide = self.look, self.hip * 1.02
        covered = ((look["leg_cover"] > 0) | (look["skirt"] > 0)).float() * (1 - look["dress"])
        band = coverage(torch.maximum(u.abs() - wide, torch.maximum(0.93 - v, v - 1.10) * length))
        shade = self._shade((u / wide).clamp(-1, 1))
        window.paint(band * per_pixel(covered), look["bottom"], shade * folds)

    def _skirt(self) -> None:
        """It widens downwards, lags behind the hips and hangs in folds."""
        places, at = self.places, self.at
        drop = places["skirt_fall"]
        box = bounds([places["neck"], places["pelvis"]], 0.12 * places["scale"] + 0.9 * drop)
        box[:, 1] = torch.minimum(places["neck"][:, 1] * 0.5 + places["pelvis"][:, 1] * 0.5, box[:, 3])
        box[:, 3] = places["pelvis"][:, 1] + 1.12 * drop + 0.01
        window = self.canvas.window(box)
        u, v, length = self._axes(window)
        fall = per_pixel(self.joints["skirt_fall"]).clamp(min=1e-3)
        start = 0.62 * at["dress"] + 0.90 * (1 - at["dress"])
        down = ((v - start) * length / ((1 - start) * length + fall)).clamp(0, 1.2)
        t = ((v - 1) * length / fall).clamp(0, 1.2)
        lag = per_pixel(self.joints["hem_lag"])
        swayed = u - self._swung(t)
        flare = at["flare"] * (1 + 0.6 * at["billow"]) + 0.35 * at["billow"]
        half = self.hip * (0.80 + 0.25 * smooth_ramp(v, start, 1.0)) + fall * flare * t * (1.1 - 0.25 * t)
        place = (swayed / half).clamp(-1, 1)
        swing = 3 * lag / per_pixel(self.joints["scale"].clamp(min=1e-3))
        angle = torch.asin(place * 0.999) - at["turn"]
        pleat = (angle * at["pleats"] + swing).sin()
        # A skirt that widens rises, and it rises on the side that it swings to.
        rise = 1 + 0.03 * pleat - 0.16 * at["billow"] - 0.10 * (lag / fall) * place
        hem = (1 - v) * length + fall * rise
        level = torch.maximum(swayed.abs() - half, torch.maximum(-hem, (start - v) * length))
        alpha = coverage(level) * at["skirt"]
        tone = self._shade(place) * (1 + 0.13 * pleat * down)
        plain = self.look["bottom"][:, :, None, None]
        printed = (
            self.pattern(angle, v, self._cloth(angle * 0.18, v * 0.35)) if self.wears("dress") else plain
        )
        window.paint(alpha, torch.where(at["dress"][:, None] > 0, printed, plain), tone)
        window.close()

    def _swung(self, t: Tensor) -> Tensor:
        """How far cloth that hangs from the hips is aside, `t` (n h w) of the way down to its hem."""
        lag, wave = per_pixel(self.joints["hem_lag"]), per_pixel(self.joints["hem_wave"])
        return lag * t * t + wave * t * (1 - t) * 3

    def _neckline(self, angle: Tensor, v: Tensor) -> Tensor:
        """Where the top is open at the neck (n h w)."""
        size, kind = self.at["neckline"], self.at["collar"]
        wide = torch.where(kind == 2, 0.78, 0.42) * size
        deep = torch.where(kind == 2, 0.17, 0.13) * size
        rounded = ((angle / wide) ** 2 + ((v + 0.02).clamp(min=0) / deep) ** 2 + 1e-6).sqrt() - 1
        across, down = torch.where(kind == 4, 0.22, 0.36 * size), torch.where(kind == 4, 0.16, 0.27 * size)
        pointed = angle.abs() / across + v.clamp(min=0) / down - 1
        level = torch.where((kind == 1) | (kind == 4), pointed, rounded)
        return coverage(level) * (kind != 3)

    def _collar(self, window: Window, angle: Tensor, v: Tensor, top: Tensor, shade: Tensor) -> None:
        look, kind = self.look, self.at["collar"]
        kinds = set(self.identity["collar"].int().tolist())
        if 3 in kinds:
            radius = self.joints["head_radius"]
            up = self.joints["head"] - self.joints["neck"]
            neck = self.joints["neck"] - torch.stack(
                [torch.zeros_like(radius), 0.01 * self.joints["scale"]], -1
            )
            distance, _, across = capsule(
                window.x, window.y, neck, neck + up * 0.34, radius * 0.50, radius * 0.45
            )
            polo = (0.5 - distance / window.pixel).clamp(0, 1) * (kind == 3) * self.at["top_here"]
            window.paint(polo, look["top"] * 0.92, limb_shade(across, neck, neck + up, self.light))
        if 4 in kinds:
            # A shirt has two flaps and a row of buttons on a placket.
            shirt = (kind == 4).float() * top
            flap = (angle.abs() - 0.22 - 0.6 * v).abs() - 0.10
            flap = coverage(torch.maximum(flap, torch.maximum(v - 0.15, -0.12 - v)))
            window.paint(flap * shirt, (look["top"] * 1.08).clamp(max=1), shade * 0.95)
            window.darken(bump(angle / 0.02) * shirt * 0.25)
            row = (v * 7) % 1 - 0.5
            button = (((angle - 0.045) / 0.03) ** 2 + (row / 0.13) ** 2 + 1e-6).sqrt() - 1
            window.paint(coverage(button) * (v > 0.1) * shirt, look["top_second"])

    def pattern(self, angle: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        """The top's colour (n 3 h w), or (n 3 1 1) where all are plain.

        Args:
            angle, v: (n h w) places round and along the trunk or a sleeve.
            noise: (n h w), for marbled cloth.
        """
        first, second = self.look["top"][:, :, None, None], self.look["top_second"][:, :, None, None]
        kinds = set(self.identity["pattern"].int().tolist()) - {0}
        if not kinds:
            return first
        k, kind, turned = self.at["pattern_size"], self.at["pattern"], self.at["pattern_turn"] > 0
        a, b = torch.where(turned, v * 1.6, angle), torch.where(turned, angle, v * 1.6)

        def sharp(x: Tensor) -> Tensor:
            return (x * 6 + 0.5).clamp(0, 1)

        def drawn(index: int) -> Tensor:
            if index == 1:
                return sharp((b * k * 2.4).sin())
            if index == 2:
                return sharp((a * k * 3).sin() - 0.8)
            if index == 3:
                return 0.5 * (sharp((a * k * 1.5).sin()) + sharp((b * k * 1.5).sin()))
            if index == 4:
                return sharp((a * k * 1.6).sin() * (b * k * 1.6).sin() - 0.5)
            if index == 5:
                return sharp(noise * 0.8 - 0.2)
            petals = (torch.atan2(v - 0.40, angle * 0.5) * (k / 2).floor()).sin()
            return sharp(0.30 + 0.06 * petals - ((angle * 0.7) ** 2 + ((v - 0.40) * 1.7) ** 2 + 1e-6).sqrt())

        amount = torch.zeros_like(v)
        for index in sorted(kinds):
            amount = torch.where(kind == index, drawn(index), amount)
        return first + (second - first) * amount[:, None]

    def _coat(
        self,
        window: Window,
        u: Tensor,
        heights: Tensor,
        half: Tensor,
        length: Tensor,
        angle: Tensor,
        shade: Tensor,
    ) -> None:
        at = self.at
        v, upper = heights
        fall = per_pixel(self.joints["coat_fall"])
        t = ((v - 1) * length / fall.clamp(min=1e-3)).clamp(0, 1)
        swing = self._swung(t)
        swayed = u - swing
        edge = torch.maximum(half, self.hip) * 1.10 + fall * (0.16 + 0.4 * at["billow"]) * t
        # Its front opens as it swings.
        gap = at["coat_gap"] * (0.25 + 0.75 * smooth_ramp(v, 0.0, 0.4) + 0.4 * t) + 2.5 * swing.abs()
        level = torch.maximum(
            swayed.abs() - edge, torch.maximum(upper - 0.012 - v, v - 1 - fall / length) * length
        )
        alpha = coverage(level) * (1 - coverage((angle.abs() - gap) * half)) * at["coat"]
        window.paint(alpha, self.look["coat_colour"], shade)
        window.darken(bump((angle.abs() - gap - 0.05) / 0.06) * alpha * 0.25)
