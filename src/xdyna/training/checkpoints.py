"""A run's state on disk, and its export as a model folder.

State is one file, replaced atomically, from which a run goes on as if it had never stopped. An export holds the
averaged weights in the layout that `XDynaPipeline.from_pretrained` loads; `split` and `join` carry it over a link
that takes small files only.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from xdyna.errors import InputError, OptionError, WeightsError
from xdyna.evaluation.judge import Judge
from xdyna.model_preset import ModelPreset
from xdyna.models import ReferenceNet
from xdyna.models.dynamics_adapter import DynamicsAdapterAttention
from xdyna.training.config import TrainConfig
from xdyna.training.config_file import build_config, load_config, to_dict
from xdyna.training.networks import Networks, build_networks, build_scheduler
from xdyna.training.record import CONFIG_FILE
from xdyna.weights import folder_hash, load_components, read_index, resolve, save_model
from xdyna.weights.lora import FAST_FILE
from xdyna.weights.lora_file import write_lora

logger = logging.getLogger(__name__)

STATE_FILE, JUDGE_FILE, PARTS_FILE = "state.pt", "judge.safetensors", "parts.json"
MEBI = 2**20


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a run's state; whoever reads it meanwhile finds the old one whole."""
    temporary = folder / (STATE_FILE + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, folder / STATE_FILE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """A run's state with all tensors on the CPU; None where the folder has none.

    Raises:
        WeightsError: the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(
            path, f"is no training state ({error})", "Delete it to start the run anew"
        ) from error
    assert isinstance(state, dict)
    return state


def averaged(
    networks: dict[str, dict[str, torch.Tensor]], averages: dict[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """The networks' weights by network, with moving averages ("network.parameter") in the places of what has some."""
    return {
        name: {key: averages.get(f"{name}.{key}", value) for key, value in weights.items()}
        for name, weights in networks.items()
    }


def load_run(folder: str | Path, *, average: bool = True) -> tuple[TrainConfig, Networks, Judge]:
    """The networks of a run as they stand, finished or not.

    Args:
        folder: a run's output folder.
        average: take the moving average of the weights where a stage is under way.

    Returns:
        config; networks in evaluation mode, float32 on the CPU; judge (untrained if that stage did not run).
    """
    folder = Path(folder)
    state = load_state(folder)
    if state is None:
        raise InputError(folder, f"has no {STATE_FILE}", "Give the output folder of a training run")
    config = load_config(folder / CONFIG_FILE)
    weights = averaged(state["networks"], state["averages"] if average else {})
    return config, *_assemble(config, weights, state["latents"])


def export_model(
    folder: str | Path, output: str | Path, *, storage: str = "int8", card: str | None = None
) -> None:
    """Write a run's averaged weights as a model folder, with the LoRA for few steps if the run taught one.

    Args:
        folder: a run's output folder.
        output: the model folder to write.
        storage: "int8", "bf16", "fp16" or "fp32", as in `xdyna.weights.save_model`.
        card: text of the model card.
    """
    config, networks, _ = load_run(folder)
    write_model(config, networks, Path(output), storage=storage, card=card)
    state = load_state(Path(folder))
    if state is not None and "student" in state["networks"]:
        changes = averaged(state["networks"], state["averages"])["student"]
        base = folder_hash(output)
        write_lora(Path(output) / FAST_FILE, changes, steps=config.student.steps, base=base)


def export_student(folder: str | Path, output: str | Path) -> None:
    """Write what stage `distill` taught as a LoRA file (bf16, diffusers' layout).

    Args:
        folder: a run's output folder.
        output: the file; `fast.safetensors` in the teacher's folder is where `--preset fast` looks for it.

    Raises:
        InputError: no such run, or one without the stage.
    """
    folder, output = Path(folder), Path(output)
    state = load_state(folder)
    if state is None or "student" not in state["networks"]:
        raise InputError(folder, "holds no run with stage distill", "Give the output folder of such a run")
    config = load_config(folder / CONFIG_FILE)
    changes = averaged(state["networks"], state["averages"])["student"]
    base = folder_hash(resolve(config.initial)) if config.stages[0] == "distill" else ""
    write_lora(output, changes, steps=config.student.steps, base=base)


def export_split(
    folder: str | Path, output: str | Path, *, limit: int = 15, with_judge: bool = True
) -> list[Path]:
    """Write a run's averaged weights in bf16 files of at most `limit` MiB, and a json that says what they are.

    Without the judge, which a run's folder has in a file of its own, they are 4 MiB less.

    Returns:
        the files written.
    """
    config, networks, judge = load_run(folder)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{key}": value.to(torch.bfloat16).contiguous()
        for name, network in {**networks.named(), **({"judge": judge} if with_judge else {})}.items()
        for key, value in network.state_dict().items()
    }
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = limit * MEBI - MEBI // 4  # a quarter is left for the header
    used = 0
    for key, value in tensors.items():
        size = value.numel() * 2
        if size > room:
            raise OptionError("--split", f"{key} alone is {size / MEBI:.1f} MiB", "Give a larger limit")
        if used + size > room:
            parts.append({})
            used = 0
        parts[-1][key] = value
        used += size
    paths = []
    for number, part in enumerate(parts):
        paths.append(output / f"part-{number}.safetensors")
        save_file(part, paths[-1])
    vae = networks.vae.config
    index = {
        "config": to_dict(config),
        "latents": {"scale": vae.scaling_factor, "shift": vae.shift_factor},
        "parts": [path.name for path in paths],
    }
    paths.append(output / PARTS_FILE)
    paths[-1].write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return paths


