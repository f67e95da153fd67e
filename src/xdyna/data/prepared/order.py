"""In which order training goes through human and scene clips (harmonic data fusion)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from xdyna.data.prepared.manifest import ClipRow
from xdyna.errors import OptionError


class MixedOrder:
    """An endless order of (index, draw) keys for a `ClipDataset`, in which a set share are scenes.

    Every kind is gone through in shuffled epochs: each clip once, then each again in another order with its next
    draw. What stands at a place follows from the place alone, so a run goes on where it stopped, and process r of n
    takes the places r, r + n, r + 2 n, ...

    Args:
        rows: of the dataset.
        scene_share: share of scenes, 0 to 1.
        seed: of the order.

    Raises:
        OptionError: a share out of range, or one that asks for a kind of which there is no clip.
    """

    def __init__(self, rows: Sequence[ClipRow], *, scene_share: float, seed: int = 0) -> None:
        if not 0 <= scene_share <= 1:
            raise OptionError("scene_share", f"got {scene_share}, it must be from 0 to 1")
        self.scene_share, self.seed = scene_share, seed
        self._places = {
            kind: [index for index, row in enumerate(rows) if row.kind == kind] for kind in ("human", "scene")
        }
        for kind, share in (("scene", scene_share), ("human", 1 - scene_share)):
            if share > 0 and not self._places[kind]:
                raise OptionError("scene_share", f"is {scene_share}, but the manifest has no {kind} clips")
        self._shuffled = lru_cache(4)(self._shuffle)

    def __getitem__(self, place: int) -> tuple[int, int]:
        """(index, draw) at a place, counted from 0."""
        scenes = self._scenes_before(place)
        is_scene = self._scenes_before(place + 1) > scenes
        kind, number = ("scene", scenes) if is_scene else ("human", place - scenes)
        epoch, within = divmod(number, len(self._places[kind]))
        return int(self._shuffled(kind, epoch)[within]), epoch

    def epochs(self, place: int, kind: str) -> float:
        """How often the clips of a kind were gone through before a place."""
        scenes = self._scenes_before(place)
        count = len(self._places[kind])
        return (scenes if kind == "scene" else place - scenes) / count if count else 0.0

    def _scenes_before(self, place: int) -> int:
        # The small number keeps shares such as 0.1, which are not exact, from falling just short.
        return math.floor(place * self.scene_share + 1e-9)

    def _shuffle(self, kind: str, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self.seed, epoch, kind == "scene"))
        return generator.permutation(self._places[kind])
