"""The colour of everything on a modelled person, painted by place on the mean body, one row a pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.modelled.garments import trunk_place
from xdyna.data.synthetic.modelled.layers import ARM, HEAD, HEAD_UNIT, LAYERS, LEG, Layers, along
from xdyna.data.synthetic.shapes import bump, ramp, smooth_ramp

EYE = (0.0167, -0.9363)
"""Middle of the left eye, seen from ahead."""
MOUTH_Y, MOUTH_HALF = -0.8963, 0.0134


def mix(first: Tensor, second: Tensor, amount: Tensor) -> Tensor:
    """Colours (p 3) mixed by amounts (p,)."""
    return first + (second - first) * amount[:, None]


def texture_at(texture: Tensor, row: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Bilinear lookup in periodic textures (b t t): one value a pixel (p,), of the texture `row` (p,)."""
    side = texture.shape[-1]
    u, v = (u - u.floor()) * side, (v - v.floor()) * side
    x, y = u.floor().long() % side, v.floor().long() % side
    fx, fy = u - u.floor(), v - v.floor()
    flat, base = texture.flatten(), row * side * side
    right, under = (x + 1) % side, (y + 1) % side
    upper = flat[base + y * side + x] * (1 - fx) + flat[base + y * side + right] * fx
    lower = flat[base + under * side + x] * (1 - fx) + flat[base + under * side + right] * fx
    return upper * (1 - fy) + lower * fy


