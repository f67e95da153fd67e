"""The one training loop: resumable at any step, budgeted in steps or in minutes.

A run folder holds `config.json`, `state.pt` (replaced atomically), `log.jsonl`, `pool-*.safetensors` (rendered clips,
so that a resumed run need not render them again) and, once trained, `judge.safetensors`.

On a CPU a run whose stages end by steps is a function of its config: stopped and resumed anywhere, it ends with the
same weights. Runs budgeted in minutes are resumable as well, but how many steps fit is up to the machine.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from diffusers import AutoencoderKL
from torch import nn

from xdyna.errors import OptionError, OutputError, ResourceError
from xdyna.training.checkpoints import (
    JUDGE_FILE,
    load_initial,
    load_state,
    save_state,
    set_latents,
    write_config,
)
from xdyna.training.config import StageConfig, TrainConfig, load_config, to_dict
from xdyna.training.fused import fuse_norms
from xdyna.training.judge import Judge
from xdyna.training.log import TrainLog
from xdyna.training.networks import build_networks, build_scheduler
from xdyna.training.optimiser import MuonAdamW
from xdyna.training.pool import Pool, to_signed
from xdyna.training.processes import SYNC_STEPS, Processes
from xdyna.training.schedule import learning_rate, share_done
from xdyna.training.stages import STAGES, Run, stage_parameters

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        stage: index of the stage under way; the number of stages once all are done.
        steps: steps done, by stage.
        seconds: seconds used by these steps, by stage.
        finished: all stages are done.
    """

    stage: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    finished: bool = False


def run(
    config_path: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    *,
    resume: bool = True,
    device: str | None = None,
) -> Progress:
    """Train by a config file; what the command line calls.

    Args:
        config_path: a TOML file of configs/train.
        output: the run's folder; made if absent.
        overrides: `section.key=value` strings.
        max_minutes: stop cleanly after this long; the same call goes on from there.
        resume: go on from the folder's state, if it has one.
        device: "cpu", "cuda"; by default CUDA where there is one.
    """
    config = load_config(config_path, overrides=overrides)
    return train(config, output=output, resume=resume, max_minutes=max_minutes, device=device)


