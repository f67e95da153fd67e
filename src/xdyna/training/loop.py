"""The one training loop: resumable at any step, budgeted in steps or in minutes.

A run folder holds `config.json`, `state.pt` (replaced atomically), `log.jsonl`, `pool-*.safetensors` (rendered clips,
so that a resumed run need not render them again) and, once trained, `judge.safetensors`.

On a CPU a run whose stages end by steps is a function of its config: stopped and resumed anywhere, it ends with the
same weights. Runs budgeted in minutes are resumable as well, but how many steps fit is up to the machine.
"""

from __future__ import annotations

import copy
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
from xdyna.training.judge import Judge
from xdyna.training.networks import build_networks, build_scheduler
from xdyna.training.optimiser import MuonAdamW
from xdyna.training.pool import Pool, to_signed
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
    trainer = _Trainer(config, folder, _device(device), resume=resume)
    with _stop_signals() as stop:
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        try:
            return trainer.train(stop, deadline=deadline, max_steps=max_steps)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                str(trainer.run.device), f"out of memory ({error})", "Lower the stage's batch or pool"
            ) from error


class _Trainer:
    """A run in memory: networks, averages, optimiser, pools."""

    def __init__(self, config: TrainConfig, folder: Path, device: torch.device, *, resume: bool) -> None:
        self.config, self.folder = config, folder
        self.run = Run(
            config=config,
            device=device,
            networks=build_networks(config.model, seed=config.seed),
            judge=self._judge(),
            alphas_cumprod=build_scheduler().alphas_cumprod.to(device),
            generator=torch.Generator(device).manual_seed(config.seed),
            compiled={},
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
        write_config(folder, config)
        for module in self.run.modules().values():
            module.to(device).requires_grad_(False).eval()
            if config.runtime.channels_last:
                # 4-D weights only; the motion modules' and others' shapes do not matter
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.runtime.compile:
            named = self.run.networks.named()
            self.run.compiled.update(
                {name: torch.compile(named[name]) for name in ("unet", "pose_controlnet", "face_controlnet")}
            )

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
            self.run.modules()[key].train()
        logger.info(
            "stage %s: %.2f M parameters learn, %d clips in the pool",
            name, sum(p.numel() for p in parameters) / 1e6, len(pool),
        )  # fmt: skip
        return pool

    def _run_stage(
        self, name: str, pool: Pool, stop: threading.Event, *, deadline: float, max_steps: float
    ) -> bool:
        """Steps until the stage is complete (True) or something says stop (False)."""
        stage, settings, progress = STAGES[name], self.config.stage(name), self.progress
        assert self.optimiser is not None
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        steps, seconds = progress.steps.get(name, 0), progress.seconds.get(name, 0.0)
        taken, clock = 0, time.monotonic()
        saved = clock
        log = _Log(self.folder / "log.jsonl", name, every=self.config.runtime.log_seconds)
        while (share := _share_done(settings, steps, seconds)) < 1:
            if stop.is_set() or clock >= deadline or taken >= max_steps:
                return False
            rate = _learning_rate(settings, steps, share)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["share"]
            losses = stage.step(self.run, pool, settings)
            self.optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            self.optimiser.step()
            steps, taken = steps + 1, taken + 1
            self._average(settings.ema, steps)
            pool.use(settings.batch)
            if self.run.device.type == "cuda" and steps % 8 == 0:
                torch.cuda.synchronize()
            now = time.monotonic()
            seconds, clock = seconds + now - clock, now
            progress.steps[name], progress.seconds[name] = steps, seconds
            log.add(losses, steps=steps, seconds=seconds, rate=rate, clips=settings.batch, share=share)
            if now - saved > self.config.runtime.save_seconds:
                self._save()
                saved = clock = time.monotonic()
        log.write()
        return True

    def _leave(self, name: str, pool: Pool) -> None:
        """A stage ends with its averaged weights; whatever follows is built on these."""
        for key, average in self.averages.items():
            self.run.modules()[key].load_state_dict(average.state_dict())
        for module in self.run.modules().values():
            module.requires_grad_(False).eval()
        self.averages, self.optimiser = {}, None
        if name == "autoencoder":
            self._measure_latents(pool)
        if name == "judge":
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
        self.latents = {"scale": 1 / max(latents.std().item(), 1e-6), "shift": latents.mean().item()}
        set_latents(self.run.networks, self.latents)
        logger.info("latents: mean %.3f, spread %.3f", latents.mean(), latents.std())

    # -- pools ----------------------------------------------------------------------------------

    def _pool(self, name: str) -> Pool:
        """The stage's pool; stages with the same needs share one. Pools not needed any more are let go."""
        key = self._pool_key(name)
        needed = {self._pool_key(following) for following in self.config.stages[self.progress.stage :]}
        self.pools = {other: pool for other, pool in self.pools.items() if other in needed}
        if key not in self.pools:
            self.pools[key] = Pool(
                self.config.data,
                self.config.stage(name),
                loss=self.config.loss,
                scatter=STAGES[name].scatter,
                seed=self.config.seed,
                device=self.run.device,
                unit=2 ** (len(self.config.model.autoencoder.channels) - 1),
            )
            cursor, debt = self.cursors.get(key, (0, 0.0))
            self.pools[key].fill(cursor=cursor, cache=self._pool_file(key))
            self.pools[key].debt = debt
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
        return self.folder / f"pool-{key}.safetensors"

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
            "generator": self.run.generator.get_state(),
            "cursors": {key: list(value) for key, value in self.cursors.items()},
            "latents": self.latents,
        }
        save_state(self.folder, state)
        if pools:
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
        self.run.generator.set_state(state["generator"])  # type: ignore[arg-type]
        self.cursors = {key: (value[0], value[1]) for key, value in state["cursors"].items()}  # type: ignore[attr-defined]
        self.latents = state["latents"]  # type: ignore[assignment]
        set_latents(self.run.networks, self.latents)
        logger.info("resumed: %s steps", self.progress.steps)

    def _judge(self) -> Judge:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            return Judge(self.config.judge_width)