class Painter:
    """Colours and gloss of pixels.

    Args:
        layers: the mesh.
        identity: b people, on the device; modelled: of `shape.sample_modelled`.
        state: n rows of the motion's state.
        texture: (b t t) cloth.

    All results have one row a pixel: `colour` (p 3), `gloss` (p,), `relief` (p,) a factor on the light that
    falls on it, `fleshy` (p,) 1 where light goes under the surface.
    """

    def __init__(
        self, layers: Layers, identity: Params, modelled: Params, state: Params, texture: Tensor
    ) -> None:
        self.layers, self.identity, self.modelled, self.state = layers, identity, modelled, state
        self.texture = texture
        self.by_layer = {
            (0,): self._skin, (1,): self._top, (2,): self._bottom, (3,): self._shoe, (4, 5, 7): self._hair,
            (6,): self._skirt, (8,): self._teeth,
        }  # fmt: skip

    def paint(
        self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paint p pixels.

        Args:
            triangle: (p,) what is shown; canon: (p 3) where; person, frame: (p,) rows of identity and state.
        """
        layer = self.layers.layer[triangle]
        count = len(triangle)
        colour = torch.zeros(count, 3, device=canon.device)
        gloss, relief, fleshy = (
            torch.full((count,), value, device=canon.device) for value in (0.0, 1.0, 0.0)
        )
        for kinds, painter in self.by_layer.items():
            chosen = layer == kinds[0]
            for kind in kinds[1:]:
                chosen = chosen | (layer == kind)
            where = torch.nonzero(chosen)[:, 0]
            if not len(where):
                continue
            found = painter(triangle[where], canon[where], person[where], frame[where])
            for target, value in zip((colour, gloss, relief, fleshy), found, strict=True):
                target[where] = value
        return colour, gloss, relief, fleshy

    def _of(self, name: str, rows: Tensor) -> Tensor:
        return self.identity[name][rows]

    def _skin(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        body = self.layers.body
        part = body.part[triangle]
        x, y, z = canon.unbind(1)
        aside = x.abs()
        of = self._of
        skin = of("skin", person)
        speck = texture_at(self.texture, person, x * 9 + 0.3, y * 9 + z * 5)
        fine = texture_at(self.texture, person, x * 31, y * 31 + z * 17)
        colour = skin * (1 + 0.022 * speck + 0.014 * fine)[:, None]
        warm = skin * torch.tensor([1.04, 0.76, 0.70], device=skin.device)
        head = (part == 1) & (z > 0.02)
        cheek = (
            bump((aside - 0.0235) / 0.012) * bump((y + 0.9135) / 0.011) * (0.25 + 0.9 * of("blush", person))
        )
        nose = bump(aside / 0.009) * bump((y + 0.914) / 0.009) * 0.35
        ears = (part == 1) * ramp(aside, 0.042, 0.047) * 0.35
        colour = mix(colour, warm, ((cheek + nose) * head + ears).clamp(max=0.85))
        knuckles = ((part == 2) | (part == 7)).float() * 0.22
        colour = mix(colour, warm, knuckles)
        # Hollows round the eyes, lids, lashes.
        lid = aside - EYE[0]
        hollow = bump(lid / 0.013) * bump((y + 0.9365) / 0.009) * head
        colour = mix(colour, warm * 0.86, 0.30 * hollow)
        shade_lid = bump(lid / 0.011) * smooth_ramp(y, -0.9325, -0.9395) * bump((y + 0.9405) / 0.005) * head
        colour = mix(colour, of("shadow_colour", person), (of("eye_shadow", person) * shade_lid).clamp(max=1))
        bow = (1 - (lid / 0.0088) ** 2).clamp(min=0)
        upper = -0.9346 - 0.0046 * bow - 0.06 * lid.clamp(min=0)
        lower = -0.9346 + 0.0022 * bow - 0.06 * lid.clamp(min=0)
        thick = 0.0007 + 0.0007 * of("lashes", person)
        rim = bump((y - upper + 0.3 * thick) / thick) * (bow > 0) * head
        dark = torch.tensor([0.10, 0.07, 0.06], device=skin.device)
        colour = mix(
            colour, dark.expand_as(colour), (rim * (0.35 + 0.5 * of("lashes", person))).clamp(max=0.92)
        )
        colour = mix(colour, warm * 0.72, 0.5 * bump((y - lower) / 0.0008) * (bow > 0) * head)
        # Brows: short hairs along a bow.
        hair = of("hair", person)
        grey_brow = mix(hair * 0.62, dark.expand_as(hair), torch.full_like(x, 0.25))
        place = (aside - 0.0200) / 0.0125
        arch = of("brow_arch", person) * HEAD_UNIT
        line = -0.9452 - (0.0012 + 0.6 * arch) * (1 - (place - 0.25) ** 2) + 0.0028 * place.clamp(min=0) ** 2
        half = HEAD_UNIT * (0.35 * of("brow_thick", person) + 0.010) * (1.15 - 0.55 * ramp(place, -0.2, 1.0))
        brow = bump((y - line) / (half * 1.6)) * ramp(place, -1.12, -0.85) * ramp(place, 1.10, 0.6) * head
        hairs = 0.75 + 0.25 * (x * 5200 + y * 2600 * x.sign()).sin()
        colour = mix(colour, grey_brow, (1.25 * brow * hairs).clamp(max=0.9))
        # Lips.
        across = x / MOUTH_HALF
        arc = (1 - across * across).clamp(min=0)
        plump = 0.75 + 5 * of("lip_thick", person)
        top = MOUTH_Y - 0.0046 * plump * arc.sqrt() * (1 - 0.22 * bump(across / 0.16))
        low = MOUTH_Y + 0.0062 * plump * arc
        inside = torch.minimum(y - top, low - y)
        lip = ramp(inside, -0.0004, 0.0010) * (arc > 0) * (z > 0.070) * ((part == 1) | (part == 5))
        tone = of("lip", person)
        colour = mix(
            colour, tone * (1 - 0.08 * ramp(y, MOUTH_Y + 0.001, MOUTH_Y - 0.002))[:, None], 0.82 * lip
        )
        # Beards and stubble.
        beard = self._beard(x, y, z, person) * ((part == 1) | (part == 0)) * (1 - lip)
        dense = texture_at(self.texture, person, x * 83, y * 83 + z * 47)
        grain = 0.80 + 0.20 * dense.clamp(-1, 1)
        colour = mix(colour, hair * 0.75 + 0.03, (beard * grain).clamp(max=0.93))
        # The scalp under hair or after the razor.
        scalp = ramp(y, -0.968, -0.985) * (part == 1)
        bald = 1 - of("hair_here", person)
        colour = mix(colour, hair * 0.9, scalp * (1 - bald) * 0.8 + 0.10 * scalp * bald)
        colour = self._glasses(colour, aside, y, z, person, part)
        # Socks.
        leg = along(canon, LEG)
        sock = (of("sock", person) > 0) * ((part == 7) | ((part == 0) & (y > -0.3))) * ramp(leg, 0, 0.02)
        sock = sock * ((leg > 2 - of("sock", person)) | (part == 7))
        colour = mix(colour, of("sock_colour", person), sock.float())
        fleshy = 1 - torch.maximum(sock.float(), 0.6 * beard)
        gloss = self.modelled["gloss"][person] * (1 + 0.8 * (head & (aside < 0.012))) + 0.16 * lip
        gloss = gloss * (1 - sock.float())
        # Eyes, and what is in the mouth.
        eye, wet = self._eye(x, y, person, frame)
        own = part == 3
        eye = self._glasses(eye, aside, y, z, person, part)
        colour = torch.where(own[:, None], eye, colour)
        gloss = torch.where(own, 0.0 * gloss, gloss)
        rim_of_eye = part == 4
        colour = torch.where(rim_of_eye[:, None], warm * 0.62, colour)
        deep = smooth_ramp(z, 0.080, 0.050)
        gum = torch.tensor([0.50, 0.17, 0.16], device=skin.device) * (1 - 0.8 * deep)[:, None]
        colour = torch.where(((part == 5) & (lip < 0.5))[:, None], gum, colour)
        tongue = torch.tensor([0.72, 0.33, 0.33], device=skin.device) * (1 - 0.55 * deep)[:, None]
        colour = torch.where((part == 6)[:, None], tongue, colour)
        relief = torch.where(own, wet, torch.ones_like(x))
        return colour, gloss, relief, torch.where(own, 0.0, fleshy)

    def _glasses(
        self, colour: Tensor, aside: Tensor, y: Tensor, z: Tensor, person: Tensor, part: Tensor
    ) -> Tensor:
        """Rims, a bridge and temples, drawn on the skin they lie on."""
        of = self._of
        here = of("glasses", person) * ((part == 1) | (part == 3) | (part == 4))
        radius = HEAD_UNIT * (0.75 * of("glasses_size", person) + 0.03)
        dx, dy = (aside - 0.0178) / 1.12, (y + 0.9345) / 0.92
        rim = bump(((dx**4 + dy**4 + 1e-16) ** 0.25 - radius) / 0.0011) * (z > 0.045)
        bridge = bump((y + 0.9385) / 0.0010) * (aside < 0.0178 - radius) * (z > 0.06)
        temple = bump((y + 0.9395) / 0.0011) * (aside > 0.0178 + radius) * (z > 0.018)
        drawn = torch.maximum(rim, torch.maximum(bridge, temple)) * here
        return mix(colour, of("glasses_colour", person), 0.9 * drawn)

    def _beard(self, x: Tensor, y: Tensor, z: Tensor, person: Tensor) -> Tensor:
        aside = x.abs()
        jaw = smooth_ramp(y + 0.925 - 0.55 * (0.040 - aside).clamp(min=0), 0.0, 0.008)
        jaw = jaw * smooth_ramp(z, 0.020, 0.034) * smooth_ramp(y, -0.856, -0.868)
        moustache = bump((y + 0.9035) / 0.0045) * smooth_ramp(aside, 0.017, 0.011) * (z > 0.07)
        round_mouth = smooth_ramp(aside, 0.020, 0.014) * smooth_ramp(y, -0.908, -0.902)
        free = (1 - bump(aside / 0.009) * bump((y + 0.885) / 0.0022)) * smooth_ramp(
            z + 6 * (y + 0.9), 0.0, 0.01
        )
        amount = torch.maximum(jaw * (0.4 + 0.6 * free) * (1 - round_mouth * (y < -0.899)), 0 * jaw)
        return torch.maximum(amount * self._of("beard", person), moustache * self._of("moustache", person))

    def _eye(self, x: Tensor, y: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Colour of the eyeball, and what the lid's shadow and the light's image make of its brightness."""
        state, of = self.state, self._of
        spot_x = x.sign() * EYE[0] + 0.0030 * state["gaze_x"][frame]
        spot_y = EYE[1] + 0.0021 * state["gaze_y"][frame]
        dx, dy = x - spot_x, y - spot_y
        radius = (dx * dx + dy * dy).sqrt()
        size = 0.00375 * (0.75 + 0.25 * of("iris_radius", person) / 0.088)
        r = radius / size
        iris = of("iris", person)
        rays = 1 + 0.14 * (torch.atan2(dy, dx) * 17).sin() * ramp(r, 0.3, 0.7)
        inner = iris * (rays * (0.75 + 0.6 * bump((r - 0.6) / 0.3)))[:, None]
        inner = inner * (1 - 0.6 * ramp(r, 0.78, 1.0))[:, None]
        inner = inner * ramp(r, 0.36, 0.46)[:, None]
        white, pink = (
            torch.tensor(tone, device=x.device).expand(len(x), 3)
            for tone in ((0.93, 0.91, 0.89), (0.80, 0.55, 0.50))
        )
        corner = (x.abs() - EYE[0]).abs() / 0.0085
        white = mix(white, pink, 0.5 * ramp(corner, 0.7, 1.1))
        colour = mix(white, inner, ramp(r, 1.07, 0.95))
        shine = ramp(((dx + 0.0012) ** 2 + (dy + 0.0013) ** 2).sqrt(), 0.0011, 0.0006)
        colour = mix(colour, torch.ones_like(colour), 0.9 * shine)
        shadow = 0.62 + 0.38 * smooth_ramp(y, -0.9405, -0.9350)
        return colour, shadow

    def _cloth(self, triangle: Tensor, canon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places round and along trunk or limb, and how far down the limb (0 on the trunk)."""
        angle, height = trunk_place(canon)
        limb = self.layers.limb[triangle]
        arm = along(canon, ARM)
        axis_x = 0.0974 + 0.0872 * arm.clamp(0, 2)
        # Across a sleeve, without an angle: angles would meet in a star on the shoulder.
        turn = (canon[:, 0].abs() - axis_x + 0.5 * (canon[:, 1] + 0.802 - 0.1 * arm)) / 0.030
        return (
            torch.where(limb, turn, angle),
            torch.where(limb, arm * 0.55, height),
            torch.where(limb, arm, 0 * arm),
        )

    def _top(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        of = self._of
        angle, height, arm = self._cloth(triangle, canon)
        noise = texture_at(self.texture, person, angle * 0.18, height * 0.35)
        weave = texture_at(self.texture, person, angle * 1.9, height * 3.1)
        colour = self.pattern(angle, height, noise, person)
        coat = of("coat", person)
        trunk = arm == 0
        gap = of("coat_gap", person) * (0.35 + 0.75 * smooth_ramp(height, 0.0, 0.5))
        outer = torch.where(trunk, (angle.abs() > gap).float(), torch.ones_like(gap)) * coat
        colour = mix(colour, of("coat_colour", person), outer)
        relief = 1 + 0.045 * noise + 0.02 * weave
        elbow = bump((arm - 1) / 0.28) * 0.10 * (arm * 34 + angle * 2).sin()
        waist = (
            bump((height - 0.72) / 0.3)
            * trunk
            * 0.05
            * (height * 26 + 3 * (angle * 1.5).sin() + 2 * noise).sin()
        )
        relief = relief + elbow + waist
        relief = relief * (1 - 0.32 * coat * trunk * bump((angle.abs() - gap) / 0.035))
        # Seams at the shoulders, a collar, buttons.
        shirt = (of("collar", person) == 4) * trunk * (1 - coat)
        placket = bump(angle / 0.016) * shirt * (height > 0.2)
        relief = relief * (1 - 0.22 * placket)
        row = (height * 6.5) % 1 - 0.5
        button = (
            (((angle - 0.03) / 0.026) ** 2 + (row / 0.12) ** 2 < 1)
            & (height > 0.24)
            & (shirt > 0)
            & (canon[:, 2] > 0)
        )
        colour = mix(colour, of("top_second", person), button.float() * 0.8)
        flap = ramp(height, 0.12, 0.10) * (angle.abs() < 1.9) * shirt
        colour = mix(colour, (of("top", person) * 1.1).clamp(max=1), flap)
        return colour, 0 * angle + 0.01, relief, 0 * angle

    def _bottom(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        x, y, z = canon.unbind(1)
        noise = texture_at(self.texture, person, x * 3.0 + z * 2, y * 2.5)
        leg = along(canon, LEG)
        knee = 0.07 * bump((leg - 1) / 0.25) * (leg * 40 + x * 60).sin()
        ankle = 0.06 * bump((leg - 1.9) / 0.2) * (leg * 55 + z * 40).sin()
        crotch = bump((y + 0.50) / 0.05) * 0.06 * (x.abs() * 260 + y * 150).sin()
        relief = 1 + 0.045 * noise + knee + ankle + crotch
        return self._of("bottom", person).clone(), 0 * x + 0.01, relief, 0 * x

    def _shoe(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        colour = self._of("shoe", person)
        sole = ramp(canon[:, 1], -0.012, -0.009)
        lace = (
            bump((canon[:, 2] - 0.045) / 0.022) * (((canon[:, 2]) * 700).sin() > 0.2) * (canon[:, 1] < -0.024)
        )
        colour = mix(colour, colour * 0.45 + 0.05, sole)
        colour = mix(colour, colour * 0.5 + 0.4, 0.6 * lace * bump((canon[:, 0].abs() - 0.118) / 0.010))
        return colour, 0 * sole + 0.10, torch.ones_like(sole), 0 * sole

    def _hair(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        of = self._of
        cap = self.layers.layer[triangle] == LAYERS.index("cap")
        angle = torch.where(cap, torch.atan2(canon[:, 0], canon[:, 2] - HEAD[2]), canon[:, 0] * 2.6)
        down = torch.where(cap, (canon[:, 1] + 1.0) / 0.11, 0.5 + canon[:, 1])
        k = of("strand", person)
        fine = texture_at(self.texture, person, angle * 0.9 * k * 0.25, down * 0.05)
        coarse = texture_at(self.texture, person, angle * 0.35, down * 0.10)
        short = of("stubble_only", person)
        relief = 1 + (0.20 * fine + 0.12 * coarse) * (1 - 0.6 * short)
        relief = relief * torch.where(cap, torch.ones_like(down), 1 - 0.10 * down)
        colour = of("hair", person) * (1 + 0.05 * coarse)[:, None]
        curly = of("cut", person) == 11
        puff = texture_at(self.texture, person, angle * 1.3, down * 1.3)
        relief = torch.where(curly, 1 + 0.25 * puff, relief)
        gloss = of("hair_gloss", person) * (1 - short) * (~curly) * (0.65 + 0.35 * fine.clamp(-1, 1))
        return colour, 0.5 * gloss, relief, 0 * gloss

    def _skirt(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        of = self._of
        angle, down = canon[:, 0] * math.pi, canon[:, 1]
        height = 0.62 + 0.9 * down
        noise = texture_at(self.texture, person, angle * 0.18, height * 0.35)
        printed = self.pattern(angle, height, noise, person)
        colour = torch.where(of("dress", person)[:, None] > 0, printed, of("bottom", person))
        fold = (angle * of("pleats", person).round()).sin() * down
        hem = bump((down - 0.985) / 0.012)
        return colour, 0 * down + 0.01, (1 + 0.03 * noise + 0.10 * fold) * (1 - 0.15 * hem), 0 * down

    def _teeth(self, triangle: Tensor, canon: Tensor, person: Tensor, frame: Tensor) -> tuple[Tensor, ...]:
        x, down = canon[:, 0], canon[:, 1]
        tone = torch.tensor([0.93, 0.90, 0.84], device=x.device)
        gap = bump(((x * 4.5) % 1 - 0.5).abs() * 2 / 0.22 - 4.2)
        relief = (1 - 0.16 * gap) * (1 - 0.55 * x * x) * (0.80 + 0.20 * ramp(down, 0.0, 0.5))
        return tone.expand(len(x), 3), 0 * x + 0.12, relief, 0 * x

    def pattern(self, angle: Tensor, v: Tensor, noise: Tensor, person: Tensor) -> Tensor:
        """A top's colour (p 3): the drawn people's patterns."""
        of = self._of
        first, second = of("top", person), of("top_second", person)
        k, kind, turned = of("pattern_size", person), of("pattern", person), of("pattern_turn", person) > 0
        a, b = torch.where(turned, v * 1.6, angle), torch.where(turned, angle, v * 1.6)

        def sharp(x: Tensor) -> Tensor:
            return (x * 5 + 0.5).clamp(0, 1)

        petals = (torch.atan2(v - 0.40, angle * 0.5) * (k / 2).floor()).sin()
        away = ((angle * 0.7) ** 2 + ((v - 0.40) * 1.7) ** 2 + 1e-6).sqrt()
        drawn = (
            torch.zeros_like(v), sharp((b * k * 2.4).sin()), sharp((a * k * 3).sin() - 0.8),
            0.5 * (sharp((a * k * 1.5).sin()) + sharp((b * k * 1.5).sin())),
            sharp((a * k * 1.6).sin() * (b * k * 1.6).sin() - 0.5), sharp(noise * 0.8 - 0.2),
            sharp(0.30 + 0.06 * petals - away),
        )  # fmt: skip
        amount = torch.zeros_like(v)
        for index, value in enumerate(drawn):
            amount = torch.where(kind == index, value, amount)
        return mix(first, second, amount)
