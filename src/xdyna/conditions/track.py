"""One person through a clip: whom to follow, what to fill in where they were missed, and how to smooth."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from xdyna.conditions.keypoints import PARTS, Keypoints
from xdyna.conditions.people import Person, overlap
from xdyna.errors import InputError, OptionError

log = logging.getLogger(__name__)

MIN_SCORE = 0.3
"""Points scored lower count as missing (DWPose's threshold)."""

MAX_GAP = 8
"""Longest gap in frames that is filled."""

SMOOTHING_RADIUS = 3
"""How many frames to each side smoothing looks at."""

JITTER = {"body": 0.006, "left_hand": 0.05, "right_hand": 0.05, "face": 0.01}
"""What counts as jitter, as a share of the part's extent; smoothing moves no point by more than half of it."""

_WRISTS = {"left_hand": 7, "right_hand": 4}


def track(
    stream: Iterable[list[Person]],
    *,
    person: int | None = None,
    source: str | Path = "video",
    min_score: float = MIN_SCORE,
    max_gap: int = MAX_GAP,
    smooth: bool = True,
) -> Keypoints:
    """Follow one person through a detector's stream.

    Args:
        stream: the people of each frame, as `Detector.stream` gives them.
        person: which person, 1 the largest; None takes the largest and warns when there are several.
        source: what messages call the clip, the file's path as a rule.
        min_score: points scored lower count as missing.
        max_gap: gaps of up to so many frames between two sightings of a point are interpolated.
        smooth: whether to smooth (see `smoothed`).

    Returns:
        The person's keypoints, one frame for each of the stream; frames without the person are all 0.

    Raises:
        InputError: nobody anywhere, or the person is missing in more than half of the frames, or no frames.
        OptionError: no such person, or an option out of its range.
    """
    if not 0 <= min_score <= 1:
        raise OptionError("min_score", f"must be in [0, 1], got {min_score}")
    if max_gap < 0:
        raise OptionError("max_gap", f"must be 0 or more frames, got {max_gap}")
    if person is not None and person < 1:
        raise OptionError("person", f"people are counted from 1, got {person}")
    tracks, frames = _linked(stream)
    if frames == 0:
        raise InputError(source, "has no frames", "Give a video that plays")
    if not tracks:
        raise InputError(
            source,
            f"no person found in any of {frames} frames" if frames > 1 else "no person found",
            "Give a picture or clip in which a person can be made out, or lower --min-score",
        )
    chosen = _chosen(tracks, frames, person, source)
    clip = _assembled(chosen, frames)
    missing = [index for index in range(frames) if index not in chosen.seen]
    if len(missing) > frames / 2:
        raise InputError(
            source,
            f"no person found in {len(missing)} of {frames} frames (first: {missing[0]})",
            "Trim the clip or lower --min-score",
        )
    if missing:
        log.warning(
            "%s: no person found in %d of %d frames (first: %d)", source, len(missing), frames, missing[0]
        )
    clip = without_weak(clip, min_score)
    clip = filled(clip, max_gap)
    return smoothed(clip) if smooth else clip


def without_weak(keypoints: Keypoints, min_score: float) -> Keypoints:
    """Points scored below `min_score` or not finite become missing: all 0."""

    def strong(points: np.ndarray) -> np.ndarray:
        keep = (points[..., 2] >= min_score) & (points[..., 2] > 0) & np.isfinite(points).all(-1)
        return np.where(keep[..., None], points, 0).astype(np.float32)

    return Keypoints(**{name: strong(getattr(keypoints, name)) for name in PARTS}, size=keypoints.size)


def filled(keypoints: Keypoints, max_gap: int) -> Keypoints:
    """Missing points between two sightings at most `max_gap` + 1 frames apart, interpolated in a line.

    A hand is interpolated relative to its wrist, which is seen more often, so that it stays on the arm. What
    is missing at the clip's beginning or end stays missing. A filled point gets the lower of the two scores.
    """
    body = _filled_points(keypoints.body, max_gap)
    parts = {"body": body, "face": _filled_points(keypoints.face, max_gap)}
    for name, wrist in _WRISTS.items():
        hand = getattr(keypoints, name).copy()
        anchor = body[:, wrist : wrist + 1]
        known = anchor[..., 2] > 0
        hand[..., :2] -= np.where(known[..., None], anchor[..., :2], 0)
        relative = np.where(known[..., None], hand, 0)
        relative = _filled_points(relative, max_gap)
        relative[..., :2] += np.where(relative[..., 2:] > 0, anchor[..., :2], 0)
        # Where the wrist is unknown the hand stays as it was seen.
        parts[name] = np.where(known[..., None], relative, getattr(keypoints, name)).astype(np.float32)
    return Keypoints(**parts, size=keypoints.size)


def smoothed(keypoints: Keypoints, *, radius: int = SMOOTHING_RADIUS) -> Keypoints:
    """Remove jitter without delaying or shrinking motion.

    Each point's path is fitted by a parabola around each frame (a Savitzky-Golay filter with weights: the
    nearer and the surer a sighting, the more it counts), looking as far ahead as back, so nothing lags. Where
    the path departs from the parabola by much more than `JITTER`, that is motion and is kept: of a departure r
    the share r^2 / (r^2 + jitter^2) stays. No point moves by more than half the jitter.
    """
    parts = {}
    for name in PARTS:
        points = getattr(keypoints, name)
        parts[name] = _smoothed_points(points, radius, JITTER[name] * _extent(points))
    return Keypoints(**parts, size=keypoints.size)


@dataclass
class _Track:
    """One person's sightings: frame index to person, without the masks."""

    seen: dict[int, Person] = field(default_factory=dict)

    @property
    def last(self) -> tuple[int, Person]:
        return next(reversed(self.seen.items()))

    def area(self) -> float:
        """Area of the boxes summed over the frames: large people who stay count most."""
        return sum((b[2] - b[0]) * (b[3] - b[1]) for b in (p.box for p in self.seen.values()))


def _linked(stream: Iterable[list[Person]]) -> tuple[list[_Track], int]:
    tracks: list[_Track] = []
    frames = 0
    for index, people in enumerate(stream):
        frames = index + 1
        pairs = sorted(
            (
                (_likeness(known, person, index), t, p)
                for t, known in enumerate(tracks)
                for p, person in enumerate(people)
            ),
            reverse=True,
        )
        free_tracks, free_people = set(range(len(tracks))), set(range(len(people)))
        for likeness, t, p in pairs:
            if likeness > 0 and t in free_tracks and p in free_people:
                tracks[t].seen[index] = replace(people[p], mask=None)
                free_tracks.discard(t)
                free_people.discard(p)
        for p in sorted(free_people):
            tracks.append(_Track({index: replace(people[p], mask=None)}))
    return tracks, frames


def _likeness(known: _Track, person: Person, index: int) -> float:
    """How likely `person` is the one of `known`: positive where it may be.

    Overlapping boxes are; so are boxes near each other for their size, the nearer the longer unseen.
    """
    last, before = known.last
    both = overlap(before.box, person.box)
    if both > 0:
        return both
    a, b = np.array(before.box), np.array(person.box)
    size = max(b[2] - b[0], b[3] - b[1], a[2] - a[0], a[3] - a[1], 1e-6)
    distance = float(np.abs((a[:2] + a[2:] - b[:2] - b[2:]) / 2).max()) / size
    reach = min(1.0, 0.4 + 0.1 * (index - last))
    return 0.01 * (1 - distance / reach)


def _chosen(tracks: list[_Track], frames: int, person: int | None, source: str | Path) -> _Track:
    ranked = sorted(tracks, key=_Track.area, reverse=True)
    # Passers-by and ghosts of a few frames are not counted, but for when nothing else is there.
    people = [t for t in ranked if len(t.seen) >= 0.1 * frames] or ranked[:1]
    if person is None:
        if len(people) > 1:
            log.warning(
                "%s: %d people found; following the largest. Choose another with --person",
                source,
                len(people),
            )
        return people[0]
    if person > len(people):
        found = "1 person was" if len(people) == 1 else f"{len(people)} people were"
        raise OptionError(
            "person", f"{person} was asked for but {found} found in {source}", f"Give 1 to {len(people)}"
        )
    return people[person - 1]


def _assembled(chosen: _Track, frames: int) -> Keypoints:
    size = chosen.last[1].keypoints.size
    clip = Keypoints.empty(frames, size)
    for index, person in chosen.seen.items():
        for name in PARTS:
            getattr(clip, name)[index] = getattr(person.keypoints, name)[0]
    return clip


def _filled_points(points: np.ndarray, max_gap: int) -> np.ndarray:
    """(f n 3) -> (f n 3)."""
    out = points.astype(np.float32).copy()
    for n in range(points.shape[1]):
        seen = np.flatnonzero(points[:, n, 2] > 0)
        for before, after in zip(seen[:-1], seen[1:], strict=True):
            if 1 < after - before <= max_gap + 1:
                share = (np.arange(before + 1, after) - before)[:, None] / (after - before)
                ends = points[before, n], points[after, n]
                out[before + 1 : after, n] = (1 - share) * ends[0] + share * ends[1]
                out[before + 1 : after, n, 2] = min(ends[0][2], ends[1][2])
    return out


def _extent(points: np.ndarray) -> float:
    """Median over the frames of the longer side of the box round the points of (f n 3); 0 when none is seen."""
    sides = []
    for frame in points:
        seen = frame[frame[:, 2] > 0, :2]
        if len(seen) > 1:
            sides.append(float(np.ptp(seen, axis=0).max()))
    return float(np.median(sides)) if sides else 0.0


def _smoothed_points(points: np.ndarray, radius: int, jitter: float) -> np.ndarray:
    """(f n 3) -> (f n 3); a point needs 4 sightings in its window, as through 3 every parabola goes exactly."""
    frames = len(points)
    if frames < 4 or radius < 2 or jitter <= 0:
        return points
    offsets = np.arange(-radius, radius + 1)
    index = np.arange(frames)[:, None] + offsets
    inside = (index >= 0) & (index < frames)
    window = points[index.clip(0, frames - 1)].astype(np.float64)  # f k n 3
    near = (1 - np.abs(offsets / (radius + 1)) ** 3) ** 3
    weight = window[..., 2] * near[:, None] * inside[..., None]
    basis = (offsets[:, None] / radius) ** np.arange(3)  # k 3
    normal = np.einsum("fkn,ki,kj->fnij", weight, basis, basis)
    right = np.einsum("fkn,ki,fknc->fnic", weight, basis, window[..., :2])
    seen = points[..., 2] > 0
    enough = ((weight > 0).sum(1) >= 4) & seen
    normal = np.where(enough[..., None, None], normal, np.eye(3))
    fitted = np.linalg.solve(normal, right)[..., 0, :]  # the parabola's value at the frame itself
    departure = points[..., :2] - fitted
    square = (departure**2).sum(-1, keepdims=True)
    moved = fitted + departure * square / (square + jitter**2)
    out = points.copy()
    out[..., :2] = np.where(enough[..., None], moved, points[..., :2])
    return out
