"""What the built-in re-enactor keeps of an expression and of an identity, and what it costs.

    python -m benchmarks.reenact [--clips 16] [--size 256] [-o SHEET.png]
    python -m benchmarks.reenact --videos DIR --faces DIR [-o SHEET.png]

Without --videos the clips are synthetic (landmarks exact) and the faces are the synthetic gallery's. With them heads
are cut out of the videos, landmarks come from MediaPipe, and the re-enacted pictures are looked at by MediaPipe once
more: what it reads off their pixels, not what the re-enactor says it painted, is compared with the videos. How far it
agrees with itself on mirrored frames is printed beside, as no comparison can do better.

Printed are correlations of the expression over the frames, where proportions and skin lie between the target's (0)
and the source's own (1), and milliseconds a frame, without and with the file of `cache_faces`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from xdyna import media
from xdyna.conditions.detect import make_detector
from xdyna.conditions.face import FaceTracker
from xdyna.conditions.track import track
from xdyna.data.reenact import (
    STILL_LIFE,
    CachedFaces,
    CacheJob,
    Face,
    Gallery,
    Reenactor,
    agreement,
    cache_faces,
    folder_gallery,
    synthetic_gallery,
)
from xdyna.data.reenact.geometry import MIRRORED
from xdyna.data.reenact.measure import EXPRESSION_NAMES, Agreement
from xdyna.data.synthetic import HELD_OUT_SEED, make_batch

Frames = tuple[np.ndarray, np.ndarray]


def synthetic_clips(count: int, size: int) -> Iterator[tuple[str, Frames]]:
    for number in range(count):
        batch = make_batch(
            HELD_OUT_SEED + number, 1, frames=31, size=(size, size), human_share=1.0, maps=False
        )
        frames = (batch.frames[0].permute(0, 2, 3, 1).numpy() * 255 + 0.5).astype(np.uint8)
        yield f"synthetic {number}", (frames, batch.face[0].numpy())


def video_clips(folder: Path) -> Iterator[tuple[str, Frames]]:
    """Heads cut out of videos, enlarged to 512 pixels: a detector sees more of small faces there."""
    for path in sorted(folder.glob("*.mp4")):
        frames = media.read_clip(path).frames
        whole = detected(frames, path.name)
        points = whole[(whole[..., 2] > 0).all(1)][..., :2]
        centre, side = np.median(points, (0, 1)), 3.2 * float(np.median(np.ptp(points, axis=1)))
        left, top = (max(int(n), 0) for n in centre - side / 2)
        part = frames[:, top : top + int(side), left : left + int(side)]
        heads = np.stack([cv2.resize(frame, (512, 512), interpolation=cv2.INTER_CUBIC) for frame in part])
        clip = heads, detected(heads, path.name)
        mirrored = detected(heads[:, :, ::-1], f"{path.name} mirrored")[:, MIRRORED]
        mirrored[..., 0] = 512 - mirrored[..., 0]
        own = agreement(clip, (heads, mirrored), (heads[0] // 2, clip[1][0]))
        print(f"{path.stem}, the detector on mirrored frames against itself: {_line(own).split(' |')[0]}")
        yield path.stem, clip


def detected(frames: np.ndarray, name: str) -> np.ndarray:
    return track(make_detector("mediapipe", max_people=1).stream(frames), source=name, smooth=False).face


def strip(target: Frames, shown: Frames, face: Face) -> list[list[np.ndarray]]:
    """Rows of a sheet: the target's frames, and what S-Face sees of the re-enacted ones, global and local."""
    local, whole, theirs = FaceTracker(), FaceTracker(), FaceTracker()
    rows: list[list[np.ndarray]] = [[], [], []]
    picks = set(np.linspace(0, len(target[0]) - 1, 8).astype(int).tolist())
    for index in range(len(target[0])):
        views = (
            theirs.step(target[0][index], target[1][index])[1],
            whole.step(shown[0][index], shown[1][index])[1],
            local.step(shown[0][index], shown[1][index])[0],
        )
        points = target[1][index]
        if index in picks and (points[:, 2] > 0).all():
            centre, reach = points[:, :2].mean(0), 1.6 * float(np.ptp(points[:, :2], axis=0).max())
            (left, top), (right, bottom) = (np.maximum(centre + s * reach, 0).astype(int) for s in (-1, 1))
            for row, view in zip(rows, views, strict=True):
                row.append(view[top:bottom, left:right])
    rows[1].insert(0, face.picture)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    gallery = folder_gallery(args.faces) if args.faces else synthetic_gallery()
    clips = video_clips(args.videos) if args.videos else synthetic_clips(args.clips, args.size)
    results: list[Agreement] = []
    rows: list[list[np.ndarray]] = []
    warp, cached = [], []
    for number, (name, target) in enumerate(clips):
        faces = gallery.faces if args.videos else [gallery.faces[(7 * number) % len(gallery)]]
        for face in faces:
            source = Reenactor(Gallery((face,)), STILL_LIFE)
            begin = time.perf_counter()
            shown = source(*target, generator=np.random.default_rng(number))
            warp.append((time.perf_counter() - begin) / len(target[0]))
            seen = (shown[0], detected(shown[0], f"{face.name} as {name}")) if args.videos else shown
            results.append(agreement(target, seen, (face.picture, face.landmarks)))
            print(f"{name} by {face.name}: {_line(results[-1])}")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "face.npz")
                cache_faces(CacheJob(path, name, lambda made=target: made, source, "benchmark", number))
                begin = time.perf_counter()
                stored = CachedFaces(path)
                for index in range(len(stored)):
                    stored.picture(index)
                cached.append((time.perf_counter() - begin) / len(stored))
                size = path.stat().st_size / len(stored) / 1024
            if len(rows) < 24:
                rows += strip(target, shown, face)
    medians = Agreement(
        {name: float(np.nanmedian([r.expression[name] for r in results])) for name in EXPRESSION_NAMES},
        float(np.nanmedian([r.proportions for r in results])),
        float(np.nanmedian([r.colour for r in results])),
    )
    print(f"median of {len(results)}: {_line(medians)}")
    print(
        f"{1000 * np.mean(warp):.1f} ms a frame to re-enact, {1000 * np.mean(cached):.2f} ms from the file,"
    )
    print(f"which holds {size:.1f} KiB a frame (the last one)")
    if args.output:
        media.write_image(args.output, media.sheet(rows, height=140), ai_generated=False)


def _line(found: Agreement) -> str:
    words = [f"{name} {value:.2f}" for name, value in found.expression.items()]
    return " ".join([*words, f"| proportions {found.proportions:.2f} colour {found.colour:.2f}"])


if __name__ == "__main__":
    main()
