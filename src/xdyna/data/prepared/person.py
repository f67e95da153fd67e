"""The person of a clip: keypoints and masks of whoever is followed, and how well they are to be seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from xdyna.conditions.detect import Person, make_detector
from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.conditions.track import MAX_GAP, track
from xdyna.data.prepared.caches import pack_mask
from xdyna.data.prepared.options import PrepareOptions

_NEAR = 0.2
"""How far, as a share of the person's height, somebody found may be from the person followed to be the same."""


@dataclass(frozen=True)
class Found:
    """A clip's person.

    Attributes:
        keypoints: a frame for each of the clip's.
        masks: a PNG for each frame (`caches.pack_mask`), empty where the person is not; None without masks.
        person: share of frames in which the person was found.
        face: share of frames with a face.
        height: the person's height as a share of the frame's, the median.
        people: how many people are seen in a tenth of the frames or more.
    """

    keypoints: Keypoints
    masks: list[bytes] | None
    person: float
    face: float
    height: float
    people: int


@dataclass(frozen=True)
class _Sighting:
    body: np.ndarray
    mask: bytes | None


def follow(frames: Iterator[np.ndarray], *, options: PrepareOptions, source: str) -> Found:
    """Find and follow the largest person.

    Args:
        frames: (h w 3) uint8 each; none is kept.
        options: the detector and its settings.
        source: how messages call the clip.

    Raises:
        InputError: nobody in it, or missing in more than half of the frames.
    """
    masks = options.masks and options.detector == "mediapipe"
    detector = make_detector(options.detector, folder=options.dwpose, masks=masks)
    seen: list[list[_Sighting]] = []

    def noted() -> Iterator[list[Person]]:
        for people in detector.stream(frames):
            seen.append([_sighting(person) for person in people])
            yield people

    with _nothing_about_others():
        keypoints = track(noted(), source=source, min_score=options.min_score)
    chosen = [_same(keypoints, index, people) for index, people in enumerate(seen)]
    counts = np.array([len(people) for people in seen])
    people = max(k for k in range(1, int(counts.max()) + 1) if k == 1 or (counts >= k).mean() >= 0.1)
    return Found(
        keypoints=keypoints,
        masks=_masks(keypoints, chosen) if masks else None,
        person=float(np.mean([sighting is not None for sighting in chosen])),
        face=float((keypoints.face[..., 2] > 0).any(1).mean()),
        height=_height(keypoints),
        people=people,
    )


@contextmanager
def _nothing_about_others() -> Iterator[None]:
    """Without the tracker's remarks, which are about one video that a user is animating."""
    logger = logging.getLogger("xdyna.conditions.track")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _sighting(person: Person) -> _Sighting:
    return _Sighting(person.keypoints.body[0].copy(), None if person.mask is None else pack_mask(person.mask))


def _same(keypoints: Keypoints, index: int, people: list[_Sighting]) -> _Sighting | None:
    """Who of the people of frame `index` is the one followed."""
    body = keypoints.body[index]
    there = body[:, 2] > 0
    if not there.any():
        return None
    best, least = None, _NEAR * max(float(np.ptp(body[there, 1])), 0.2 * float(np.ptp(body[there, 0])), 1.0)
    for sighting in people:
        both = there & (sighting.body[:, 2] > 0)
        if both.any():
            apart = float(np.linalg.norm(body[both, :2] - sighting.body[both, :2], axis=1).mean())
            if apart <= least:
                best, least = sighting, apart
    return best


def _masks(keypoints: Keypoints, chosen: list[_Sighting | None]) -> list[bytes]:
    """A mask a frame; where the person's place was filled in between two sightings, the nearest one's."""
    empty = pack_mask(np.zeros(keypoints.size, np.uint8))
    known = [index for index, sighting in enumerate(chosen) if sighting is not None and sighting.mask]
    masks = []
    for index in range(len(chosen)):
        nearest = min(known, key=lambda other: abs(other - index), default=None)
        there = (keypoints.body[index, :, 2] > 0).any()
        if nearest is None or not there or abs(nearest - index) > MAX_GAP:
            masks.append(empty)
            continue
        sighting = chosen[nearest]
        assert sighting is not None
        assert sighting.mask is not None
        masks.append(sighting.mask)
    return masks


def _height(keypoints: Keypoints) -> float:
    """Median over the frames of the height of the box round all points, as a share of the frame's, at most 1."""
    heights = []
    for index in range(len(keypoints)):
        points = np.concatenate([getattr(keypoints, name)[index] for name in PARTS])
        y = points[points[:, 2] > 0, 1]
        if len(y):
            heights.append(float(np.ptp(y.clip(0, keypoints.size[0]))) / keypoints.size[0])
    return float(np.median(heights)) if heights else 0.0
