"""Loading a model's parts from its folder, strictly."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from xdyna.errors import WeightsError
from xdyna.weights.components import (
    COMPONENTS,
    INDEX_NAME,
    Component,
    ModelIndex,
    component_class,
    read_index,
    read_json_object,
    scheduler_class,
)
from xdyna.weights.keys import check_keys
from xdyna.weights.storage import TensorFile

logger = logging.getLogger(__name__)

WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
)
"""Weight files looked for in a component's folder, in this order, each also as shards with an index."""

PICKLE_SUFFIXES = (".bin", ".ckpt", ".pth", ".pt")


def load_components(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    names: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Load a model's parts.

    Networks are built without memory of their own, then given the file's tensors one by one, so that the
    peak is the model plus its largest tensor.

    Args:
        folder: a model's folder (see `resolve` for names and hub ids).
        dtype: what floating parameters become; 8-bit storage is turned back into it.
        device: where the networks go.
        names: the parts wanted; None for all.

    Returns:
        a value for each of `names` (all of `COMPONENTS` when None), None for the parts the model lacks.
        Networks are in evaluation mode.

    Raises:
        WeightsError: a part named is unknown, or its files are missing, broken or do not fit.
        MissingPackage: transformers is needed and absent.
    """
    index = read_index(folder)
    wanted = list(COMPONENTS) if names is None else list(names)
    unknown = [name for name in wanted if name not in COMPONENTS]
    if unknown:
        raise WeightsError(
            ", ".join(unknown), "no such part of a model", f"Known are {', '.join(COMPONENTS)}"
        )
    return {
        name: load_component(index, name, dtype=dtype, device=device) if name in index.parts else None
        for name in wanted
    }


def load_component(
    index: ModelIndex, name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Any:
    """Load one part of a model; arguments, result and errors as those of `load_components`."""
    component = COMPONENTS[name]
    folder = index.folder / name
    if not folder.is_dir():
        raise WeightsError(
            folder,
            f"{INDEX_NAME} lists {name}, but there is no such folder",
            "Copy or download the model again, whole; `xdyna models` says where each part comes from",
        )
    if component.kind == "scheduler":
        config = read_json_object(_config_file(folder, "scheduler_config.json"))
        cls = scheduler_class(index.scheduler, index.folder / INDEX_NAME)
        return cls.from_config(_known_options(cls, config))
    cls = component_class(component)
    if component.kind == "processor":
        try:
            return cls.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WeightsError(
                folder, f"its files cannot be read ({error})", "Copy or download them again"
            ) from error
    module = build_empty(component, read_json_object(_config_file(folder, "config.json")), subject=folder)
    load_weights(module, folder, component=name, dtype=dtype, device=device)
    return module.eval()


def build_empty(component: Component, config: Mapping[str, Any], *, subject: str | Path) -> torch.nn.Module:
    """Build a network whose parameters have shapes but no memory ("meta" tensors); buffers are real.

    Args:
        component: which.
        config: the content of its config.json.
        subject: the folder, for messages.

    Raises:
        WeightsError: the config does not describe such a network.
    """
    from accelerate import init_empty_weights

    cls = component_class(component)
    if component.library == "xdyna":
        unknown = sorted(set(_public(config)) - _option_names(cls))
        if unknown:
            raise WeightsError(
                Path(subject) / "config.json",
                f"options that {component.class_name} does not have: {', '.join(unknown)}",
                "It may have been made by a newer xdyna",
            )
    try:
        with init_empty_weights(include_buffers=False):
            if component.library == "transformers":
                configuration = cls.config_class
                # Only the options that the class has by itself: a config.json can otherwise name attention
                # kernels to fetch from the hub.
                known = set(configuration().to_dict()) - {"dtype", "torch_dtype", "architectures"}
                return cls(
                    configuration(**{key: value for key, value in _public(config).items() if key in known})
                )
            return cls.from_config(_known_options(cls, config))
    except (TypeError, ValueError, KeyError, ZeroDivisionError, RuntimeError) as error:
        raise WeightsError(
            Path(subject) / "config.json", f"does not describe a {component.class_name} ({error})"
        ) from error


def load_weights(
    module: torch.nn.Module,
    folder: Path,
    *,
    component: str = "",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Give a network the tensors of a component's folder, strictly.

    Args:
        module: the network, real or built by `build_empty`.
        folder: holds one safetensors file or shards of it.
        component: its name in `COMPONENTS`, for better messages.
        dtype: what floating tensors become.
        device: where they go.

    Raises:
        WeightsError: no file, a broken file, or names and shapes that do not fit.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    sources: dict[str, tuple[TensorFile, str]] = {}
    for path in weight_files(folder):
        file = TensorFile(path)
        for stored in file.shapes:
            name = module_name(stored, expected)
            if name not in expected and stored.endswith(".position_ids"):
                continue  # a buffer that older transformers saved; it counts 0, 1, 2 ...
            sources[name] = (file, stored)
    found = {name: file.shapes[stored] for name, (file, stored) in sources.items()}
    check_keys(folder, expected, found, component=component)
    state: dict[str, torch.Tensor] = {}
    for file in {id(file): file for file, _ in sources.values()}.values():
        names = {stored: name for name, (other, stored) in sources.items() if other is file}
        for stored, tensor in file.tensors(list(names), dtype=dtype):
            state[names[stored]] = tensor.to(device)
    module.load_state_dict(state, strict=True, assign=True)
    module.to(device)  # buffers that are not in the file


def module_name(stored: str, expected: Mapping[str, object]) -> str:
    """The name in the network of a tensor in a file.

    CLIPTextModel calls its parts `text_model.*` in files and in transformers 4, and without that prefix in
    transformers 5. Files keep the prefix.
    """
    prefix = "text_model."
    for name in (stored, stored.removeprefix(prefix), prefix + stored):
        if name in expected:
            return name
    return stored


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component's folder: one, or all shards of one.

    Raises:
        WeightsError: there are none, or a shard is missing.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        listing = folder / f"{name}.index.json"
        if listing.is_file():
            weight_map = read_json_object(listing).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise WeightsError(listing, "has no weight_map", "Copy or download it again")
            shards = sorted(str(shard) for shard in set(weight_map.values()))
            for shard in shards:
                if Path(shard).name != shard or not shard.endswith(".safetensors"):
                    raise WeightsError(
                        listing, f"names a file outside its folder: {shard!r}", "Nothing was loaded"
                    )
                if not (folder / shard).is_file():
                    raise WeightsError(folder / shard, "this shard is missing", "Copy or download it again")
            return [folder / shard for shard in shards]
    pickles = sorted(
        path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pth", ".pt")
    )
    raise WeightsError(
        folder,
        f"no weights in it: none of {', '.join(WEIGHT_NAMES[:2])}"
        + (f", only {pickles[0]}" if pickles else ""),
        "Only safetensors are loaded; `xdyna convert official` turns the official files into them"
        if pickles
        else "Copy or download the model again, whole; `xdyna models` says where each part comes from",
    )


def _config_file(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.is_file() else folder / "config.json"


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _option_names(cls: Any) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self"}


def _known_options(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    names = _option_names(cls)
    options = {key: value for key, value in _public(config).items() if key in names}
    ignored = sorted(set(_public(config)) - set(options))
    if ignored:
        logger.debug("%s: ignored config entries %s", cls.__name__, ", ".join(ignored))
    return options