def train(
    config: TrainConfig,
    *,
    output: str | Path,
    resume: bool = True,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    device: str | None = None,
) -> Progress:
    """Run the stages of `config` until done, or until told to stop.

    Args:
        config: what to train.
        output: the run's folder.
        resume: go on from the folder's state, if it has one; otherwise start anew.
        max_minutes: stop cleanly after this many minutes of this call.
        max_steps: stop cleanly after this many steps of this call.
        device: where to train; by default CUDA where there is one.

    Returns:
        how far the run is. SIGTERM and SIGINT stop it cleanly, too.

    Raises:
        OptionError: the folder's state is of another model, or the device is unknown.
        OutputError: the folder cannot be written.
        ResourceError: there is no such device, or its memory ran out.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").touch()
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "Choose another folder") from None
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    mixed = "bf16" if config.runtime.bfloat16 else "no"
    trainer = _Trainer(config, folder, Processes(device, mixed_precision=mixed), resume=resume)
    with _stop_signals() as stop:
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        try:
            return trainer.train(stop, deadline=deadline, max_steps=max_steps)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                str(trainer.run.device), f"out of memory ({error})", "Lower the stage's batch or pool"
            ) from error
        finally:
            trainer.close()


class _Trainer:
    """A run in memory: networks, averages, optimiser, pools."""

    def __init__(self, config: TrainConfig, folder: Path, processes: Processes, *, resume: bool) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        device = processes.device
        for name in config.stages:
            self._settings(name)  # speak before any work is done
        self.run = Run(
            config=config,
            device=device,
            networks=build_networks(config.model, seed=config.seed),
            judge=self._judge(),
            alphas_cumprod=build_scheduler().alphas_cumprod.to(device),
            generator=torch.Generator(device).manual_seed(config.seed + 1_000_003 * processes.rank),
        )
        self.progress = Progress()
        self.latents = {"scale": 1.0, "shift": 0.0}
        self.averages: dict[str, nn.Module] = {}
        self.optimiser: torch.optim.Optimizer | None = None
        self.pools: dict[str, Pool] = {}
        self.cursors: dict[str, tuple[int, float]] = {}
        self._optimiser_state: dict[str, object] | None = None
        self._average_state: dict[str, dict[str, torch.Tensor]] = {}
        state = load_state(folder) if resume else None
        if state is not None:
            self._restore(state)
        elif config.initial:
            self.latents = load_initial(self.run.networks, config.initial)
        if processes.is_main:
            write_config(folder, config)
        for module in self.run.modules().values():
            module.to(device).requires_grad_(False).eval()
            if config.runtime.channels_last:
                # 4-D weights only; the motion modules' and others' shapes do not matter
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if config.runtime.fused_norms and device.type == "cuda":
                fuse_norms(module)

    def train(self, stop: threading.Event, *, deadline: float, max_steps: int | None) -> Progress:
        """Stage after stage, until done or stopped."""
        left = math.inf if max_steps is None else max_steps
        while self.progress.stage < len(self.config.stages):
            name = self.config.stages[self.progress.stage]
            pool = self._enter(name)
            before = self.progress.steps.get(name, 0)
            complete = self._run_stage(name, pool, stop, deadline=deadline, max_steps=left)
            left -= self.progress.steps.get(name, 0) - before
            if not complete:
                self._save(pools=True)
                logger.info("stopped in stage %s; the same command goes on from here", name)
                return self.progress
            self._leave(name, pool)
            self._save(pools=True)
        self.progress.finished = True
        logger.info("training is complete")
        return self.progress

    def close(self) -> None:
        """Let go of what runs beside the training."""
        for pool in self.pools.values():
            pool.close()

    # -- one stage ------------------------------------------------------------------------------

    def _enter(self, name: str) -> Pool:
        """Pool, optimiser and averages of a stage, restored where it was under way."""
        stage, settings = STAGES[name], self.config.stage(name)
        pool = self._pool(name)
        parameters = stage_parameters(self.run, stage)
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.optimiser = MuonAdamW(
            parameters,
            rate=settings.learning_rate,
            matrix_rate=settings.matrix_rate,
            weight_decay=settings.weight_decay,
        )
        if self._optimiser_state is not None:
            self.optimiser.load_state_dict(self._optimiser_state)
            self._optimiser_state = None
        self.averages = {
            key: copy.deepcopy(self.run.modules()[key]).requires_grad_(False) for key in stage.trains
        }
        for key, weights in self._average_state.items():
            self.averages[key].load_state_dict(weights)
        self._average_state = {}
        for key in stage.trains:
            module = self.run.modules()[key].train()
            if self.config.runtime.compile:
                compile_in_place(module)
        self.run.learner = self.processes.prepare(stage.learner(self.run))
        logger.info(
            "stage %s: %.2f M parameters learn, %d clips in the pool",
            name, sum(p.numel() for p in parameters) / 1e6, len(pool),
        )  # fmt: skip
        return pool

    def _run_stage(
        self, name: str, pool: Pool, stop: threading.Event, *, deadline: float, max_steps: float
    ) -> bool:
        """Steps until the stage is complete (True) or something says stop (False)."""
        stage, settings, progress = STAGES[name], self._settings(name), self.progress
        assert self.optimiser is not None
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        steps, seconds = progress.steps.get(name, 0), progress.seconds.get(name, 0.0)
        taken, clock, stopping = 0, time.monotonic(), False
        saved, seconds_here = clock, seconds
        alone = self.processes.count == 1
        log = TrainLog(self.folder / "log.jsonl", name, every=self.config.runtime.log_seconds)
        while (share := share_done(settings, steps, seconds)) < 1:
            if alone or steps % SYNC_STEPS == 0:
                # Between agreements, all processes work with the clock of the last one.
                wanted = stop.is_set() or clock >= deadline
                stopping, seconds = self.processes.agree(stop=wanted, seconds=seconds_here)
                seconds_here = seconds
                if share_done(settings, steps, seconds) >= 1:
                    continue
            if stopping or taken >= max_steps:
                return False
            rate = learning_rate(settings, steps, share)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["share"]
            losses = stage.step(self.run, pool, settings)
            self.optimiser.zero_grad(set_to_none=True)
            self.processes.accelerator.backward(losses["loss"])
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            self.optimiser.step()
            steps, taken = steps + 1, taken + 1
            self._average(settings.ema, steps)
            pool.use(settings.batch)
            if self.run.device.type == "cuda" and steps % SYNC_STEPS == 0:
                torch.cuda.synchronize()
            now = time.monotonic()
            seconds_here, clock = seconds_here + now - clock, now
            if alone:
                seconds = seconds_here
            progress.steps[name], progress.seconds[name] = steps, seconds
            if self.processes.is_main:
                clips = settings.batch * self.processes.count
                log.add(losses, steps=steps, seconds=seconds, rate=rate, clips=clips, share=share)
            if alone and now - saved > self.config.runtime.save_seconds:
                self._save()
                saved = clock = time.monotonic()
        if self.processes.is_main:
            log.write()
        return True

    def _leave(self, name: str, pool: Pool) -> None:
        """A stage ends with its averaged weights; whatever follows is built on these."""
        for key, average in self.averages.items():
            self.run.modules()[key].load_state_dict(average.state_dict())
        for module in self.run.modules().values():
            module.requires_grad_(False).eval()
        self.averages, self.optimiser, self.run.learner = {}, None, None
        if name == "autoencoder":
            self._measure_latents(pool)
        if name == "judge" and self.processes.is_main:
            self.run.judge.save(self.folder / JUDGE_FILE)
        self.progress.stage += 1

    @torch.no_grad()
    def _average(self, decay: float, steps: int) -> None:
        """Exponential moving average of the weights, quicker at first."""
        share = 1 - min(decay, (1 + steps) / (10 + steps))
        for key, average in self.averages.items():
            live = self.run.modules()[key]
            torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), share)

    @torch.no_grad()
    def _measure_latents(self, pool: Pool) -> None:
        """Mean and spread of the latents over some of the pool, for the autoencoder's config."""
        frames = pool.frames.flatten(0, 1)
        picks = torch.linspace(0, len(frames) - 1, min(len(frames), 256)).long().unique()
        parts = [
            self.run.networks.vae.encode(to_signed(frames[part.to(frames.device)])).latent_dist.mean.float()
            for part in picks.split(32)
        ]
        latents = torch.cat(parts)
        self.latents = self.processes.from_main(
            {"scale": 1 / max(latents.std().item(), 1e-6), "shift": latents.mean().item()}
        )
        set_latents(self.run.networks, self.latents)
        logger.info("latents: mean %.3f, spread %.3f", latents.mean(), latents.std())

    # -- pools ----------------------------------------------------------------------------------

    def _pool(self, name: str) -> Pool:
        """The stage's pool; stages with the same needs share one. Pools not needed any more are let go."""
        key = self._pool_key(name)
        needed = {self._pool_key(following) for following in self.config.stages[self.progress.stage :]}
        for other in [other for other in self.pools if other not in needed]:
            self.pools.pop(other).close()
        if key not in self.pools:
            self.pools[key] = Pool(
                self.config.data,
                self._settings(name),
                loss=self.config.loss,
                scatter=STAGES[name].scatter,
                seed=self.config.seed,
                device=self.run.device,
                rank=self.processes.rank,
                workers=self.config.runtime.workers,
                unit=2 ** (len(self.config.model.autoencoder.channels) - 1),
            )
            cursor, debt = self.cursors.get(key, (0, 0.0))
            self.pools[key].fill(cursor=cursor, cache=self._pool_file(key))
            self.pools[key].debt = debt
            if self.config.runtime.save_pools:
                self.pools[key].save(self._pool_file(key))
        pool = self.pools[key]
        if STAGES[name].latents:
            pool.encode_with(self.run.networks.vae)
        return pool

    def _pool_key(self, name: str) -> str:
        settings = self.config.stage(name)
        kind = "scattered" if STAGES[name].scatter else "consecutive"
        return f"{kind}-{settings.rendered or settings.frames}-{settings.pool}-{settings.refresh:g}"

    def _pool_file(self, key: str) -> Path:
        rank = f"-{self.processes.rank}" if self.processes.rank else ""
        return self.folder / f"pool-{key}{rank}.safetensors"

    def _settings(self, name: str) -> StageConfig:
        """A stage's settings with this process's part of the batch and of the pool."""
        settings = self.config.stage(name)
        return dataclasses.replace(
            settings,
            batch=self.processes.share(settings.batch, f"{name}.batch"),
            pool=-(-settings.pool // self.processes.count),
        )

    # -- state ----------------------------------------------------------------------------------

    def _save(self, *, pools: bool = False) -> None:
        """Write the state, and with `pools` what was rendered as well."""
        self.cursors.update({key: (pool.cursor, pool.debt) for key, pool in self.pools.items()})
        state = {
            "config": to_dict(self.config),
            "stage": self.progress.stage,
            "steps": self.progress.steps,
            "seconds": self.progress.seconds,
            "networks": {key: module.state_dict() for key, module in self.run.modules().items()},
            "averages": {key: module.state_dict() for key, module in self.averages.items()},
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "generators": self.processes.gather(self.run.generator.get_state()),
            "cursors": self.processes.gather({key: list(value) for key, value in self.cursors.items()}),
            "latents": self.latents,
        }
        if self.processes.is_main:
            save_state(self.folder, state)
        if pools and self.config.runtime.save_pools:
            for key, pool in self.pools.items():
                if pool.refresh:
                    pool.save(self._pool_file(key))

    def _restore(self, state: dict[str, object]) -> None:
        """Take up a state written by `_save`."""
        old, new = state["config"], to_dict(self.config)
        for part in ("model", "stages", "seed"):
            if json.dumps(old[part]) != json.dumps(new[part]):  # type: ignore[index]
                raise OptionError(
                    str(self.folder), f"holds a run with other settings of {part!r}",
                    "Choose another output folder, or start anew with --fresh",
                )  # fmt: skip
        for key, module in self.run.modules().items():
            module.load_state_dict(state["networks"][key])  # type: ignore[index]
        self.progress = Progress(state["stage"], state["steps"], state["seconds"])  # type: ignore[arg-type]
        self._optimiser_state, self._average_state = state["optimiser"], state["averages"]  # type: ignore[assignment]
        generators, cursors = state["generators"], state["cursors"]
        rank = self.processes.rank
        if len(generators) == self.processes.count:  # type: ignore[arg-type]
            self.run.generator.set_state(generators[rank])  # type: ignore[index]
            self.cursors = {key: (value[0], value[1]) for key, value in cursors[rank].items()}  # type: ignore[index]
        else:
            logger.warning(
                "the run was stopped with %d processes and goes on with %d: it sees other draws than it would have",
                len(generators), self.processes.count,  # type: ignore[arg-type]
            )  # fmt: skip
        self.latents = state["latents"]  # type: ignore[assignment]
        set_latents(self.run.networks, self.latents)
        logger.info("resumed: %s steps", self.progress.steps)

    def _judge(self) -> Judge:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            return Judge(self.config.judge_width)


def compile_in_place(module: nn.Module) -> None:
    """Let torch.compile replace the forward passes of a network; names and weights stay as they are."""
    parts = [module.encoder, module.decoder] if isinstance(module, AutoencoderKL) else [module]
    for part in parts:
        part.compile()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; their old handlers come back at the end."""
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
