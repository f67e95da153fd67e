"""What is compared with what: the clips of up to four folders paired by name, everything checked before any work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from xdyna.errors import InputError
from xdyna.evaluation.clips import ClipFiles, check_names, find_clips, listed


@dataclass(frozen=True)
class Pair:
    """One generated clip and what it is measured against.

    Attributes:
        name: of the clip.
        pred: the generated clip.
        truth: what it should have been; None in cross-driving, where nobody knows.
        driving: who drove it.
        masks: of the true person.
        frames: how many frames are compared, from the first.
        pred_size, truth_size: (height, width).
    """

    name: str
    pred: ClipFiles
    truth: ClipFiles | None
    driving: ClipFiles | None
    masks: ClipFiles | None
    frames: int
    pred_size: tuple[int, int]
    truth_size: tuple[int, int] | None

    @property
    def resized(self) -> bool:
        """Whether generated frames are brought to the true size."""
        return self.truth_size is not None and self.truth_size != self.pred_size

    def digest(self) -> str:
        """A hash of the content of everything in the pair and of how many frames count."""
        found = hashlib.sha256(str(self.frames).encode())
        for part in (self.pred, self.truth, self.driving, self.masks):
            found.update((part.digest() if part else "-").encode())
        return found.hexdigest()

    def read_pred(self) -> np.ndarray:
        """(f h w 3) uint8 at the true size; resized as DisCo's tool does (bilinear, OpenCV)."""
        return at_size(self.pred.read(limit=self.frames), self.truth_size)

    def read_truth(self) -> np.ndarray:
        """(f h w 3) uint8."""
        assert self.truth is not None
        return self.truth.read(limit=self.frames)

    def read_driving(self) -> np.ndarray:
        """(f h w 3) uint8, at its own size."""
        assert self.driving is not None
        return self.driving.read(limit=self.frames)

    def read_masks(self) -> np.ndarray | None:
        """(f h w) bool at the true size, or None where the pair has no masks."""
        if self.masks is None:
            return None
        grey = at_size(self.masks.read(limit=self.frames), self.truth_size or self.pred_size)
        return np.asarray(grey.max(-1) >= 128)


def pair_up(
    pred: str | Path,
    *,
    truth: str | Path | None = None,
    driving: str | Path | None = None,
    masks: str | Path | None = None,
    frames: int | None = None,
    partial: bool = False,
) -> list[Pair]:
    """Pair the clips of these folders.

    Args:
        pred, truth, driving, masks: folders, see `clips`.
        frames: compare the first so many frames only; None compares all, which must then be equally many.
        partial: leave out clips that are not in every folder.

    Raises:
        InputError: folders that hold no clips, names or counts that do not agree, frames that cannot be read.
    """
    generated = find_clips(pred, "--pred")
    others: dict[str, dict[str, ClipFiles]] = {}
    names = sorted(generated)
    for kind, folder in (("truth", truth), ("driving", driving), ("masks", masks)):
        if folder is not None:
            others[kind] = find_clips(folder, f"--{kind}")
            shared = check_names(generated, others[kind], kind=f"--{kind}", partial=partial)
            names = [name for name in names if name in shared]
    if not names:
        raise InputError(str(pred), "no clip is in all of the folders", "Name clips alike in all folders")
    pairs, problems, uneven = [], [], []
    for name in names:
        parts = {kind: clips[name] for kind, clips in others.items()}
        counts = {"pred": generated[name].count()} | {kind: clip.count() for kind, clip in parts.items()}
        least = min(counts.values())
        wanted = frames or counts["pred"]
        if least < wanted or (
            frames is None and len({counts[k] for k in ("pred", "truth") if k in counts}) > 1
        ):
            problems.append(f"{name} ({', '.join(f'{kind} {count}' for kind, count in counts.items())})")
            continue
        if len({clip.gaps(wanted) for clip in (generated[name], *parts.values())}) > 1:
            uneven.append(name)
            continue
        true = parts.get("truth")
        pairs.append(
            Pair(
                name, generated[name], true, parts.get("driving"), parts.get("masks"), wanted,
                generated[name].size(), true.size() if true else None,
            )
        )  # fmt: skip
    if problems:
        asked = f"fewer than {frames} frames" if frames else "different numbers of frames"
        raise InputError(
            str(pred), f"{asked}: {listed(problems)}", "Compare the first N frames of each with --frames N"
        )
    if uneven:
        raise InputError(
            str(pred), f"frames are missing within {listed(uneven)}: their numbers leave gaps in one folder only",
            "Complete the frames, so that the same ones are compared",
        )  # fmt: skip
    return pairs


def at_size(frames: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """(f h w 3) uint8 at (height, width), bilinear as cv2.resize's default; None leaves them alone."""
    if size is None or frames.shape[1:3] == size:
        return frames
    return np.stack(
        [cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for frame in frames]
    )
