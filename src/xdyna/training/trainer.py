"""A run in memory: networks, optimiser, averages and pools, taken through the stages. `loop.py` is the door."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from xdyna.errors import OptionError
from xdyna.evaluation.judge import Judge
from xdyna.models.fusing import fuse
from xdyna.training.averages import Averages
from xdyna.training.checkpoints import (
    JUDGE_FILE,
    load_initial,
    load_state,
    save_state,
    set_latents,
)
from xdyna.training.config import StageConfig, TrainConfig
from xdyna.training.config_file import to_dict
from xdyna.training.distill import make_student
from xdyna.training.encoding import clip_encoders, encode_frames, measure_latents
from xdyna.training.log import TrainLog
from xdyna.training.model_folders import write_stage_model
from xdyna.training.networks import build_networks, build_scheduler
from xdyna.training.norms import halve_norms
from xdyna.training.optimiser import MuonAdamW
from xdyna.training.pool import Encoder, Pool
from xdyna.training.pools import Pools, shared_out
from xdyna.training.processes import SYNC_STEPS, Processes, shared_like, whole
from xdyna.training.record import write_record
from xdyna.training.run import Run
from xdyna.training.schedule import learning_rate, share_done
from xdyna.training.stages import STAGES
from xdyna.training.updates import GraphedUpdate, PlainUpdate

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


class Trainer:
    """A run in memory.

    Args:
        config: what to train.
        folder: the run's folder, which exists.
        processes: this process among those of the run.
        resume: go on from the folder's state, if it has one.

    Raises:
        OptionError: the folder's state is of another model, or a batch cannot be shared by the processes.
        WeightsError: `initial` does not fit.
    """

    def __init__(self, config: TrainConfig, folder: Path, processes: Processes, *, resume: bool) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        for name in config.stages:
            shared_out(config, name, processes)  # speak before any work is done
        device = processes.device
        if device.type == "cuda":
            # shapes never change within a stage, and the usual choice is poor for convolutions of few channels
            torch.backends.cudnn.benchmark = True
        self.run = Run(
            config=config,
            device=device,
            networks=build_networks(config, seed=config.seed),
            judge=_judge(config),
            alphas_cumprod=build_scheduler(config.noise).alphas_cumprod.to(device),
            generator=torch.Generator(device).manual_seed(config.seed + 1_000_003 * processes.rank),
        )
        if "distill" in config.stages:
            if processes.sharded:
                raise OptionError("distill", "does not go with FSDP", "Start it with torchrun")
            self.run.student = make_student(config, self.run.networks)
        self.progress = Progress()
        self.latents = {"scale": self.run.networks.vae.config.scaling_factor, "shift": 0.0}
        self.optimiser: torch.optim.Optimizer | None = None
        self.averages: Averages | None = None
        self.pools = Pools(config, folder, processes)
        self.update: PlainUpdate | None = None
        self._resumed: dict[str, Any] = {}
        self._image_encoder: Encoder | None = None
        state = load_state(folder) if resume else None
        if state is not None:
            self._restore(state)
        elif config.initial:
            self.latents = load_initial(self.run.networks, config.initial)
        for module in self.run.modules().values():
            module.to(device).requires_grad_(False).eval()
            if device.type == "cuda":
                if config.runtime.channels_last:
                    # 4-D weights only; the motion modules' and others' shapes do not matter
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                if config.runtime.half_norms and config.runtime.precision == "bf16":
                    halve_norms(module)
                if config.runtime.fused and config.runtime.precision == "bf16":
                    fuse(module)
        if config.model.kind == "sd15":
            self.run.text, self.run.empty_features, self._image_encoder = clip_encoders(
                config.initial, device
            )
        if processes.is_main:
            write_record(folder, config, processes=processes.count)

    def train(self, stop: threading.Event, *, deadline: float, max_steps: int | None) -> Progress:
        """Stage after stage, until done or stopped.

        Args:
            stop: set to stop after the step under way.
            deadline: stop when `time.monotonic()` is past it.
            max_steps: stop after so many steps.
        """
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
            self._save(pools=True, model=name)
            if self.processes.sharded and self.progress.stage < len(self.config.stages):
                # what FSDP has taken apart for one stage it does not take apart again for another
                logger.info("stage %s is complete; the same command goes on with the next", name)
                return self.progress
        self.progress.finished = True
        logger.info("training is complete")
        return self.progress

    def close(self) -> None:
        """Let go of what runs beside the training."""
        self.pools.close()

    # -- one stage ------------------------------------------------------------------------------

    def _enter(self, name: str) -> Pool:
        """Pool, optimiser and averages of a stage, restored where it was under way."""
        stage, settings = STAGES[name], shared_out(self.config, name, self.processes)
        pool = self.pools.enter(self.progress.stage)
        if stage.latents:
            vae = self.run.networks.vae
            pool.encode_with(lambda frames: encode_frames(vae, frames), image_encoder=self._image_encoder)
        learning = stage.parameters(self.run)
        for key, module in self.run.modules().items():
            if any(parameter.startswith(f"{key}.") for parameter in learning):
                module.train()
        for parameter in learning.values():
            parameter.requires_grad_(True)
        graphs = self.config.runtime.graphs and self.run.device.type == "cuda"
        learner = stage.learner(self.run)
        if self.config.runtime.compile:
            _compile_in_place(learner)
        if not graphs:
            learner = self.processes.prepare(learner)
            learning = stage.parameters(self.run)  # anew: FSDP has put its own in their places
        self.optimiser = self._optimiser(list(learning.values()), settings)
        self.averages = Averages(learning, decay=settings.ema)
        if self._resumed:
            self._resume_stage(learning)
        kind = GraphedUpdate if graphs else PlainUpdate
        self.update = kind(
            self.run,
            learner,
            stage.losses,
            optimiser=self.optimiser,
            averages=self.averages,
            processes=self.processes,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
        )
        millions = sum(p.numel() for p in learning.values()) / 1e6
        logger.info("stage %s: %.2f M parameters learn, %d clips in the pool", name, millions, len(pool))
        return pool

    def _optimiser(self, parameters: list[nn.Parameter], settings: StageConfig) -> torch.optim.Optimizer:
        if not self.processes.sharded:
            return MuonAdamW(
                parameters,
                rate=settings.learning_rate,
                matrix_rate=settings.matrix_rate,
                weight_decay=settings.weight_decay,
            )
        if settings.matrix_rate:
            raise OptionError(
                "matrix_rate", "Muon needs whole matrices, which FSDP shares out", "Set it to 0"
            )
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )

    def _resume_stage(self, learning: dict[str, nn.Parameter]) -> None:
        assert self.optimiser is not None
        assert self.averages is not None
        state = self._resumed
        saved = state["optimiser"]
        if self.processes.sharded:
            parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
            for index, values in saved["state"].items():
                like = parameters[index]
                saved["state"][index] = {
                    key: shared_like(value, like) if value.dim() else value for key, value in values.items()
                }
        self.optimiser.load_state_dict(saved)
        self.averages.load(
            {key: shared_like(value, learning[key]) for key, value in state["averages"].items()}
        )
        scaler = self.processes.accelerator.scaler
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        self._resumed = {}

    def _run_stage(
        self, name: str, pool: Pool, stop: threading.Event, *, deadline: float, max_steps: float
    ) -> bool:
        """Steps until the stage is complete (True) or something says stop (False)."""
        stage, progress = STAGES[name], self.progress
        settings = shared_out(self.config, name, self.processes)
        assert self.update is not None
        assert self.averages is not None
        steps, seconds = progress.steps.get(name, 0), progress.seconds.get(name, 0.0)
        taken, clock, stopping = 0, time.monotonic(), False
        saved, own_seconds = seconds, seconds
        alone = self.processes.count == 1
        log = TrainLog(self.folder, name, self.config.runtime) if self.processes.is_main else None
        clips = settings.batch * settings.accumulate

        def draw() -> dict[str, torch.Tensor]:
            return stage.draw(self.run, pool, settings)

        while (share := share_done(settings, steps, seconds)) < 1:
            if alone or steps % SYNC_STEPS == 0:
                # Between agreements, all processes work with the clock of the last one.
                wanted = stop.is_set() or clock >= deadline
                stopping, seconds = self.processes.agree(stop=wanted, seconds=own_seconds)
                own_seconds = seconds
                if share_done(settings, steps, seconds) >= 1:
                    continue
            if stopping or taken >= max_steps:
                return False
            rate = learning_rate(settings, steps, share)
            self._pace(rate, steps + 1)
            losses = self.update(draw)
            steps, taken = steps + 1, taken + 1
            pool.use(clips)
            if self.run.device.type == "cuda" and steps % SYNC_STEPS == 0:
                torch.cuda.synchronize()
            now = time.monotonic()
            own_seconds, clock = own_seconds + now - clock, now
            if alone:
                seconds = own_seconds
            progress.steps[name], progress.seconds[name] = steps, seconds
            if log is not None:
                log.add(
                    losses,
                    steps=steps,
                    seconds=seconds,
                    rate=rate,
                    clips=clips * self.processes.count,
                    share=share,
                    made=pool.standing.cursor * pool.chunk * self.processes.count,
                )
            agreed = alone or steps % SYNC_STEPS == 0
            if agreed and seconds - saved > self.config.runtime.save_seconds:
                self._save(model=name)
                saved, clock = seconds, time.monotonic()
        if log is not None:
            log.write()
        return True

    def _pace(self, rate: float, steps: int) -> None:
        assert self.optimiser is not None
        assert self.averages is not None
        if isinstance(self.optimiser, MuonAdamW):
            self.optimiser.rate.fill_(rate)
        else:
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        self.averages.pace(steps)

    def _leave(self, name: str, pool: Pool) -> None:
        """A stage ends with its averaged weights; whatever follows is built on these."""
        assert self.averages is not None
        self.averages.settle()
        for module in self.run.modules().values():
            module.requires_grad_(False).eval()
            for parameter in module.parameters():
                parameter.grad = None
        self.averages = self.optimiser = self.update = None
        if name == "autoencoder":
            found = measure_latents(self.run.networks.vae, pool.frames)
            self.latents = self.processes.from_main(found)
            set_latents(self.run.networks, self.latents)
        if name == "judge" and self.processes.is_main:
            self.run.judge.save(self.folder / JUDGE_FILE)
        self.progress.stage += 1

    # -- state ----------------------------------------------------------------------------------

    def _save(self, *, pools: bool = False, model: str = "") -> None:
        """Write the state; with `pools` also what was made, with a stage's name in `model` also a model folder.

        All processes must call it: what is shared out among them is put together.
        """
        scaler = self.processes.accelerator.scaler
        state: dict[str, Any] = {
            "config": to_dict(self.config),
            "stage": self.progress.stage,
            "steps": self.progress.steps,
            "seconds": self.progress.seconds,
            "networks": whole({key: module.state_dict() for key, module in self.run.modules().items()}),
            "averages": whole(self.averages.values if self.averages else {}),
            "optimiser": whole(self.optimiser.state_dict()) if self.optimiser else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "generators": self.processes.gather(self.run.generator.get_state()),
            "pools": self.processes.gather(self.pools.standings()),
            "latents": self.latents,
        }
        if self.processes.is_main:
            save_state(self.folder, state)
            if model and self.config.runtime.keep:
                write_stage_model(self.config, self.folder, model, state, device=self.run.device)
        if pools:
            self.pools.save()
        self.processes.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up a state written by `_save`."""
        old, new = state["config"], to_dict(self.config)
        student = () if self.run.student is None else ("student",)
        for part in ("model", "noise", "stages", "seed", *student):
            if json.dumps(old.get(part)) != json.dumps(new[part]):
                raise OptionError(
                    str(self.folder), f"holds a run with other settings of {part!r}",
                    "Choose another output folder, or start anew with --fresh",
                )  # fmt: skip
        if "pools" not in state:
            raise OptionError(
                str(self.folder), "holds a run of an older version of xdyna, which this one cannot go on with",
                "Choose another output folder, or start anew with --fresh; its models/ can be `initial`",
            )  # fmt: skip
        for key, module in self.run.modules().items():
            module.load_state_dict(state["networks"][key])
        self.progress = Progress(state["stage"], state["steps"], state["seconds"])
        if state["optimiser"] is not None:
            self._resumed = {key: state[key] for key in ("optimiser", "averages", "scaler")}
        generators, pools = state["generators"], state["pools"]
        rank = self.processes.rank
        if len(generators) == self.processes.count:
            self.run.generator.set_state(generators[rank])
            self.pools.restore(pools[rank])
        else:
            logger.warning(
                "the run was stopped with %d processes and goes on with %d: it sees other draws than it would have",
                len(generators), self.processes.count,
            )  # fmt: skip
        self.latents = state["latents"]
        set_latents(self.run.networks, self.latents)
        logger.info("resumed: %s steps", self.progress.steps)


def _judge(config: TrainConfig) -> Judge:
    if config.initial_judge and "judge" in config.stages:
        judge = Judge.load(config.initial_judge)
        if judge.width != config.judge_width:
            raise OptionError(
                "initial_judge",
                f"{config.initial_judge} has width {judge.width}, judge_width is {config.judge_width}",
                f"Set judge_width to {judge.width}",
            )
        return judge
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        return Judge(config.judge_width)


def _compile_in_place(learner: nn.Module) -> None:
    """Let torch.compile replace the forward passes of the networks; names and weights stay as they are."""
    for module in learner.children():
        parts = [module.encoder, module.decoder] if isinstance(module, AutoencoderKL) else [module]
        for part in parts:
            part.compile()
