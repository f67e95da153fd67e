"""From a motion's state to the bones of a modelled body: the same angles that pose a drawn person."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Params
from xdyna.data.synthetic.modelled.asset import Body
from xdyna.data.synthetic.modelled.turning import about, frame, shortest, spun, unit
from xdyna.data.synthetic.motion import HAND_POSES
from xdyna.data.synthetic.skeleton import BENDS, SIDES, SPLAY

_LETTER = {"right": "R", "left": "L"}


class Pose:
    """The bones of every frame.

    Args:
        body: on the CPU.
        bones: (n j 3) at rest, in standing heights, of `shape.rest_bodies`, one row a frame.
        motion, state: one row a frame, see `skeleton.pose_skeleton`.
        placed: of `frame_person`, one row a frame.
        ground: (n,) where the feet stand, in frame heights.

    Attributes:
        turns: (n j 3 3) how every bone is turned from rest; places: (n j 3) where its head is, in frame heights.
        scale: (n,) standing height in frame heights.
    """

    def __init__(
        self, body: Body, bones: Tensor, motion: Params, state: Params, placed: Params, ground: Tensor
    ) -> None:
        self.body, self.rest, self.motion, self.state = body, bones, motion, state
        self.scale = placed["scale"] * state["zoom"].exp()
        count = len(bones)
        self.turns = torch.eye(3).repeat(count, len(body.bone_names), 1, 1)
        self.places = torch.zeros(count, len(body.bone_names), 3)
        self._trunk()
        for index, side in enumerate(SIDES):
            self._arm(side)
            self._hand(side, index)
        self._put(placed, ground)

    def _at(self, name: str) -> Tensor:
        return self.rest[:, self.body.bone(name)]

    def _turn(self, name: str, turn: Tensor) -> None:
        self.turns[:, self.body.bone(name)] = turn

    def _join(self, name: str, parent: str) -> None:
        """Put a bone's head where its parent carries it; lengths in standing heights."""
        own, above = self.body.bone(name), self.body.bone(parent)
        offset = (self.rest[:, own] - self.rest[:, above])[..., None]
        self.places[:, own] = self.places[:, above] + (self.turns[:, above] @ offset)[..., 0]

    def _trunk(self) -> None:
        state = self.state
        length = (self._at("upperleg01.R")[:, 1] - self._at("upperarm01.R")[:, 1]) * self.scale
        aside = torch.atan2(state["lean"].sin() * length + state["sway"], state["lean"].cos() * length)
        turned = about(1, state["turn"])
        self.turned, self.up = turned, state["roll"] - 0.25 * state["lean"]
        self._turn("root", turned @ about(2, -0.5 * aside))
        above = "root"
        for name, lean, tilt in (("spine05", 0.8, 0.0), ("spine03", 1.2, 0.4), ("spine01", 1.2, 0.9)):
            self._join(name, above)
            self._turn(name, turned @ about(2, tilt * state["tilt"] - lean * aside))
            above = name
        chest = [state["turn"], 0 * aside, 0.5 * state["tilt"] - aside]
        head = [state["yaw"], state["pitch"], self.up]
        for name, share in (("neck01", 0.30), ("neck03", 0.70), ("head", 1.0)):
            self._join(name, above)
            yaw, pitch, roll = (a + (b - a) * share for a, b in zip(chest, head, strict=True))
            self._turn(name, about(2, roll) @ about(1, yaw) @ about(0, pitch))
            above = name

    def _arm(self, side: str) -> None:
        state, sign, letter = self.state, SIDES[side], _LETTER[side]
        clavicle, upper, fore, twist, hand = (
            f"{name}.{letter}" for name in ("clavicle", "upperarm01", "lowerarm01", "lowerarm02", "wrist")
        )
        raised, forward = state[f"{side}_raise"], state[f"{side}_forward"]
        chest = self.turns[:, self.body.bone("spine01")]
        lift = 0.35 * (raised - 0.9).clamp(0, 1.6) * sign
        self._join(clavicle, "spine01")
        self._turn(clavicle, chest @ about(2, -lift))
        self._join(upper, clavicle)

        swing, bent = state[f"{side}_swing"], raised + state[f"{side}_elbow"]
        first = torch.stack([sign * raised.sin() * swing.cos(), raised.cos() * swing.cos(), swing.sin()], -1)
        second = torch.stack(
            [sign * bent.sin() * forward.cos(), bent.cos() * forward.cos(), forward.sin()], -1
        )
        rest_upper, rest_fore = unit(self._at(fore) - self._at(upper)), unit(self._at(hand) - self._at(fore))
        upper_turn = self.turned @ shortest(rest_upper, first)
        self._turn(upper, upper_turn)
        self._join(fore, upper)
        way = (self.turned @ second[..., None])[..., 0]
        carried = (upper_turn @ rest_fore[..., None])[..., 0]
        self.fore_turn = shortest(carried, way) @ upper_turn
        self._turn(fore, self.fore_turn)
        self._join(twist, fore)
        self._join(hand, fore)
        self.way = way

    def _hand(self, side: str, index: int) -> None:
        state, sign, letter = self.state, SIDES[side], _LETTER[side]
        hand = f"wrist.{letter}"
        roots = [self._at(f"finger{k}-1.{letter}") for k in range(1, 6)]
        along = unit((roots[1] + roots[2] + roots[3] + roots[4]) / 4 - self._at(hand))
        rest = frame(along, roots[1] - roots[4])  # along, thumbwards, and a normal
        # Right hands have their palm on the one side of (along x thumbwards), left hands on the other.
        rest_palm = rest[..., 2] * -sign
        bend, palm = state[f"{side}_wrist"], state[f"{side}_palm"]
        way = (about(2, bend) @ self.way[..., None])[..., 0]
        flat = torch.stack([-way[:, 1], way[:, 0], 0 * bend], -1) * -sign
        flat = unit(flat + torch.tensor([1e-3, 0, 0]))
        face = unit(torch.cross(way, flat, dim=-1) * -sign)
        thumb = flat * palm.cos()[:, None] + face * palm.sin()[:, None]
        target = frame(way, thumb)
        turn = target @ rest.transpose(-1, -2)
        self._turn(hand, turn)
        # The forearm shares the twist.
        carried = (self.fore_turn @ rest[..., 1:2])[..., 0]
        carried = carried - (carried * self.way).sum(-1, keepdim=True) * self.way
        across = torch.cross(self.way, carried, dim=-1)
        angle = torch.atan2((thumb * across).sum(-1), (thumb * carried).sum(-1))
        self._turn(f"lowerarm02.{letter}", spun(self.way, 0.6 * angle) @ self.fore_turn)
        self._turn(f"lowerarm01.{letter}", spun(self.way, 0.2 * angle) @ self.fore_turn)

        poses = torch.tensor(HAND_POSES)[self.motion["hand_poses"].long()][:, 2 * index : 2 * index + 2]
        grip = state[f"{side}_grip"]
        mix = (grip * grip * (3 - 2 * grip))[:, None]
        shape = poses[:, 0] + (poses[:, 1] - poses[:, 0]) * mix
        curls, fan = shape[:, :5], shape[:, 5]
        for finger in range(1, 6):
            names = [f"finger{finger}-{bone}.{letter}" for bone in (1, 2, 3)]
            points = [self._at(name) for name in names]
            own = unit(points[1] - points[0])
            if finger == 1:
                axis = unit(torch.cross(own, -0.75 * rest[..., 1] + 0.65 * rest_palm, dim=-1))
                bends = [0.10 * curls[:, 0] - 0.15 * fan, 0.45 * curls[:, 0], 0.6 * curls[:, 0]]
                local = torch.eye(3)
            else:
                axis = unit(torch.cross(own, rest_palm, dim=-1))
                # At rest the fingers are a little bent and spread already.
                bends = [limit * curls[:, finger - 1] - 0.16 for limit in BENDS]
                local = spun(rest[..., 2], (SPLAY[finger - 2] * (fan - 0.45)) * 0.9)
            angle, above = torch.zeros_like(fan), hand
            for name, step in zip(names, bends, strict=True):
                angle = angle + step
                self._join(name, above)
                self._turn(name, turn @ local @ spun(axis, angle))
                above = name

    def _put(self, placed: Params, ground: Tensor) -> None:
        """Scale, put the shoulders where they belong, and let the legs stand."""
        state, motion, body = self.state, self.motion, self.body
        length = [(self._at(f"{a}.R") - self._at(f"{b}.R")).norm(dim=1) * self.scale for a, b in
                  (("upperleg01", "lowerleg01"), ("lowerleg01", "foot"))]  # fmt: skip
        leg = length[0] + length[1]
        self.places = self.places * self.scale[:, None, None]
        bob = (0.05 * state["bob"] + 0.42 * motion["sit"]) * leg
        neck = torch.stack(
            [placed["x"] + state["x"], placed["y"] + state["y"] + bob * (1 - 0.7 * motion["sit"])], -1
        )
        shoulders = (
            self.places[:, body.bone("upperarm01.R")] + self.places[:, body.bone("upperarm01.L")]
        ) / 2
        self.places = self.places + torch.cat([neck - shoulders[:, :2], -shoulders[:, 2:]], 1)[:, None]
        root, root_turn = self.places[:, body.bone("root")], self.turns[:, body.bone("root")]
        for side, sign in SIDES.items():
            letter = _LETTER[side]
            thigh, calf, foot = (f"{name}.{letter}" for name in ("upperleg01", "lowerleg01", "foot"))
            offset = (self._at(thigh) - self._at("root")) * self.scale[:, None]
            hip = root + (root_turn @ offset[..., None])[..., 0]
            apart = (self._at(thigh)[:, 0].abs()) * self.scale
            spread = sign * (motion["stance"].clamp(max=1.9) * apart + 0.2 * motion["sit"] * leg)
            lift = 0.16 * state[f"{side}_step"] * leg
            cos, sin = state["turn"].cos(), state["turn"].sin()
            ankle = torch.stack(
                [placed["x"] + spread * cos, ground - lift, root[:, 2] - spread * sin - 0.1 * lift], -1
            )
            along = ankle - hip
            far = along.norm(dim=1).clamp(min=1e-6)
            reach = torch.minimum(far, 0.998 * leg)
            way = along / far[:, None]
            # The knee is where both bones meet: so far along, so far out, ahead and a little outwards.
            share = (reach**2 + length[0] ** 2 - length[1] ** 2) / (2 * reach * length[0]) * length[0]
            out = (length[0] ** 2 - share**2).clamp(min=0).sqrt()
            ahead = (self.turned @ torch.tensor([0.28 * sign, 0.0, 1.0])[:, None])[..., 0]
            ahead = unit(ahead - (ahead * way).sum(-1, keepdim=True) * way)
            knee = hip + way * share[:, None] + ahead * out[:, None]
            end = hip + way * reach[:, None]
            for name, place, target, following in ((thigh, hip, knee, calf), (calf, knee, end, foot)):
                rest = frame(
                    self._at(following) - self._at(name), torch.tensor([0.0, 0.0, 1.0]).expand_as(hip)
                )
                seen = frame(
                    target - place,
                    ahead + 0.15 * self.turned[..., 2],
                )
                self._turn(name, seen @ rest.transpose(-1, -2))
                self.places[:, body.bone(name)] = place
            self.places[:, body.bone(foot)] = end
            tipped = about(0, 0.5 * state[f"{side}_step"])
            self._turn(foot, about(1, 0.8 * state["turn"] + sign * (0.12 + 0 * sin)) @ tipped)