class _Log:
    """Mean losses every so often: a json line in a file, and a human one."""

    def __init__(self, path: Path, stage: str, *, every: float) -> None:
        self.path, self.stage, self.every = path, stage, every
        self.sums: dict[str, torch.Tensor] = {}
        self.count, self.since = 0, time.monotonic()
        self.line: dict[str, float] = {}

    def add(
        self,
        losses: dict[str, torch.Tensor],
        *,
        steps: int,
        seconds: float,
        rate: float,
        clips: int,
        share: float,
    ) -> None:
        """Count one step in; write when it is time."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.count += 1
        self.line = {
            "step": steps,
            "seconds": round(seconds, 1),
            "rate": rate,
            "share": round(share, 4),
            "clips": clips,
        }
        if time.monotonic() - self.since >= self.every:
            self.write()

    def write(self) -> None:
        """Write the line, if any step was counted since the last."""
        if not self.count:
            return
        now = time.monotonic()
        means = {name: round(float(value) / self.count, 5) for name, value in self.sums.items()}
        per_second = self.line["clips"] * self.count / max(now - self.since, 1e-6)
        entry = {"stage": self.stage, **self.line, "clips_per_second": round(per_second, 2), **means}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        logger.info(
            "%s %3.0f %% step %d (%.0f s): %s, %.1f clips/s, rate %.1e",
            self.stage, 100 * self.line["share"], self.line["step"], self.line["seconds"], text, per_second,
            self.line["rate"],
        )  # fmt: skip
        self.sums, self.count, self.since = {}, 0, now


def _share_done(settings: StageConfig, steps: int, seconds: float) -> float:
    """How much of a stage's budget is used up, 0 to 1 and above."""
    by_time = seconds / (60 * settings.minutes) if settings.minutes else 0.0
    by_steps = steps / settings.steps if settings.steps else 0.0
    return max(by_time, by_steps)


def _learning_rate(settings: StageConfig, steps: int, share: float) -> float:
    """Linear warm-up, a plateau, then half a cosine down to the final share."""
    rate = settings.learning_rate * min(1.0, (steps + 1) / max(1, settings.warmup))
    if share > settings.decay_from:
        way = min(1.0, (share - settings.decay_from) / max(1e-6, 1 - settings.decay_from))
        low = settings.final_learning_rate
        rate *= low + (1 - low) * 0.5 * (1 + math.cos(math.pi * way))
    return rate


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise OptionError("--device", f"{name!r} is no device", "Give cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("cuda", "there is no CUDA device here", "Leave --device away, or give cpu")
    return device


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
