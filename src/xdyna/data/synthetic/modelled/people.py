"""Modelled people: the same cast as the drawn people's, on a mesh, with light, shadows and exact truth."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.camera import camera_at, project
from xdyna.data.synthetic.draws import Params, onto, to_device
from xdyna.data.synthetic.modelled.asset import body_on
from xdyna.data.synthetic.modelled.garments import dress_up
from xdyna.data.synthetic.modelled.layers import HEAD_UNIT, Layers, layers_on
from xdyna.data.synthetic.modelled.paint import Painter
from xdyna.data.synthetic.modelled.picture import Posed, take_picture
from xdyna.data.synthetic.modelled.pose import Pose
from xdyna.data.synthetic.modelled.shape import rest_bodies
from xdyna.data.synthetic.modelled.sheets import Hangers
from xdyna.data.synthetic.modelled.skin import expression_weights, skinned
from xdyna.data.synthetic.motion import EXPRESSIONS
from xdyna.data.synthetic.params import SceneParams
from xdyna.data.synthetic.people import Troupe
from xdyna.data.synthetic.shapes import Canvas, bounds, bump, per_pixel
from xdyna.data.synthetic.skeleton import SIDES, keypoints

_LETTER = {"right": "R", "left": "L"}


class ModelledTroupe(Troupe):
    """The modelled people of some clips, one row a frame, on the CPU.

    Args:
        clips: with `identity` as of `shape.measured` and `modelled` as of `shape.sample_modelled`.
        scene, placed, times, aspect: as of `Troupe`.
    """

    def __init__(
        self, clips: dict[str, Params], scene: SceneParams, placed: Params, times: Tensor, aspect: float
    ) -> None:
        super().__init__(clips, scene, placed, times, aspect)
        self.count = times.shape[1]
        self.view = camera_at(scene.camera, times).flatten(0, 1)
        self.middle = torch.tensor([aspect / 2, 0.5])
        body = body_on(torch.device("cpu"))
        self.rest = rest_bodies(body, clips["identity"], clips["modelled"])
        spot = {name: value.repeat_interleave(self.count, 0) for name, value in placed.items()}
        leg = self.identity["thigh"] + self.identity["calf"]
        ground = spot["y"] + (self.identity["torso"] + leg) * spot["scale"]
        bones = self.rest.bones.repeat_interleave(self.count, 0)
        self.pose = Pose(body, bones, self.motion, self.state, spot, ground)
        self._know()

    def _skin(self, device: torch.device, chosen: Tensor | None = None) -> Tensor:
        """The skin's vertices, or the chosen ones (k,), in the world (n s 3)."""
        body = body_on(device)
        rest, bones = (
            onto(value, device).repeat_interleave(self.count, 0)
            for value in (self.rest.skin, self.rest.bones)
        )
        weights = onto(expression_weights(body, self.state), device)
        face = (weights @ body.expressions.flatten(1)).unflatten(1, (-1, 3))
        rest = rest.index_add(1, body.head_vertices, face)
        pose = self.pose
        turns, places, scale = (onto(value, device) for value in (pose.turns, pose.places, pose.scale))
        vertices = body.weights
        if chosen is not None:
            rest, vertices = rest[:, chosen], vertices[chosen]
        return skinned(rest, vertices, bones, turns, places, scale)

    def _seen(self, points: Tensor) -> Tensor:
        """Points of the world (n k 3 or n 3) in the picture, in frame heights."""
        return project(points[..., :2], self.view, self.middle)

    def _know(self) -> None:
        """Exact joints and landmarks of the mesh, in place of the drawn person's."""
        body, pose = body_on(torch.device("cpu")), self.pose

        def at(name: str) -> Tensor:
            return pose.places[:, body.bone(name)]

        for side in SIDES:
            letter = _LETTER[side]
            for joint, bone in (("shoulder", "upperarm01"), ("elbow", "lowerarm01"), ("wrist", "wrist"),
                                ("hip", "upperleg01"), ("knee", "lowerleg01"), ("ankle", "foot")):  # fmt: skip
                self.joints[f"{side}_{joint}"] = self._seen(at(f"{bone}.{letter}"))
            self.joints[f"{side}_hand"] = self._seen(self._hand(letter))
        self.joints["neck"] = (self.joints["right_shoulder"] + self.joints["left_shoulder"]) / 2
        chosen = torch.cat([body.marks.flatten(), body.ears()])
        skin = self._skin(torch.device("cpu"), chosen)
        corner, ears = skin[:, :-2].unflatten(1, (-1, 3)), skin[:, -2:]
        marks = (corner * body.mark_shares[..., None]).sum(2)
        self.landmarks = self._seen(marks)
        # The head's middle and half height at rest, carried by its bone.
        low = self.rest.skin[:, :, 1].amin(1)
        chin = (self.rest.skin[:, body.marks[8]] * body.mark_shares[8][:, None]).sum(1)
        half = (chin[:, 1] - low) / 2
        middle = torch.stack([0 * half, low + half, 0 * half + 0.03], 1).repeat_interleave(self.count, 0)
        head = body.bone("head")
        offset = (middle - pose.rest[:, head])[..., None] * pose.scale[:, None, None]
        middle = pose.places[:, head] + (pose.turns[:, head] @ offset)[..., 0]
        self.joints["head"] = self._seen(middle)
        self.joints["head_radius"] = half.repeat_interleave(self.count, 0) * pose.scale * self.view[:, 0]
        self.joints["head_roll"] = pose.up + self.view[:, 3]
        self.marks = self._marks(marks, ears)

    def _hand(self, letter: str) -> Tensor:
        """The 21 points of a hand (n 21 3): wrist, knuckles and the tips, which lie a last bone further."""
        body, pose = body_on(torch.device("cpu")), self.pose
        points = [pose.places[:, body.bone(f"wrist.{letter}")]]
        for finger in range(1, 6):
            own = [pose.places[:, body.bone(f"finger{finger}-{k}.{letter}")] for k in (1, 2, 3)]
            tip = body.bone(f"finger{finger}-3.{letter}")
            rest = pose.rest[:, tip] - pose.rest[:, body.bone(f"finger{finger}-2.{letter}")]
            length = 0.92 * pose.scale[:, None, None]
            points += [*own, own[2] + (pose.turns[:, tip] @ rest[..., None] * length)[..., 0]]
        return torch.stack(points, 1)

    def _marks(self, marks: Tensor, ears: Tensor) -> Tensor:
        """Nose, eyes and ears (n 5 3), see `head.head_marks`."""
        yaw = self.state["yaw"]
        ones = torch.ones(len(yaw), 1)
        nose, right, left = (
            self._seen(p) for p in (marks[:, 30], marks[:, 36:42].mean(1), marks[:, 42:48].mean(1))
        )
        rows = [torch.cat([point, ones], 1) for point in (nose, right, left)]
        for sign, ear in ((-1.0, ears[:, 0]), (1.0, ears[:, 1])):
            rows.append(torch.cat([self._seen(ear), (sign * yaw < 0.35).float()[:, None]], 1))
        return torch.stack(rows, 1)

    def truth(self, size: tuple[int, int]) -> Params:
        """Keypoints, head and expression of every frame, in pixels; see `SyntheticBatch`."""
        known = keypoints(self.joints, self.landmarks, self.marks, size)
        head = torch.cat([self.joints["head"], self.joints["head_radius"][:, None]], 1)
        known["head"] = head * size[0]
        known["expression"] = torch.stack([self.state[name] for name in EXPRESSIONS], 1)
        return known

    def _stand(self, canvas: Canvas) -> None:
        """The shadow where feet touch the ground."""
        for side in SIDES:
            foot, scale = self.joints[f"{side}_ankle"], self.joints["scale"]
            lowest = torch.maximum(self.joints["right_ankle"][:, 1], self.joints["left_ankle"][:, 1])
            spot = torch.stack([foot[:, 0], lowest + 0.045 * scale], 1)
            strength = 0.30 * (1 - 0.6 * self.state[f"{side}_step"].clamp(max=1))
            box = bounds([spot], 0.12 * scale)
            if not canvas.sees(box):
                continue
            window = canvas.window(box)
            values = onto(torch.cat([spot, scale[:, None], strength[:, None]], 1), canvas.image.device)
            u = (window.x - per_pixel(values[:, 0])) / per_pixel(0.085 * values[:, 2])
            v = (window.y - per_pixel(values[:, 1])) / per_pixel(0.026 * values[:, 2])
            window.darken(per_pixel(values[:, 3]) * bump((u * u + v * v).sqrt()))
            window.close()

    def paint(self, canvas: Canvas, light: Tensor) -> None:
        """Paint everybody into their frames.

        Args:
            light: (n 5) on the CPU.
        """
        # Half precision would move vertices by pixels.
        with torch.autocast(canvas.image.device.type, enabled=False):
            self._stand(canvas)
            take_picture(canvas, *self.posed(canvas.image.device, light))

    def posed(self, device: torch.device, light: Tensor) -> tuple[Layers, Painter, Posed]:
        """Everybody's surfaces and colours on a device, in every frame as the camera sees them."""
        layers = layers_on(device)
        body = layers.body
        identity = to_device(
            {k: v for k, v in self.clips["identity"].items() if k != "cloth_texture"}, device
        )
        modelled = to_device(self.clips["modelled"], device)
        state, hung, rows = (to_device(part, device) for part in (self.state, self.hung, self.identity))
        zoom, middle = onto(self.view, device)[:, 0], onto(self.middle, device)
        for name in ("hem_lag", "hem_wave"):
            hung[name] = onto(self.joints[name], device) / zoom
        body_rest = self.rest.to(device)
        rest, bones = body_rest.skin, body_rest.bones
        shells, keep = dress_up(layers, identity, body_rest)
        pose = self.pose
        turns, places, scale = (onto(value, device) for value in (pose.turns, pose.places, pose.scale))
        bones = bones.repeat_interleave(self.count, 0)
        skin = self._skin(device)
        shell = skinned(
            shells.repeat_interleave(self.count, 0),
            layers.weights[len(body.mean) :],
            bones,
            turns,
            places,
            scale,
        )
        cap = shells[:, layers.first["cap"] - len(body.mean) :]
        low, high = cap.amin(1), cap.amax(1)
        skull = torch.stack([(low + high) / 2, (high - low) / 2], -1)
        skull[:, 1, 0], skull[:, 1, 1] = low[:, 1] + HEAD_UNIT, HEAD_UNIT
        skull = skull.repeat_interleave(self.count, 0)
        lips = (rest[:, body.marks[[62, 48, 54]]] * body.mark_shares[[62, 48, 54], :, None]).sum(2)
        mouth = torch.stack([lips[:, 0], (lips[:, 2] - lips[:, 1]) / 2], 1).repeat_interleave(self.count, 0)
        hangers = Hangers(layers, rows, hung, state, turns, places, scale, bones, skull, mouth)
        sheets = [hangers.curtain(), hangers.skirt(), hangers.tufts(), hangers.teeth()]
        points = torch.cat([skin, shell, *sheets], 1)
        view = onto(self.view, device)
        flat = project(points[..., :2], view, middle)
        points = torch.cat([flat, points[..., 2:] * zoom[:, None, None]], -1)
        keep = keep.repeat_interleave(self.count, 0)
        painter = Painter(layers, identity, modelled, state, onto(self.texture[:, 0], device))
        return layers, painter, Posed(points, keep, onto(light, device), self.count)
