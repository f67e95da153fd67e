"""The people of a batch: posed for every frame, painted, and known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.body import LimbPainter
from xdyna.data.synthetic.camera import camera_at, project
from xdyna.data.synthetic.draws import Params, onto, take, to_device
from xdyna.data.synthetic.face import FacePainter
from xdyna.data.synthetic.foreign import paint_foreign
from xdyna.data.synthetic.hair import hair_reach, paint_back_hair, paint_front_hair
from xdyna.data.synthetic.head import HeadShape, head_look, head_marks, landmarks
from xdyna.data.synthetic.motion import EXPRESSIONS, motion_at
from xdyna.data.synthetic.params import SceneParams
from xdyna.data.synthetic.scenes import SCENES, WINDY
from xdyna.data.synthetic.shapes import Canvas, bounds
from xdyna.data.synthetic.skeleton import frame_person, keypoints, pose_skeleton
from xdyna.data.synthetic.trailing import hang
from xdyna.data.synthetic.trunk import TrunkPainter

_POINTS = ("neck", "pelvis", "head", "right_hand", "left_hand") + tuple(
    f"{side}_{joint}"
    for side in ("right", "left")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "toe")
)


class Cast:
    """Everybody of a batch in every frame, posed on the CPU.

    Args:
        identity, motion: b people.
        scene: where they are: its camera sees them, its wind pulls at them.
        times: (b n) seconds.
        aspect: width / height of the frame.
        placed: as of `frame_person`; None places them as their motion's framing says.
        foreign: identities whose heads the face maps show, if there are face maps.
        modelled: of `modelled.shape.sample_modelled`, if there are modelled people.
    """

    def __init__(
        self, identity: Params, motion: Params, scene: SceneParams, times: Tensor, aspect: float,
        *, placed: Params | None = None, foreign: Params | None = None, modelled: Params | None = None,
    ) -> None:  # fmt: skip
        self.clips = {"identity": identity, "motion": motion} | ({"foreign": foreign} if foreign else {})
        if modelled:
            self.clips["modelled"] = modelled
        self.scene, self.times, self.aspect = scene, times, aspect
        self.placed = frame_person(identity, motion, aspect) if placed is None else placed

    def size(self) -> Tensor:
        """(b,) how large the people are, to group them."""
        return self.placed["scale"]

    def take(self, index: Tensor, kind: type[Troupe] | None = None) -> Troupe:
        """The chosen clips' people, one row a frame.

        Args:
            kind: `ModelledTroupe` for modelled people; None for drawn ones.
        """
        chosen = {name: take(params, index) for name, params in self.clips.items()}
        return (kind or Troupe)(
            chosen, self.scene.take(index), take(self.placed, index), self.times[index], self.aspect
        )


class Troupe:
    """The people of some clips, one row a frame, on the CPU.

    Attributes:
        identity, motion, state, joints: one row a frame.
        hung: where hair and cloth trail, of `trailing.hang`, one row a frame.
        shape: their heads.
        texture: one a clip.
    """

    def __init__(
        self, clips: dict[str, Params], scene: SceneParams, placed: Params, times: Tensor, aspect: float
    ) -> None:
        count = times.shape[1]

        def rows(params: Params) -> Params:
            return {
                name: value.repeat_interleave(count, 0)
                for name, value in params.items()
                if name != "cloth_texture"
            }

        self.clips = clips
        self.texture = clips["identity"]["cloth_texture"]
        self.identity, self.motion = rows(clips["identity"]), rows(clips["motion"])
        self.state = {name: value.flatten() for name, value in motion_at(clips["motion"], times).items()}
        self.joints = pose_skeleton(self.identity, self.motion, self.state, rows(placed))
        windy = torch.tensor([WINDY.get(name, 0.0) for name in SCENES])[scene.kind]
        hung = hang(clips, placed, scene.tempo, times, windy)
        self.hung = {name: value.flatten(0, 1) for name, value in hung.items()}
        self._film(camera_at(scene.camera, times).flatten(0, 1), torch.tensor([aspect / 2, 0.5]))
        leg = (self.identity["thigh"] + self.identity["calf"]) * self.joints["scale"]
        self.joints["skirt_fall"] = self.identity["hem"] * leg * self.identity["skirt"]
        self.joints["coat_fall"] = self.identity["coat_length"] * leg * self.identity["coat"]
        self.shape = HeadShape(self.identity, self.state, self.joints)
        self.landmarks = landmarks(self.shape)

    def _film(self, view: Tensor, middle: Tensor) -> None:
        """From the world into the picture: through the camera `view` (n 4)."""
        joints, hung, zoom = self.joints, self.hung, view[:, 0]
        hung["scarf"] = hung["scarf"] + joints["neck"][:, None]
        for name in ("right_sleeve", "left_sleeve"):
            hung[name] = hung[name] + joints[name.replace("sleeve", "wrist")]
        for name in _POINTS:
            joints[name] = project(joints[name], view, middle)
        for name in ("scarf", "right_sleeve", "left_sleeve"):
            joints[name] = project(hung.pop(name), view, middle)
        for name in ("scale", "head_radius"):
            joints[name] = joints[name] * zoom
        for name in ("hem_lag", "hem_wave"):
            joints[name] = hung.pop(name) * zoom
        joints["head_roll"] = joints["head_roll"] + view[:, 3]

    def truth(self, size: tuple[int, int]) -> Params:
        """Keypoints, head and expression of every frame, in pixels; see `SyntheticBatch`."""
        marks = head_marks(self.shape, self.landmarks)
        known = keypoints(self.joints, self.landmarks, marks, size)
        head = torch.cat([self.joints["head"], self.joints["head_radius"][:, None]], 1)
        known["head"] = head * size[0]
        known["expression"] = torch.stack([self.state[name] for name in EXPRESSIONS], 1)
        return known

    def paint(self, canvas: Canvas, light: Tensor) -> None:
        """Paint everybody; light: (n 5) on the CPU."""
        paint_people(canvas, self, light)

    def paint_foreign(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """The foreign heads, see `foreign.paint_foreign`."""
        foreign = dict(self.clips["foreign"])
        texture = foreign.pop("cloth_texture")
        count = len(self.joints["scale"]) // len(texture)
        rows = {name: value.repeat_interleave(count, 0) for name, value in foreign.items()}
        return paint_foreign(rows, self.state, self.hung, self.joints, texture, size, device)


def paint_people(canvas: Canvas, people: Troupe, light: Tensor) -> None:
    """Paint everybody, from back to front: far hair, arms behind, legs, trunk, head, arms before.

    Args:
        light: (n 5) on the CPU.
    """
    device = canvas.image.device
    places = people.joints
    look = to_device(head_look(people.shape, people.identity, people.state, people.hung), device)
    joints, light, texture = to_device(places, device), onto(light, device), onto(people.texture, device)
    front = onto(people.motion["arms_front"], device)
    trunk = TrunkPainter(canvas, look, joints, places, people.identity, light, texture)
    limbs = LimbPainter(trunk)

    unit = places["head_radius"]
    reach = 1.5 + people.identity["hair_volume"]
    box = bounds([places["head"]], reach * unit)
    back = box.clone()
    back[:, 3] += unit * (people.identity["hair_length"].clamp(min=0) + 0.8)
    aside = hair_reach(people.identity, people.hung) * unit
    back[:, 0] -= aside
    back[:, 2] += aside
    window = canvas.window(back)
    paint_back_hair(window, people.shape, look)
    window.close()
    if bool((people.motion["arms_front"] == 0).any()):
        for side in ("right", "left"):
            limbs.arm(side, 1 - front)
    limbs.legs()
    trunk.paint()
    limbs.scarf()
    locks = people.identity["locks"] * people.identity["hair_length"].clamp(min=0)
    box[:, 3] += unit * (locks - 0.4).clamp(min=0)
    box[:, 0] -= aside * (locks > 0)
    box[:, 2] += aside * (locks > 0)
    FacePainter(canvas, people.shape, people.landmarks, look, light, texture).paint()
    window = canvas.window(box)
    paint_front_hair(window, people.shape, look, light, texture)
    window.close()
    if bool((people.motion["arms_front"] > 0).any()):
        for side in ("right", "left"):
            limbs.arm(side, front)
