"""The detectors by name."""

from __future__ import annotations

from pathlib import Path

from xdyna.conditions.people import Detector, Person
from xdyna.errors import OptionError

__all__ = ["DETECTORS", "Detector", "Person", "make_detector"]

DETECTORS = ("mediapipe", "dwpose")
"""Detectors that find people in pictures; ready keypoints are read by `given.read_keypoints`."""


def make_detector(
    name: str,
    *,
    still: bool = False,
    folder: str | Path | None = None,
    max_people: int = 4,
    masks: bool = False,
) -> Detector:
    """Make a detector.

    Args:
        name: "mediapipe" (offline, nothing to fetch) or "dwpose" (as the official pose videos were made).
        still: the frames are unrelated pictures, not a clip.
        folder: where DWPose's two ONNX files lie; only for "dwpose".
        max_people: how many people to find at most.
        masks: also return each person's mask; only "mediapipe" has masks.

    Raises:
        OptionError: an unknown name, or options that do not go together.
        InputError: DWPose's files are not in `folder`.
        MissingPackage: when frames are streamed (mediapipe) or at once (dwpose).
    """
    if max_people < 1:
        raise OptionError("max_people", f"must be 1 or more, got {max_people}")
    if name == "mediapipe":
        from xdyna.conditions.mediapipe import MediapipeDetector

        return MediapipeDetector(still=still, max_people=max_people, masks=masks)
    if name == "dwpose":
        from xdyna.conditions.dwpose import DwposeDetector

        if folder is None:
            raise OptionError(
                "--detector dwpose", "needs its two ONNX files", "Name their folder with --dwpose DIR"
            )
        if masks:
            raise OptionError("masks", "dwpose has none", "Use --detector mediapipe")
        return DwposeDetector(folder, max_people=max_people)
    if name == "given":
        raise OptionError("--detector given", "needs ready keypoints", "Name them with --keypoints PATH")
    raise OptionError("--detector", f"{name!r} is not one of {', '.join(DETECTORS)}")
