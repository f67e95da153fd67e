"""Painting the limbs: legs, arms and hands, with what is worn on them."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import onto
from xdyna.data.synthetic.shapes import Window, bounds, capsule, limb_shade, lit, per_pixel, ramp, smooth_ramp
from xdyna.data.synthetic.skeleton import SIDES
from xdyna.data.synthetic.trunk import TrunkPainter

HAND_BONES = tuple(
    (0 if joint == 4 * finger + 1 else joint - 1, joint)
    for finger in range(5)
    for joint in range(4 * finger + 1, 4 * finger + 5)
)


class LimbPainter:
    """Paints the limbs of one chunk's people.

    Args:
        trunk: paints the same people's trunks; limbs share its values and its cloth.
    """

    def __init__(self, trunk: TrunkPainter) -> None:
        self.trunk, self.canvas, self.light = trunk, trunk.canvas, trunk.light
        self.look, self.joints, self.places = trunk.look, trunk.joints, trunk.places
        self.scale = self.joints["scale"]

    def _limb(
        self, window: Window, start: Tensor, end: Tensor, radii: tuple[Tensor, Tensor], colour: Tensor,
        *, here: Tensor | None = None, folds: float = 0.0, phase: float = 0.0,
    ) -> None:  # fmt: skip
        distance, along, across = capsule(window.x, window.y, start, end, *radii)
        shade = limb_shade(across, start, end, self.light)
        if folds:
            # Cloth begins with the light of what it comes from, so that joints do not show.
            flat = lit(per_pixel(0.85 * self.light[:, 2]), self.light)
            shade = flat + (shade - flat) * smooth_ramp(along, -0.2, 0.3)
            crease = (along * 17 + across * 3 + phase).sin() * (along * 7 + 2 * phase).sin()
            shade = shade * (1 + folds * crease)
        alpha = (0.5 - distance / window.pixel).clamp(0, 1)
        window.paint(alpha if here is None else alpha * per_pixel(here), colour, shade)

    def legs(self) -> None:
        """Both legs with trousers, socks and shoes."""
        look, joints, places, people = self.look, self.joints, self.places, self.trunk.identity
        for side in SIDES:
            names = [f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "toe")]
            box = bounds([places[n] for n in names], places["scale"] * 0.085)
            if not self.canvas.sees(box):
                continue
            window = self.canvas.window(box)
            hip, knee, ankle, toe = (joints[n] for n in names)
            radius, skin, shoe = look["leg_radius"] * self.scale, look["skin"], look["shoe"]
            cover, wide, sock = look["leg_cover"], look["trouser_width"], look["sock"]
            sole = torch.stack([torch.zeros_like(radius), radius * 0.33], -1)
            self._limb(window, ankle + sole, toe + sole, (radius * 0.50, radius * 0.48), shoe * 0.5)
            self._limb(window, ankle, toe, (radius * 0.60, radius * 0.54), shoe)
            if bool((people["leg_cover"] < 2).any()):
                self._limb(window, knee, ankle, (radius * 0.76, radius * 0.44), skin)
                self._limb(window, hip, knee, (radius * 1.15, radius * 0.80), skin)
            if self.trunk.wears("sock"):
                top, wider = ankle + (knee - ankle) * sock[:, None], radius * (0.46 + 0.30 * sock)
                self._limb(
                    window, top, ankle, (wider, radius * 0.47), look["sock_colour"], here=(sock > 0).float()
                )
            if bool((people["leg_cover"] > 1).any()):
                end = knee + (ankle - knee) * (cover - 1).clamp(0, 1)[:, None] * 0.96
                radii = (radius * 0.84 * wide, radius * (0.58 * wide * wide))
                self._limb(
                    window, knee, end, radii, look["bottom"], here=(cover > 1).float(), folds=0.07, phase=1.0
                )
            if bool((people["leg_cover"] > 0).any()):
                end = hip + (knee - hip) * cover.clamp(0, 1)[:, None]
                radii = (radius * 1.22, radius * 0.90 * wide)
                self._limb(window, hip, end, radii, look["bottom"], here=(cover > 0).float(), folds=0.05)
            window.close()

    def arm(self, side: str, here: Tensor) -> None:
        """One arm with its sleeve and hand.

        Args:
            side: "right" or "left".
            here: (n,) 1 where it is painted now (arms go behind the trunk or before it).
        """
        look, joints, places, people = self.look, self.joints, self.places, self.trunk.identity
        names = [f"{side}_{n}" for n in ("shoulder", "elbow", "wrist")]
        box = bounds([places[n] for n in names], places["scale"] * 0.055)
        bells = self.trunk.wears("bell")
        if bells:
            hanging = bounds([places[f"{side}_sleeve"]], places["scale"] * 0.075)
            hanging = torch.where((people["bell"] > 0)[:, None], hanging, box)
            box = torch.cat(
                [torch.minimum(box[:, :2], hanging[:, :2]), torch.maximum(box[:, 2:], hanging[:, 2:])], 1
            )
        if self.canvas.sees(box):
            window = self.canvas.window(box)
            shoulder, elbow, wrist = (joints[n] for n in names)
            radius, sleeve, wide = look["arm_radius"] * self.scale, look["sleeve"], look["sleeve_width"]
            self._limb(window, elbow, wrist, (radius * 0.92, radius * 0.62), look["skin"], here=here)
            self._upper_arm(window, side, shoulder, elbow, (radius * 1.06, radius * 0.92), here, bare=True)
            if bool((people["sleeve"] > 1).any()):
                end = elbow + (wrist - elbow) * (sleeve - 1).clamp(0, 1)[:, None] * 0.97
                colour = torch.where(look["coat"][:, None] > 0, look["coat_colour"], look["top"])
                radii = (radius * 0.98 * wide, radius * 0.78 * wide)
                if bells:
                    # A wide cuff hangs from the forearm, trails it and swings past.
                    cuff = joints[f"{side}_sleeve"] + torch.stack([0 * radius, radius * 1.2], -1)
                    start = elbow + (wrist - elbow) * 0.4
                    wider = (radius * 0.9, radius * (0.6 + look["bell"]))
                    shown = here * (look["bell"] > 0)
                    self._limb(window, start, cuff, wider, colour * 0.88, here=shown, folds=0.12, phase=1.0)
                self._limb(window, elbow, end, radii, colour, here=here * (sleeve > 1), folds=0.08, phase=2.0)
            if bool((people["sleeve"] > 0).any()):
                end = shoulder + (elbow - shoulder) * sleeve.clamp(0, 1)[:, None]
                first = radius * 1.10 * wide * (1 + 0.5 * look["puff"])
                radii = (first, radius * 1.02 * wide)
                self._upper_arm(window, side, shoulder, end, radii, here * (sleeve > 0), bare=False)
            window.close()
        box = bounds([places[f"{side}_hand"]], places["scale"] * 0.022)
        if self.canvas.sees(box):
            window = self.canvas.window(box)
            self._hand(window, joints[f"{side}_hand"], here)
            window.close()

    def scarf(self) -> None:
        """A scarf round the neck, whose loose end hangs, swings and flies."""
        if not self.trunk.wears("scarf"):
            return
        look, joints, places = self.look, self.joints, self.places
        chain, worn = places["scarf"], self.trunk.identity["scarf"] > 0
        box = bounds([places["neck"], places["head"], chain], places["scale"] * 0.05)
        box = torch.where(worn[:, None], box, bounds([places["neck"]], 0 * places["scale"]))
        if not self.canvas.sees(box):
            return
        window = self.canvas.window(box)
        points, unit, colour = joints["scarf"], joints["head_radius"], look["scarf_colour"]
        half = 0.30 * unit
        links = points.shape[1] - 1
        for i in range(links):
            start, end = points[:, i], points[:, i + 1]
            distance, along, across = capsule(
                window.x, window.y, start, end, half * 0.72, half * (0.78 + 0.1 * i / links)
            )
            down = along + i
            shade = limb_shade(0.8 * across, start, end, self.light) * (1 + 0.06 * (across * 9 + down).sin())
            band = (down * 4.4).sin().clamp(-0.25, 0.25) * 2 + 0.5
            fringe = ramp(down, links - 0.22, links - 0.18) * ((across * 14).sin() > 0.2)
            stripes = colour[:, :, None, None] * (
                1 - per_pixel(look["scarf_stripe"])[:, None] * 0.55 * band[:, None]
            )
            alpha = (0.5 - distance / window.pixel).clamp(0, 1) * (1 - fringe) * per_pixel(look["scarf"])
            window.paint(alpha, stripes, shade)
        # Two turns round the neck, the upper one narrower.
        for lift, wide in ((0.02, 0.62), (0.30, 0.54)):
            axis = joints["head"] - joints["neck"]
            middle = joints["neck"] + lift * axis
            side = torch.stack([-axis[:, 1], axis[:, 0]], -1) / axis.norm(dim=1, keepdim=True) * unit[:, None]
            start, end = middle + wide * side, middle - wide * side
            distance, along, across = capsule(window.x, window.y, start, end, half * 0.85, half * 0.85)
            sag = 0.97 - 0.22 * across + 0.07 * (along * 21 + 3 * across).sin()
            alpha = (0.5 - distance / window.pixel).clamp(0, 1) * per_pixel(look["scarf"])
            window.paint(alpha, colour, sag)
        window.close()

    def _upper_arm(
        self, window: Window, side: str, start: Tensor, end: Tensor, radii: tuple[Tensor, Tensor], here: Tensor,
        *, bare: bool,
    ) -> None:  # fmt: skip
        """The upper arm, whose light passes into that of the trunk at the shoulder."""
        look, light = self.look, self.light
        distance, along, across = capsule(window.x, window.y, start, end, *radii)
        shade = limb_shade(across, start, end, light) * (
            1 + (0.0 if bare else 0.05) * (along * 15 + across * 3).sin()
        )
        trunk = lit(per_pixel(SIDES[side] * 0.75 * light[:, 0] + 0.66 * light[:, 2]), light)
        shade = trunk + (shade - trunk) * smooth_ramp(along, 0.0, 0.4)
        colour = look["skin"]
        if not bare:
            cloth = self.trunk.pattern(across * 0.6, along * 0.5 + 0.1, across)
            # A logo is on the chest only.
            plain = (look["pattern"] >= 5)[:, None, None, None]
            cloth = torch.where(plain, look["top"][:, :, None, None], cloth)
            colour = torch.where(
                look["coat"][:, None, None, None] > 0, look["coat_colour"][:, :, None, None], cloth
            )
            colour = colour.expand(-1, -1, *distance.shape[1:])
        alpha = (0.5 - distance / window.pixel).clamp(0, 1) * per_pixel(here)
        window.paint(alpha, colour, shade)

    def _hand(self, window: Window, points: Tensor, here: Tensor) -> None:
        """Palm and fingers: every bone a capsule, all at once; the nearest one gives a pixel its shade."""
        look = self.look
        size = look["hand"] * self.scale
        thick = size * 0.088
        first, second = ([bone[i] for bone in HAND_BONES] for i in (0, 1))
        start, end = points[:, first], points[:, second]
        # Fingers taper; the bones inside the palm and the thumb are thicker.
        shares = [
            (1 - 0.085 * ((b - 1) % 4)) * (1.0 if a else 1.35) * (1.15 if b <= 4 else 1)
            for a, b in HAND_BONES
        ]
        radius = thick[:, None] * onto(torch.tensor(shares), points.device)
        x, y = window.x[:, None], window.y[:, None]
        ax, ay = (end - start)[..., 0, None, None], (end - start)[..., 1, None, None]
        px, py = x - start[..., 0, None, None], y - start[..., 1, None, None]
        along = ((px * ax + py * ay) / (ax * ax + ay * ay + 1e-8)).clamp_(0, 1)
        spread = ((px - ax * along).square_() + (py - ay * along).square_() + 1e-12).sqrt_()
        distance, which = (spread - radius[..., None, None]).min(1)
        knuckles = points[:, [5, 9, 13, 17]]
        width = (knuckles[:, 0] - knuckles[:, 3]).norm(dim=1)
        wrist, far = points[:, 0], knuckles.mean(1)
        palm, _, _ = capsule(
            window.x, window.y, wrist * 0.8 + far * 0.2, far * 0.86 + wrist * 0.14,
            width * 0.42 + size * 0.05, width * 0.50 + size * 0.05,
        )  # fmt: skip
        deep = (-distance / per_pixel(thick)).clamp(0, 1)
        shade = 0.72 + 0.34 * deep.sqrt()
        shade = torch.where((palm < 0) & (which % 4 == 0), 0.98, shade)
        alpha = (0.5 - torch.minimum(distance, palm) / window.pixel).clamp(0, 1) * per_pixel(here)
        window.paint(alpha, look["skin"], shade)
