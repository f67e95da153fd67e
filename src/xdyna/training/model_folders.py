"""The model folders that a run writes as it goes: averaged weights, ready for `XDynaPipeline`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from xdyna.training.checkpoints import averaged, set_latents, write_model
from xdyna.training.config import TrainConfig
from xdyna.training.log import TrainLog
from xdyna.training.networks import build_networks
from xdyna.training.samples import sample_sheet
from xdyna.training.stages import STAGES
from xdyna.weights import folder_hash
from xdyna.weights.lora import FAST_FILE
from xdyna.weights.lora_file import write_lora


def write_stage_model(
    config: TrainConfig, folder: Path, stage: str, state: dict[str, Any], *, device: torch.device
) -> None:
    """Write RUN/models/STAGE-STEPS, keep the newest few, and sample from it.

    Args:
        config: of the run.
        folder: the run's.
        stage: which stage the weights are of.
        state: what `checkpoints.save_state` writes.
        device: where to sample.
    """
    steps = state["steps"].get(stage, 0)
    weights = averaged(state["networks"], state["averages"])
    networks = build_networks(config, seed=config.seed)
    for name, network in networks.named().items():
        network.load_state_dict(weights[name])
        network.requires_grad_(False).eval()
    set_latents(networks, state["latents"])
    made = folder / "models" / f"{stage}-{steps:07d}"
    write_model(config, networks, made, storage="bf16", card=None)
    if "student" in weights:
        write_lora(made / FAST_FILE, weights["student"], steps=config.student.steps, base=folder_hash(made))
    _keep_newest(folder / "models", config.runtime.keep)
    # a sheet shows the networks themselves, which a student does not change
    samples = config.runtime.samples if stage != "distill" else 0
    if samples and STAGES[stage].latents and config.model.kind == "embedded":
        picture = sample_sheet(config, networks, device)
        TrainLog.show(folder, config.runtime, f"samples/{stage}", picture, steps=steps)


def _keep_newest(folder: Path, count: int) -> None:
    """Delete all model folders but the newest."""
    found = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for path in found[:-count]:
        shutil.rmtree(path)
