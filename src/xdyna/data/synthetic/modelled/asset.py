"""The body that ships with the package (made by tools/export_bodies.py), as tensors on a device.

Its axes are the world's: x to the picture's right, y down, z towards the viewer; its unit is the mean standing height.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xdyna.errors import InputError

BODY_FILE = Path(__file__).parents[3] / "assets" / "bodies" / "body.safetensors"


@dataclass(frozen=True)
class Body:
    """A human body that can take many shapes; v vertices, of which h belong to the head, and j bones.

    Attributes:
        triangles: (t 3) int64; part: (t,) int64 places in `parts`.
        mean: (v 3); bone_places: (j 3) heads of the bones; eye_places: (2 3) right and left.
        shapes: (k v+j+2 3) principal components of bodies, of standard deviation 1.
        terms: (13 k) the components that go with gender, age, weight and muscle, see `shape.rest_bodies`.
        head_vertices: (h,) int64; faces: (m h 3) principal components of faces; face_mean: (h 3).
        expressions: (e h 3), see `expression_names`.
        weights: (v j) how much every bone moves a vertex, rows sum to 1.
        openness: (v,) in [0, 1] how much light from all sides reaches a vertex at rest.
        marks: (68 3) int64 and mark_shares (68 3): the iBUG landmarks as points in triangles.
        mark_places: (68 2) where they are seen on the mean face; face_mesh: (478 2) MediaPipe's points likewise.
    """

    triangles: Tensor
    part: Tensor
    mean: Tensor
    bone_places: Tensor
    eye_places: Tensor
    shapes: Tensor
    terms: Tensor
    head_vertices: Tensor
    faces: Tensor
    face_mean: Tensor
    expressions: Tensor
    weights: Tensor
    openness: Tensor
    marks: Tensor
    mark_shares: Tensor
    mark_places: Tensor
    face_mesh: Tensor
    parts: tuple[str, ...]
    bone_names: tuple[str, ...]
    expression_names: tuple[str, ...]

    def to(self, device: torch.device) -> Body:
        """The same body on a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return Body(**values | tensors)

    def ears(self) -> Tensor:
        """(2,) int64: the vertices furthest to the right (the picture's left) and to the left at the ears' height."""
        x, y = self.mean[:, 0], self.mean[:, 1] - self.mean[:, 1].max()
        high = (y > -0.937) & (y < -0.917)
        aside = torch.where(high, x, torch.zeros_like(x))
        return torch.stack([aside.argmin(), aside.argmax()])

    def bone(self, name: str) -> int:
        """The place of a bone."""
        return self.bone_names.index(name)


def load_body(path: Path = BODY_FILE) -> Body:
    """Read the body on the CPU.

    Raises:
        InputError: the file is missing or is not such a body.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "It ships with the package: install it again.")
    try:
        with safe_open(path, "pt") as file:
            raw = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
        parts, bones, expressions = (
            tuple(notes[name].split(",")) for name in ("parts", "bones", "expressions")
        )
        count = len(raw["bones"])
        weights = torch.zeros(count, len(bones))
        share = raw["weights"].float()
        weights.scatter_(1, raw["bones"].long(), share / share.sum(1, keepdim=True))

        def unpacked(name: str) -> Tensor:
            return raw[name].float() * raw[f"{name}_scale"][:, None, None]

        mean = raw["mean"]
        return Body(
            raw["triangles"].long(), raw["part"].long(), mean[:count], mean[count:-2], mean[-2:],
            unpacked("body"), raw["terms"], raw["head_vertices"].long(), unpacked("face"), raw["face_mean"],
            unpacked("expressions"), weights, raw["openness"].float() / 255, raw["marks"].long(),
            raw["mark_shares"], raw["mark_places"], raw["face_mesh"], parts, bones, expressions,
        )  # fmt: skip
    except (SafetensorError, KeyError, RuntimeError, OSError, ValueError) as error:
        raise InputError(
            path, f"not a body ({error})", "Make it again with tools/export_bodies.py."
        ) from error


@cache
def body_on(device: torch.device) -> Body:
    """The package's body on a device, loaded once."""
    return load_body().to(device)
