"""What tools/export_bodies.py does to a mesh: fewer vertices, light from all sides, a portrait and its landmarks."""

from __future__ import annotations

import heapq

import numpy as np

HEAD, EYE = 1, 3
"""Places of these parts in `export_bodies.PARTS`."""


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


def portrait(
    points: np.ndarray, triangles: np.ndarray, parts: np.ndarray, normals: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """A picture of the face (size size 3) uint8, and the middle (3,) and width in places of what it shows."""
    face = points[triangles[parts == HEAD].ravel()]
    middle, span = (face.min(0) + face.max(0)) / 2, 1.5 * np.ptp(face[:, 1])
    depth = np.full(size * size, -1e9)
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
        depth[where[nearer]] = place[nearer, 2]
        shade = 0.45 + 0.6 * (normal @ light).clip(min=0)
        tone = np.where((parts == EYE)[:, None], [0.95, 0.95, 0.93], [0.86, 0.66, 0.55])
        eyes = [points[triangles[parts == EYE].ravel()]]
        for sign in (-1, 1):
            own = eyes[0][np.sign(eyes[0][:, 0]) == sign]
            spot = (own.min(0) + own.max(0)) / 2
            away = np.linalg.norm(place[:, :2] - spot[:2], axis=1) / np.ptp(own[:, 0])
            tone = np.where(((parts == EYE) & (away < 0.22))[:, None], [0.2, 0.12, 0.08], tone)
        colour[where[nearer]] = (tone * shade[:, None])[nearer]
    picture = (colour.reshape(size, size, 3) * 255).clip(0, 255).astype(np.uint8)
    return picture, middle, float(span)


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
