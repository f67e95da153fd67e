"""Painting a head: skin, ears, eyes, brows, nose, mouth, beard, glasses (hair is in `hair`).

Every feature has a window of its own, just large enough, since most of a head is plain skin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.head import HeadShape, Surface, brow_line, eye_lids, mouth_lines
from xdyna.data.synthetic.shapes import (
    Canvas,
    Window,
    bounds,
    bump,
    coverage,
    lit,
    per_pixel,
    ramp,
    sample_texture,
    smooth_ramp,
)


class FacePainter:
    """Paints the heads of one chunk, without hair.

    Args:
        canvas: what is painted on.
        shape: the heads, on the CPU.
        points: (n 68 2) their landmarks in frame heights, on the CPU: windows are laid out from them.
        look: identity, state and `painted_values`, one row a frame, on the canvas's device.
        light: (n 5), see `limb_shade`.
        texture: (b c t t), one a clip: unevenness of skin and hair.
        covers: whether the head belongs to the person's mask.
    """

    def __init__(
        self, canvas: Canvas, shape: HeadShape, points: Tensor, look: Params, light: Tensor, texture: Tensor,
        *, covers: bool = True,
    ) -> None:  # fmt: skip
        self.canvas, self.shape, self.points, self.covers = canvas, shape, points, covers
        self.look, self.light, self.texture = look, light, texture
        self.at = {name: per_pixel(value) for name, value in look.items() if value.dim() == 1}
        self.skin = look["skin"]

    def paint(self) -> None:
        """Everything, from the ears to the glasses."""
        self._skull()
        self._eyes()
        self._middle()
        self._glasses()

    def _open(self, points: list[Tensor], margin: float) -> tuple[Window, Surface, Tensor, Tensor]:
        """A window round some points (margin in head units), its surface, the light, and where the face is seen."""
        window = self.canvas.window(bounds(points, margin * self.shape.unit))
        surface = self.shape.surface(window.x, window.y)
        front = ramp(surface.angle.cos(), 0.0, 0.12) * ramp(surface.across.abs(), 1.0, 0.97)
        return window, surface, self._shade(surface), front

    def _shade(self, surface: Surface) -> Tensor:
        across = surface.across.clamp(-1, 1)
        facing = (
            across * per_pixel(self.light[:, 0])
            + surface.v * 0.75 * per_pixel(self.light[:, 1])
            + torch.sqrt(1 - across * across) * per_pixel(self.light[:, 2])
        )
        return lit(facing, self.light)

    def _skull(self) -> None:
        """Ears, skin, age and beard."""
        window = self.canvas.window(bounds([self.shape.centre], 1.22 * self.shape.unit))
        surface = self.shape.surface(window.x, window.y)
        shade = self._shade(surface)
        noise = surface_noise(self.texture, surface, scale=2.0)
        for sign in (-1, 1):
            self._ear(window, surface, sign, shade, near=False)
        inside = coverage(surface.outside)
        window.paint(inside, self._skin_colour(surface, noise), shade, covers=self.covers)
        for sign in (-1, 1):
            self._ear(window, surface, sign, shade, near=True)
        self._age(window, surface, inside)
        if wears(self.shape, "beard") or wears(self.shape, "moustache"):
            self._beard(window, surface, inside, shade, noise)
        window.close()

    def _skin_colour(self, surface: Surface, noise: Tensor) -> Tensor:
        """Skin with blush, freckles and a little unevenness (n 3 h w)."""
        at, skin = self.at, self.skin[:, :, None, None]
        cheek = bump((surface.lateral.abs() - 0.42) / 0.24) * bump((surface.height - 0.32) / 0.2)
        cheek = cheek + 0.6 * bump(surface.lateral / 0.15) * bump((surface.height - at["nose_y"]) / 0.15)
        amount = cheek * at["blush"] * (0.3 + per_pixel(self.skin.mean(1)))
        tint = self.skin.new_tensor([0.06, -0.16, -0.12])[:, None, None]
        spots = ramp(noise, 1.1, 1.8) * at["freckles"] * cheek * 0.5
        return (skin + tint * amount[:, None]) * (1 + 0.016 * noise - spots)[:, None]

    def _ear(self, window: Window, surface: Surface, sign: int, shade: Tensor, *, near: bool) -> None:
        """The far ear goes behind the head, the near one before it."""
        at, side = self.at, "left" if sign > 0 else "right"
        towards = at["sin_yaw"] * sign
        here = ((towards < -0.08) if near else (towards >= -0.08)).float()
        # The near ear is seen broader.
        du = (surface.u - at[f"{side}_ear_u"]) / (0.12 * at["ear"] * (1 + 0.6 * towards.abs()))
        dv = (surface.v - at[f"{side}_ear_v"]) / (0.20 * at["ear"])
        level = (du * du + dv * dv + 1e-6).sqrt()
        inner = 1 - 0.30 * ramp(level, 0.75, 0.35) * ramp(dv, 0.9, 0.2)
        colour = self.skin * self.skin.new_tensor([0.97, 0.88, 0.86])
        window.paint(coverage(level - 1) * here, colour, shade.clamp(min=0.6) * inner, covers=self.covers)
        if wears(self.shape, "earrings"):
            du, dv = surface.u - at[f"{side}_ear_u"], surface.v - at[f"{side}_ear_v"] - 0.24
            ring = coverage((du * du + dv * dv + 1e-6).sqrt() - 0.05)
            window.paint(ring * here * at["earrings"], self.look["shadow_colour"] + 0.3, covers=self.covers)

    def _age(self, window: Window, surface: Surface, inside: Tensor) -> None:
        """Folds that deepen with age and with the smile."""
        at, height, side = self.at, surface.height, surface.lateral.abs()
        # From the nose's wing to outside the mouth's corner.
        t = ramp(height, at["nose_y"] + 0.02, at["mouth_y"] + 0.06)
        line = at["nose_width"] + 0.04 + (at["mouth_half"] + 0.03 - at["nose_width"]) * t
        fold = bump((side - line) / 0.026) * (t * (1 - t) * 4)
        amount = fold * (0.04 + 0.17 * at["smile"].clamp(min=0) + 0.18 * at["age"])
        bags = bump((height - at["eye_y"] - 0.17) / 0.035) * bump((side - at["eye_x"]) / 0.17)
        wave = ((height + 0.6) * 52 + 1.5 * side).sin().clamp(min=0)
        above = ramp(height, at["brow_line"] - 0.06, at["brow_line"] - 0.14)
        wave = wave * ramp(height, -0.68, -0.6) * above * ramp(side, 0.5, 0.2)
        amount = amount + 0.16 * at["age"] * bags + wave * (0.10 * at["age"] + 0.05 * at["brow"].clamp(min=0))
        window.darken((amount * inside).clamp(0, 0.5))

    def _beard(self, window: Window, surface: Surface, inside: Tensor, shade: Tensor, noise: Tensor) -> None:
        at, height, side = self.at, surface.height, surface.lateral.abs()
        jaw = ramp(height - (0.30 + 0.30 * (1 - (side / 0.6).clamp(max=1))), 0.0, 0.14)
        mouth_top = at["mouth_y"] - 0.05
        tuft = ramp(height, at["nose_y"] + 0.08, at["nose_y"] + 0.13)
        tuft = tuft * ramp(height, mouth_top + 0.10, mouth_top + 0.04)
        tuft = tuft * ramp(side, at["mouth_half"] * 1.25, at["mouth_half"] * 0.95)
        up = (height - at["lip_middle"]) / at["lip_reach"]
        ring = ((side / (at["mouth_half"] * 1.06)) ** 2 + up * up + 1e-6).sqrt() - 1
        free = ramp(ring, 0.0, 0.25)
        alpha = torch.maximum(jaw * at["beard"], tuft * at["moustache"]) * free * inside
        alpha = alpha * (0.86 + 0.14 * noise).clamp(0, 1)
        window.paint(alpha, self.look["hair"] * 0.85, shade * (1 + 0.10 * noise), covers=False)

    def _eyes(self) -> None:
        for sign, eye, brow in ((-1, slice(36, 42), slice(17, 22)), (1, slice(42, 48), slice(22, 27))):
            window, surface, shade, front = self._open([self.points[:, eye], self.points[:, brow]], 0.20)
            self._eye(window, surface, sign, front, shade)
            self._brow(window, surface, sign, front)
            window.close()

    def _eye(self, window: Window, surface: Surface, sign: int, front: Tensor, shade: Tensor) -> None:
        at, look, height = self.at, self.look, surface.height
        across = sign * surface.lateral - at["eye_x"]  # positive outwards
        place = across / at["eye_width"]
        upper, lower = eye_lids(
            place.clamp(-1.3, 1.3), at["eye_y"], at["eye_height"], at["eye_slant"], at["lid"]
        )
        beyond = (place.abs() - 1) * at["eye_width"]

        # The socket: shade under the brow, and what make-up is on the lid.
        rise = (height - (at["eye_y"] - 0.9 * at["eye_height"])) / (1.1 * at["eye_height"])
        socket = bump(place * place / 1.4) * bump(rise) * front
        window.darken(socket * 0.15)
        if wears(self.shape, "eye_shadow"):
            window.paint(socket * at["eye_shadow"], look["shadow_colour"], shade, covers=False)

        opening = torch.maximum(torch.maximum(upper - height, height - lower), beyond)
        is_open = coverage(opening) * front * ramp(at["lid"], 0.02, 0.10)
        under_lid = 1 - 0.36 * ramp(height - upper, 0.07, 0.0)
        white = look["skin"].new_tensor([[0.96, 0.95, 0.94]]).expand(len(height), 3)
        window.paint(
            is_open, white, shade.clamp(0.75, 1.05) * under_lid * (1 - 0.1 * place * place), covers=False
        )
        # The iris: darker rim, lighter below, pupil, and a highlight that stays with the light.
        du = across - sign * at["gaze_x"] * 0.55 * at["eye_width"]
        dv = height - at["eye_y"] + 0.20 * at["eye_height"] - at["gaze_y"] * 0.42 * at["eye_height"]
        from_middle = (du * du + dv * dv + 1e-8).sqrt() / at["iris_radius"]
        lower_half = dv / at["iris_radius"] * ramp(from_middle, 0.2, 0.8)
        rim = 1.1 - 0.65 * smooth_ramp(from_middle, 0.62, 1.0) + 0.35 * lower_half
        iris = coverage(from_middle - 1) * is_open
        window.paint(iris, look["iris"], rim * under_lid, covers=False)
        window.paint(coverage(from_middle - 0.45) * is_open, look["iris"] * 0.10, covers=False)
        gu, gv = du * sign + 0.35 * at["iris_radius"], dv + 0.38 * at["iris_radius"]
        glint = (gu * gu + gv * gv + 1e-8).sqrt() - 0.26 * at["iris_radius"]
        window.paint(coverage(glint) * iris * 0.9, torch.ones_like(white), covers=False)
        # Lashes: a line on the upper lid's edge, thicker outwards; the crease above; a faint lower line.
        inside = ramp(place.abs(), 1.06, 0.98) * front
        thick = 0.010 + 0.020 * at["lashes"] * (0.6 + 0.4 * place)
        line = coverage((height - upper).abs() - thick) * inside
        window.paint(line * (0.55 + 0.4 * at["lashes"]).clamp(max=1), look["hair"] * 0.25, covers=False)
        crease = bump((height - upper + 0.055 + 0.02 * at["lid"]) / 0.016) * ramp(place.abs(), 1.0, 0.7)
        below = bump((height - lower) / 0.012) * inside
        window.darken(crease * 0.25 * at["lid"] * front + below * 0.22)

    def _brow(self, window: Window, surface: Surface, sign: int, front: Tensor) -> None:
        at, look = self.at, self.look
        reach = 1.28 * at["eye_width"]
        place = (sign * surface.lateral - at["eye_x"]) / reach
        line = brow_line(place.clamp(-1.2, 1.2), at["brow_line"], at["brow_arch"], at["brow_tilt"])
        thick = at["brow_thick"] * (0.85 - 0.35 * place) * ramp(place.abs(), 1.08, 0.8) + 1e-3
        level = torch.maximum((surface.height - line).abs() - thick, (place.abs() - 1.05) * reach)
        hairs = 0.9 - 0.12 * ((place * 23 + surface.height * 31).sin())
        hairy = look["hair_here"][:, None]
        colour = look["hair"] * 0.62 * hairy + look["skin"] * 0.42 * (1 - hairy)
        window.paint(coverage(level, soft=1.6) * front * hairs, colour, covers=False)

    def _middle(self) -> None:
        """Nose and mouth."""
        window, surface, shade, front = self._open([self.points[:, 27:36], self.points[:, 48:68]], 0.16)
        self._nose(window, surface, front)
        self._mouth(window, surface, front, shade)
        window.close()

    def _nose(self, window: Window, surface: Surface, front: Tensor) -> None:
        """The nose stands out of the face, so it is painted in the picture's plane between projected points."""
        at, skin, u, v = self.at, self.skin, surface.u, surface.v
        top_v, tip_u, tip_v, wide = at["nose_top_v"], at["nose_tip_u"], at["nose_tip_v"], at["nose_width"]
        t = ramp(v, top_v, tip_v)
        middle = at["nose_top_u"] + (tip_u - at["nose_top_u"]) * t
        side = (u - middle) / (wide * (0.34 + 0.5 * t * t))
        along = smooth_ramp(v, top_v - 0.05, top_v + 0.15) * ramp(v, tip_v + 0.10, tip_v + 0.02) * front
        # One flank is away from the light, or from the viewer: it is dark; the ridge catches the light.
        away = torch.where(
            at["sin_yaw"].abs() > 0.2, at["sin_yaw"].sign(), -per_pixel(self.light[:, 0]).sign()
        )
        flank = bump((side * away - 0.95) / 0.55) * along
        window.darken(flank * (0.14 + 0.12 * t))
        ridge = bump(side / 0.42) * along
        tip = bump((u - tip_u) / 0.085) * bump((v - tip_v + 0.02) / 0.075) * front
        window.paint(0.10 * ridge + 0.16 * tip, (skin * 1.15 + 0.08).clamp(max=1), covers=False)
        # Underside, wings and nostrils.
        dv = v - tip_v - 0.055
        under = bump((dv - 0.015) / 0.042) * ramp((u - tip_u).abs(), wide * 1.12, wide * 0.6) * front
        window.darken(under * 0.26)
        for sign in (-1, 1):
            du = u - tip_u - sign * 0.48 * wide
            hole = ((du / 0.042) ** 2 + (dv / 0.022) ** 2 + 1e-8).sqrt() - 1
            window.paint(coverage(hole, soft=1.5) * front * 0.75, skin * 0.32, covers=False)
            wing = bump((u - tip_u - sign * 0.95 * wide) / 0.034) * bump((dv + 0.03) / 0.066)
            window.darken(wing * front * 0.25)

    def _mouth(self, window: Window, surface: Surface, front: Tensor, shade: Tensor) -> None:
        at, look, height = self.at, self.look, surface.height
        half = at["mouth_half"]
        place = surface.lateral / half
        upper_outer, upper_inner, lower_inner, lower_outer = mouth_lines(
            place.clamp(-1, 1), at["mouth_y"], at["smile"], at["mouth_open"], at["pucker"], at["lip_thick"]
        )
        beyond = (place.abs() - 1) * half
        lips = (
            coverage(torch.maximum(torch.maximum(upper_outer - height, height - lower_outer), beyond)) * front
        )
        # The upper lip faces down and is darker; the lower one has a highlight.
        into = (height - lower_inner) / (lower_outer - lower_inner).clamp(min=1e-3)
        gloss = 0.20 * bump((into - 0.4) / 0.36) * ramp(place.abs(), 0.7, 0.2)
        window.paint(
            lips, look["lip"], shade * (torch.where(height < upper_inner, 0.84, 1.0) + gloss), covers=False
        )
        gap = torch.maximum(torch.maximum(upper_inner - height, height - lower_inner), beyond + 0.02)
        opened = coverage(gap) * front
        window.paint(opened, look["lip"] * 0.18, covers=False)
        # Tongue, then both rows of teeth, only where the mouth is open.
        room = (lower_inner - upper_inner).clamp(min=1e-4)
        level = (height - upper_inner) / room
        tongue = coverage(((place / 0.62) ** 2 + ((level - 1.05) / 0.52) ** 2).sqrt() - 1) * opened
        red = look["lip"].new_tensor([[0.74, 0.34, 0.34]]).expand_as(look["lip"])
        window.paint(tongue * ramp(at["mouth_open"], 0.08, 0.22), red, 0.75 + 0.3 * level, covers=False)
        tooth = 1 - 0.10 * ((surface.lateral * 46).cos() > 0.93).float()
        grin = ramp(at["smile"], -0.1, 0.35)
        shown = coverage(height - upper_inner - 0.085 * (0.4 + 0.6 * grin)) * coverage(beyond + 0.03) * opened
        ivory = look["lip"].new_tensor([[0.95, 0.93, 0.89]]).expand_as(look["lip"])
        window.paint(shown * ramp(room, 0.012, 0.05), ivory, tooth * shade.clamp(0.7, 1), covers=False)
        shown = (
            coverage(lower_inner - 0.035 - height) * coverage(beyond + 0.07) * opened * ramp(room, 0.12, 0.22)
        )
        window.paint(shown * 0.8, ivory * 0.93, tooth, covers=False)
        shut = bump((height - upper_inner) / 0.017) * coverage(beyond - 0.02) * (1 - opened)
        below = bump((height - lower_outer - 0.05) / 0.036) * ramp(place.abs(), 0.8, 0.3)
        window.darken((shut * 0.55 * ramp(at["mouth_open"], 0.15, 0.02) + below * 0.16) * front)

    def _glasses(self) -> None:
        if not wears(self.shape, "glasses"):
            return
        window, surface, _, front = self._open([self.points[:, 36:48], self.points[:, [0, 16]]], 0.24)
        at, lateral, height = self.at, surface.lateral, surface.height
        size = at["glasses_size"]
        du, dv = (lateral.abs() - at["eye_x"] - 0.01) / size, (height - at["eye_y"] - 0.03) / (0.82 * size)
        ring = (du.square().square() + dv.square().square() + 1e-8).sqrt().sqrt() - 1
        rim = coverage((ring * size).abs() - 0.018)
        bridge = coverage(torch.maximum((height - at["eye_y"] + 0.04).abs() - 0.014, (du + 1) * size))
        arm = torch.maximum((height - at["eye_y"] + 0.05).abs() - 0.016, at["eye_x"] + size - lateral.abs())
        frame = torch.maximum(torch.maximum(rim, bridge), coverage(arm))
        window.paint(frame * front * at["glasses"], self.look["glasses_colour"], covers=False)
        shine = coverage(ring) * bump(((lateral + 0.7 * height) % 0.45 - 0.2) / 0.06)
        window.paint(shine * 0.12 * front * at["glasses"], torch.ones_like(self.skin), covers=False)
        window.close()


def wears(shape: HeadShape, name: str) -> bool:
    """Whether anybody of the chunk has the thing at all (what nobody has is not painted)."""
    return bool((shape.identity[name] > 0).any())


def surface_noise(texture: Tensor, surface: Surface, *, scale: float) -> Tensor:
    """A clip's texture on its head: it moves with the surface (n h w).

    Args:
        texture: (b c t t), one a clip; the first channel is read; n is a multiple of b.
    """
    u, v = surface.angle * 0.16 * scale, surface.height * 0.2 * scale
    batch = len(texture)
    found = sample_texture(texture[:, :1], u.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1)))
    return found.flatten(0, 2)
