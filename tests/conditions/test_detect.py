from __future__ import annotations

import pytest

from xdyna.conditions.detect import DETECTORS, make_detector
from xdyna.conditions.mediapipe import MediapipeDetector
from xdyna.errors import OptionError


def test_the_default_needs_nothing() -> None:
    assert DETECTORS[0] == "mediapipe"
    detector = make_detector("mediapipe", still=True, max_people=2, masks=True)
    assert isinstance(detector, MediapipeDetector)
    assert (detector.still, detector.max_people, detector.masks) == (True, 2, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("openpose", {}, "'openpose' is not one of mediapipe, dwpose"),
        ("dwpose", {}, "Name their folder with --dwpose"),
        ("dwpose", {"folder": "x", "masks": True}, "dwpose has none"),
        ("given", {}, "Name them with --keypoints"),
        ("mediapipe", {"max_people": 0}, "must be 1 or more"),
    ],
)
def test_bad_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_detector(name, **options)
