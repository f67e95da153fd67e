"""The pools of a run: which stages share one, where each stands, and their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from xdyna.training.chunks import make_chunks
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.pool import Pool, Standing
from xdyna.training.processes import Processes
from xdyna.training.stages import STAGES


class Pools:
    """Pools by what they hold; stages with the same needs share one.

    Args:
        config: of the run.
        folder: the run's.
        processes: this process among those of the run.

    Attributes:
        stood: where each pool stood when a run was saved, or a stage left it.
    """

    def __init__(self, config: TrainConfig, folder: Path, processes: Processes) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.stood: dict[str, Standing] = {}
        self._pools: dict[str, Pool] = {}

    def enter(self, number: int) -> Pool:
        """The pool of the config's stage `number`, filled; those that no stage from here on needs are let go."""
        name, key = self.config.stages[number], self._key(self.config.stages[number])
        needed = {self._key(following) for following in self.config.stages[number:]}
        for other in [other for other in self._pools if other not in needed]:
            self.stood[other] = self._pools[other].standing
            self._pools.pop(other).close()
        if key not in self._pools:
            self._pools[key] = pool = self._new(name)
            pool.fill(self.stood.get(key), cache=self._file(key))
            if self.config.runtime.save_pools:
                pool.save(self._file(key))
        return self._pools[key]

    def standings(self) -> dict[str, dict[str, Any]]:
        """Where all pools stand or stood, as plain values; `stood` takes them up again."""
        self.stood.update({key: pool.standing for key, pool in self._pools.items()})
        return {key: dataclasses.asdict(standing) for key, standing in self.stood.items()}

    def restore(self, standings: dict[str, dict[str, Any]]) -> None:
        """Take up what `standings` gave."""
        self.stood = {key: Standing(**values) for key, values in standings.items()}

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
            vary=self.config.data.vary,
            close_ups=self.config.data.close_up if self.config.data.source == "synthetic" else 0.0,
            workers=self.config.runtime.workers,
            both=self.config.runtime.workers_and_device and bool(settings.minutes),
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
