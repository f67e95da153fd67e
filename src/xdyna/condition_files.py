"""`xdyna conditions`: what the networks get to see of a driving video, as files to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xdyna import media
from xdyna.animate import refuse_existing
from xdyna.condition_clips import ConditionClips, Progress, make_conditions
from xdyna.driving import canvas_size, open_driving
from xdyna.model_preset import ModelPreset
from xdyna.options import AnimateOptions
from xdyna.weights import read_preset, resolve

PREVIEW_FRAMES = 6
"""Frames shown on the preview sheet."""

PREVIEW_HEIGHT = 320
"""Height of its pictures, in pixels."""


def write_conditions(
    video: str | Path,
    folder: str | Path,
    *,
    reference: str | Path | None = None,
    model: str | None = None,
    options: AnimateOptions,
    progress: Progress | None = None,
) -> list[Path]:
    """Write pose.mp4, face.mp4, keypoints.npz and preview.png into `folder`.

    Args:
        video: the driving video.
        folder: made if it does not exist.
        reference: picture to align to; without one, poses stay where the driver is.
        model: whose size is taken, and who may be shown the face's landmarks; None for the published model.
        options: as for `xdyna animate`.
        progress: called with (part, done, total or None).

    Returns:
        The files written; no keypoints.npz for a ready pose video.

    Raises:
        InputError, WeightsError, OutputError: an input, or the model, that cannot be read; a result that is there.
    """
    folder = Path(folder).expanduser()
    pose_path, face_path, npz_path, sheet_path = (
        folder / name for name in ("pose.mp4", "face.mp4", "keypoints.npz", "preview.png")
    )
    for path in (pose_path, face_path, npz_path, sheet_path):
        refuse_existing(path, options.overwrite)
    driving = open_driving(video, options)
    picture = None if reference is None else media.read_image(reference)
    preset = ModelPreset() if model is None else read_preset(resolve(model))
    # the area of the model's size in the aspect of the reference, or of the driver
    canvas = canvas_size(driving.size if picture is None else picture.shape[:2], options.size, preset)
    target = None if picture is None else media.crop_to(picture, canvas)
    with make_conditions(
        driving, target, options=options, canvas=canvas, landmarks=preset.landmarks,
        reference_name=str(reference), progress=progress,
    ) as clips:  # fmt: skip
        for path, frames in ((pose_path, _poses(clips)), (face_path, _faces(clips))):
            with media.ClipWriter(
                path, size=canvas, fps=clips.fps, overwrite=options.overwrite, ai_generated=False
            ) as writer:
                for frame in frames:
                    writer.write(frame)
        written = [pose_path, face_path]
        if clips.keypoints is not None:
            clips.keypoints.save(npz_path)
            written.append(npz_path)
        spread = np.linspace(0, clips.frames - 1, min(PREVIEW_FRAMES, clips.frames))
        chosen: list[int] = spread.round().astype(int).tolist()
        drivers = [frame for index, frame in enumerate(driving) if index in chosen]
        rows = [
            drivers,
            list(clips.pose(chosen)),
            list(clips.face_local(chosen)),
            list(clips.face_global(chosen)),
        ]
        labels = ["driving", "pose", "face patches", "face box"]
        if target is not None:
            rows.insert(0, [target] * len(drivers))
            labels.insert(0, "reference")
        media.write_image(
            sheet_path,
            media.sheet(rows, labels=labels, height=PREVIEW_HEIGHT),
            overwrite=options.overwrite,
            ai_generated=False,
        )
        return [*written, sheet_path]


def _poses(clips: ConditionClips) -> Iterator[np.ndarray]:
    for index in range(clips.frames):
        yield clips.pose([index])[0]


def _faces(clips: ConditionClips) -> Iterator[np.ndarray]:
    """Patches over the face box, which is shown at half brightness."""
    for index in range(clips.frames):
        yield np.maximum(clips.face_local([index])[0], clips.face_global([index])[0] // 2)
