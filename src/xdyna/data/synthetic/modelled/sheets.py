"""Sheets that hang on a modelled person and follow its motion: long hair, tails and buns, skirts; one row a frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.modelled.garments import column
from xdyna.data.synthetic.modelled.layers import HEAD_UNIT, TUFTS, Layers
from xdyna.data.synthetic.modelled.turning import about
from xdyna.data.synthetic.shapes import smooth_ramp


class Hangers:
    """What sheets hang on, one row a frame (n), on one device.

    Args:
        layers: the mesh.
        identity, hung, state: rows of the identity, of `trailing.hang`, of the motion.
        turns, places, scale: of `pose.Pose`.
        bones: (n j 3) at rest.
        skull: (n 3 2) middle and half size of the cap at rest, along x, y and z.
        mouth: (n 2 3) at rest: the upper lip's inner edge, and the mouth's half width as x.
    """

    def __init__(
        self, layers: Layers, identity: Params, hung: Params, state: Params, turns: Tensor, places: Tensor,
        scale: Tensor, bones: Tensor, skull: Tensor, mouth: Tensor,
    ) -> None:  # fmt: skip
        self.layers, self.identity, self.hung, self.state = layers, identity, hung, state
        self.turns, self.places, self.scale, self.bones = turns, places, scale, bones
        self.skull, self.mouth = skull, mouth

    def _bone(self, name: str) -> int:
        return self.layers.body.bone(name)

    def carried(self, points: Tensor, name: str) -> Tensor:
        """Points at rest (n v 3) as a bone carries them."""
        bone = self._bone(name)
        moved = (points - self.bones[:, None, bone]) @ self.turns[:, bone].transpose(1, 2)
        return moved * self.scale[:, None, None] + self.places[:, None, bone]

    def _hung_hair(self, points: Tensor, share: Tensor, down: Tensor) -> Tensor:
        """Hair at rest (n v 3) in place: upper parts go with the head, lower ones hang and swing.

        Args:
            share: (n v) how much a point hangs straight down; down: (n v) 0 at the roots, 1 at the ends.
        """
        head = self.carried(points, "head")
        middle = self.skull[:, :, 0]
        spot = self.carried(middle[:, None], "head")
        yaw = 0.55 * self.state["yaw"] + 0.45 * self.state["turn"]
        hanging = (points - middle[:, None]) @ about(1, yaw).transpose(1, 2)
        hanging = hanging * self.scale[:, None, None] + spot
        moved = head + (hanging - head) * share[..., None]
        radius = column(self.scale * HEAD_UNIT)
        sway = (
            column(self.hung["sway"]) * 4 * down * (1 - down) * 0.6
            + column(self.hung["sway_tip"]) * down * down
        )
        up = column(self.hung["lift"]) * down * down
        return moved + torch.stack([sway * radius, -up * radius * 1.2, 0 * sway], -1)

    def curtain(self) -> Tensor:
        """Long hair round the back and the sides of the head (n v 3)."""
        place = self.layers.canon[self.layers.of("curtain")]
        across, down = place[:, 0], place[:, 1]
        person = self.identity
        locks = column(person["locks"])
        open_angle = (66 - 8 * locks) / 180 * math.pi
        angle = across * (math.pi - open_angle) + math.pi
        middle, half = self.skull[..., 0], self.skull[..., 1]
        volume = HEAD_UNIT * (0.02 + 0.85 * column(person["hair_volume"]))
        top = middle[:, 1:2] - 0.030
        end = middle[:, 1:2] + HEAD_UNIT * column(person["hair_length"])
        y = top + (end - top) * down
        below = (y - middle[:, 1:2]) / HEAD_UNIT
        bob = column((person["cut"] == 5).float())
        wide = 1 + 0.05 * smooth_ramp(below, -0.3, 0.6) - 0.10 * bob * smooth_ramp(down, 0.6, 1.0)
        wide = wide - 0.06 * (1 - bob) * smooth_ramp(below, 0.8, 1.8)
        strand = 0.004 * (angle * 9 + 2 * (angle * 3).sin()).sin() * smooth_ramp(down, 0.2, 1.0)
        curl = column(person["hair_wave"]) * HEAD_UNIT * 0.8 * (below * 7 + angle * 2.0).sin()
        curl = curl * smooth_ramp(down, 0.1, 0.5)
        reach_x, reach_z = half[:, :1] * wide + volume + strand, half[:, 2:] * wide + volume + strand
        # Its upper end is tucked in under the cap.
        tucked = 0.80 + 0.20 * smooth_ramp(down * (end - top), 0.0, 0.030)
        x = angle.sin() * (reach_x + curl) * tucked
        z = middle[:, 2:] + angle.cos() * (reach_z + 0.4 * curl) * tucked
        # Below the neck it falls behind the shoulders, locks before them.
        side = 1 - smooth_ramp(angle.cos().abs(), 0.3, 0.9)
        behind = -0.040 * smooth_ramp(below, 0.8, 2.1)
        ahead = 0.030 * smooth_ramp(below, 0.9, 1.8)
        z = z + behind * (1 - locks * side) + ahead * locks * side
        ragged = 0.006 * (angle * 13).sin() * (1 - bob) * smooth_ramp(down, 0.7, 1.0)
        points = torch.stack([x, y + ragged, z], -1)
        return self._hung_hair(points, 0.8 * smooth_ramp(below, 0.2, 1.5), down.expand_as(y))

    def tufts(self) -> Tensor:
        """Buns, ponytails and tails (n v 3)."""
        layer = self.layers.of("tuft")
        place = self.layers.canon[layer].view(TUFTS, -1, 3)[0]
        angle, down = place[:, 0] * math.pi * 11 / 12, place[:, 1]
        cut = self.identity["cut"]
        middle, half = self.skull[..., 0], self.skull[..., 1]
        bun, pony, tails = (column((cut == kind).float()) for kind in (8, 9, 10))
        radius = 0.026 * bun + 0.021 * pony + 0.019 * tails
        length = 0.046 * bun + 0.150 * pony + 0.105 * tails
        # A tail ends in a point, a bun is round.
        ball = (1 - (2 * down - 1) ** 2).clamp(min=0).sqrt()
        tail = (down * 6).clamp(max=1).sqrt() * (1 - down**3 * 0.95)
        around = radius * (bun * ball + (1 - bun) * tail) * (1 + 0.08 * (angle * 6).sin() * (1 - bun))
        rows = []
        for sign in (-1.0, 1.0):
            aside = tails * sign * (half[:, :1] + 0.016 + 0.012 * down)
            start_y = middle[:, 1:2] - bun * (half[:, 1:2] + 0.022) - pony * 0.022 - tails * 0.004
            arched = half[:, 2:] + 0.012 + 0.020 * (down * 3.0).sin()
            back = middle[:, 2:] - bun * 0.022 - pony * arched - tails * 0.004
            points = torch.stack(
                [aside + angle.sin() * around, start_y + length * down, back + angle.cos() * around], -1
            )
            hangs = (1 - bun) * smooth_ramp(down, 0.1, 0.8) * 0.8
            rows.append(self._hung_hair(points, hangs, (down * (1 - bun)).expand_as(around)))
        return torch.cat(rows, 1)

    def teeth(self) -> Tensor:
        """The upper row of teeth (n v 3), behind the upper lip."""
        place = self.layers.canon[self.layers.of("teeth")]
        across, down = place[:, 0], place[:, 1]
        lip, half = self.mouth[:, None, 0], self.mouth[:, None, 1, 0] * 0.80
        x = lip[..., 0] + across * half
        y = lip[..., 1] - 0.0042 + 0.0052 * down - 0.0010 * across * across
        z = lip[..., 2] - 0.0060 - 0.45 * half * across * across
        return self.carried(torch.stack([x + 0 * down, y, z], -1), "head")

    def skirt(self) -> Tensor:
        """A skirt round the legs (n v 3): rigid at the hips, and further down round both legs, wherever they go."""
        place = self.layers.canon[self.layers.of("skirt")]
        angle, down = place[:, 0] * math.pi, place[:, 1]
        person, root = self.identity, self._bone("root")
        leg = person["thigh"] + person["calf"]
        fall = column((person["hem"] * leg).clamp(min=0.04))
        rise = column(0.085 + 0.020 * person["dress"])
        depth = down * (rise + fall) - rise  # below the hip joints, in standing heights
        right, left = self._leg("R", depth), self._leg("L", depth)
        middle, gap = (right + left) / 2, (left - right) / 2
        axes = self.turns[:, root]
        ex, ez = axes[:, :, 0], axes[:, :, 2]
        below = (depth / fall).clamp(min=0)
        flare = column(person["flare"] * (1 + 0.6 * self.hung["billow"]) + 0.35 * self.hung["billow"])
        hip = column(person["hip"]) + 0.043
        waist = smooth_ramp(depth, -0.12, -0.01)
        spread = 0.55 * flare * fall * below
        size = column(self.scale)
        wide = (hip * (0.80 + 0.22 * waist) + spread) * size
        thick = (0.058 + 0.016 * waist + 0.85 * spread) * size
        apart_x = (gap * ex[:, None]).sum(-1).abs() + 0.052 * size * (below > 0)
        apart_z = (gap * ez[:, None]).sum(-1).abs() + 0.048 * size * (below > 0)
        pleat = 1 + 0.05 * (angle * column(person["pleats"].round())).sin() * below
        across = angle.sin() * torch.maximum(wide, apart_x) * pleat
        ahead = angle.cos() * torch.maximum(thick, apart_z) * pleat + 0.004 * size
        points = middle + ex[:, None] * across[..., None] + ez[:, None] * ahead[..., None]
        lag, wave = column(self.hung["hem_lag"]), column(self.hung["hem_wave"])
        points[..., 0] += lag * below * below + wave * below * (1 - below) * 3
        points[..., 1] -= 0.10 * column(self.hung["billow"]) * fall * size * below
        return points

    def _leg(self, side: str, depth: Tensor) -> Tensor:
        """Points of a leg's axis (n v 3), so far below its hip joint, in standing heights; above it, on the trunk's."""
        names = ("upperleg01", "lowerleg01", "foot")
        hip, knee, ankle = (self.places[:, self._bone(f"{name}.{side}"), None] for name in names)
        person, size = self.identity, column(self.scale)[..., None]
        thigh, calf = column(person["thigh"]), column(person["calf"])
        first, second = (
            (depth / thigh).clamp(0, 1)[..., None],
            ((depth - thigh) / calf).clamp(0, 1)[..., None],
        )
        up = self.turns[:, None, self._bone("root"), :, 1]
        point = hip + (knee - hip) * first + (ankle - knee) * second
        return point + up * depth.clamp(max=0)[..., None] * size