def join_split(
    folder: str | Path, output: str | Path, *, storage: str = "int8", card: str | None = None
) -> None:
    """Put the files of `export_split` together into a model folder, and the judge, if they hold it, beside it as
    judge.safetensors."""
    folder, output = Path(folder), Path(output)
    try:
        index = json.loads((folder / PARTS_FILE).read_text(encoding="utf-8"))
        weights: dict[str, dict[str, torch.Tensor]] = {}
        for part in index["parts"]:
            # plain file names only: the json must not lead anywhere else
            with safetensors.safe_open(str(folder / Path(part).name), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    name, _, rest = key.partition("/")
                    weights.setdefault(name, {})[rest] = file.get_tensor(key).float()
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            folder, f"holds no complete export ({error})",
            "Give the folder that `python -m xdyna.training export --split` wrote",
        ) from error  # fmt: skip
    config = build_config(index["config"], source=str(folder / PARTS_FILE))
    networks, judge = _assemble(config, weights, index["latents"])
    write_model(config, networks, output, storage=storage, card=card)
    if "judge" in weights:
        judge.save(output.parent / JUDGE_FILE)


def load_initial(networks: Networks, model: str) -> dict[str, float]:
    """Give the networks the weights of a finished model; returns the scale and shift of its latents.

    Args:
        networks: freshly built, on the CPU.
        model: a folder or "embedded".

    Raises:
        WeightsError: no such model, or one of other widths.
    """
    folder = resolve(model)
    there = set(read_index(folder).parts)
    parts = load_components(
        folder, dtype=torch.float32, names=[name for name in networks.named() if name in there]
    )
    for name, network in networks.named().items():
        if name not in parts:
            logger.info("%s has no %s: it starts fresh", folder, name)
            continue
        try:
            # What only ours has, such as an adapter or the motion condition, may be missing in a base model.
            problems = network.load_state_dict(parts[name].state_dict(), strict=False)
        except RuntimeError as error:
            raise WeightsError(
                folder,
                f"{name} does not fit the config ({error})",
                "Use the config that the model was trained with",
            ) from error
        _begin_adapters(network, problems.missing_keys)
        fresh = sorted({key.split(".")[-2] for key in problems.missing_keys})
        if problems.unexpected_keys and name != "unet":
            raise WeightsError(
                folder,
                f"{name} has weights that the config knows nothing of: {', '.join(problems.unexpected_keys[:3])}",
                "Use the config that the model was trained with",
            )
        if fresh:
            logger.info("%s: %s start fresh", name, ", ".join(fresh))
    if networks.reference_net is not None and "reference_net" not in parts:
        networks.reference_net.load_state_dict(ReferenceNet.for_denoiser(networks.unet).state_dict())
    config = parts["vae"].config
    latents = {"scale": config.scaling_factor, "shift": config.shift_factor or 0.0}
    set_latents(networks, latents)
    return latents


@torch.no_grad()
def _begin_adapters(network: nn.Module, missing: list[str]) -> None:
    """Adapter queries that a base model lacks start as copies of its own queries (or keys, as they are built)."""
    absent = set(missing)
    for name, module in network.named_modules():
        if isinstance(module, DynamicsAdapterAttention) and f"{name}.to_q_ff.weight" in absent:
            source = module.to_q if network.config.adapter_query_init == "query" else module.to_k  # type: ignore[union-attr]
            module.to_q_ff.weight.copy_(source.weight)


def set_latents(networks: Networks, latents: dict[str, float]) -> None:
    """Give the autoencoder the scale and shift of its latents, as the pipeline reads them."""
    networks.vae.register_to_config(scaling_factor=latents["scale"], shift_factor=latents["shift"])


def _assemble(
    config: TrainConfig, weights: dict[str, dict[str, torch.Tensor]], latents: dict[str, float]
) -> tuple[Networks, Judge]:
    networks, judge = build_networks(config, seed=config.seed), Judge(config.judge_width)
    loaded = {**networks.named(), **({"judge": judge} if "judge" in weights else {})}
    for name, network in loaded.items():
        try:
            network.load_state_dict(weights[name])
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                name,
                f"weights do not fit the config ({error})",
                "Use the config that the run was trained with",
            ) from error
        network.requires_grad_(False).eval()
    set_latents(networks, latents)
    return networks, judge.eval()


def write_model(
    config: TrainConfig, networks: Networks, output: Path, *, storage: str, card: str | None
) -> None:
    """Write networks as a model folder, with the settings that they were trained for."""
    height, width = config.model.size
    landmarks, own_pose = config.model.face == "landmarks", config.model.reference_pose
    if config.model.kind == "sd15":
        preset = ModelPreset(
            height=height,
            width=width,
            landmarks=landmarks,
            reference_pose=own_pose,
            shared_noise=config.noise.shared,
        )
    else:
        preset = ModelPreset(
            height=height,
            width=width,
            multiple=config.model.unit * 2 ** (len(config.model.unet.channels) - 1),
            steps=8,
            guidance=1.0,
            # Trained on maps as drawn; a blank clip is blank, and a faint one stays faint.
            stretch_conditions=False,
            fps=8.0,
            landmarks=landmarks,
            reference_pose=own_pose,
            shared_noise=config.noise.shared,
            motion_energy=config.model.unet.motion_energy,
        )
    components: dict[str, Any] = {**networks.named(), "scheduler": build_scheduler(config.noise)}
    save_model(output, components, storage=storage, card=card or _card(config), preset=preset, overwrite=True)


def _card(config: TrainConfig) -> str:
    height, width = config.model.size
    return (
        f"# X-Dyna, embedded model ({width}x{height})\n\n"
        "Trained from scratch by `python -m xdyna.training` on rendered people and scenes (`xdyna.data.synthetic`);\n"
        "no photograph and no real person was used. It shows what the method does on a small machine; pictures of\n"
        "real people come out soft and simplified. Licence: Apache-2.0.\n"
    )
