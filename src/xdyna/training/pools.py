"""The pools of a run: which stages share one, where each stands, and their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from xdyna.training.chunks import make_chunks
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.pool import Pool
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES


class Pools:
    """Pools by what they hold; stages with the same needs share one.

    Args:
        config: of the run.
        folder: the run's.
        processes: this process among those of the run.

    Attributes:
        cursors: where each pool stands or stood: chunks made, and fresh clips it owes.
    """

    def __init__(self, config: TrainConfig, folder: Path, processes: Processes) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.cursors: dict[str, tuple[int, float]] = {}
        self._pools: dict[str, Pool] = {}

    def enter(self, number: int) -> Pool:
        """The pool of the config's stage `number`, filled; those that no stage from here on needs are let go."""
        name, key = self.config.stages[number], self._key(self.config.stages[number])
        needed = {self._key(following) for following in self.config.stages[number:]}
        for other in [other for other in self._pools if other not in needed]:
            self._pools.pop(other).close()
        if key not in self._pools:
            self._pools[key] = pool = self._new(name)
            cursor, debt = self.cursors.get(key, (0, 0.0))
            pool.fill(cursor=cursor, cache=self._file(key))
            pool.debt = debt
            if self.config.runtime.save_pools:
                pool.save(self._file(key))
        return self._pools[key]

    def places(self) -> dict[str, tuple[int, float]]:
        """`cursors` as of now."""
        self.cursors.update({key: (pool.cursor, pool.debt) for key, pool in self._pools.items()})
        return self.cursors

    def save(self) -> None:
        """Write what was made since the pools were filled, if the config wants that."""
        if self.config.runtime.save_pools:
            for key, pool in self._pools.items():
                if pool.refresh:
                    pool.save(self._file(key))

    def close(self) -> None:
        """Let go of what makes clips beside the training."""
        for pool in self._pools.values():
            pool.close()

    def _new(self, name: str) -> Pool:
        stage, settings = STAGES[name], shared_out(self.config, name, self.processes)
        frames = settings.rendered or settings.frames
        chunks = make_chunks(
            self.config,
            frames,
            scatter=stage.scatter,
            humans_only=stage.humans_only,
            rank=self.processes.rank,
            count=self.processes.count,
        )
        return Pool(
            chunks,
            settings.pool,
            chunk=self.config.data.chunk,
            frames=frames,
            refresh=settings.refresh,
            loss=self.config.loss,
            scatter=stage.scatter,
            device=self.processes.device,
            unit=self.config.model.unit,
            workers=self.config.runtime.workers,
            # what a stage that ends by the clock does in its time is up to the machine anyway
            patient=not settings.minutes,
        )

    def _key(self, name: str) -> str:
        stage, settings = STAGES[name], self.config.stage(name)
        kind = ("scattered" if stage.scatter else "consecutive") + ("-people" if stage.humans_only else "")
        return f"{kind}-{settings.rendered or settings.frames}-{settings.pool}-{settings.refresh:g}"

    def _file(self, key: str) -> Path:
        rank = f"-{self.processes.rank}" if self.processes.rank else ""
        return self.folder / f"pool-{key}{rank}.safetensors"


def shared_out(config: TrainConfig, name: str, processes: Processes) -> StageConfig:
    """A stage's settings with this process's part of the batch and of the pool.

    Raises:
        OptionError: a batch that the processes cannot share.
    """
    settings = config.stage(name)
    return dataclasses.replace(
        settings,
        batch=processes.share(settings.batch, f"{name}.batch"),
        pool=-(-settings.pool // processes.count),
    )
