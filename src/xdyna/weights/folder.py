"""Model folders: finding one by name, writing one whole, and telling two apart by their hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.model_preset import ModelPreset
from xdyna.weights.components import COMPONENTS, INDEX_NAME, PIPELINE_CLASS, read_index
from xdyna.weights.storage import pack, write_safetensors

EMBEDDED = "embedded"
MODELS_VARIABLE = "XDYNA_MODELS"
HASHED_SUFFIXES = (".json", ".safetensors", ".txt")

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "*/*.txt", "README.md", "LICENSE*"]


def models_dir() -> Path:
    """The folder where models are looked for by name: $XDYNA_MODELS, else ~/.cache/xdyna."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "xdyna"


def embedded_dir() -> Path:
    """The folder in this package where the embedded model lies, if it ships."""
    return Path(str(files("xdyna"))) / "assets" / EMBEDDED


def resolve(name: str | Path) -> Path:
    """Find a model's folder.

    Args:
        name: "embedded" (the model in this package), a folder, the name of a folder in `models_dir()`, or a
            Hugging Face id such as "org/name" or "org/name@revision", which is downloaded once.

    Returns:
        a folder with a model_index.json that reads well.

    Raises:
        WeightsError: there is no such model, or what is there is none.
    """
    text = str(name)
    if text == EMBEDDED:
        folder = embedded_dir()
        if not (folder / INDEX_NAME).is_file():
            raise WeightsError(
                EMBEDDED,
                "this installation of xdyna carries no model",
                "Install a released package, or name a folder with --model",
            )
    elif Path(text).expanduser().is_dir():
        folder = Path(text).expanduser()
    elif Path(text).is_file():
        raise WeightsError(
            text, "this is a file; a model is a folder", f"Give the folder that holds {INDEX_NAME}"
        )
    elif (models_dir() / text / INDEX_NAME).is_file():
        folder = models_dir() / text
    elif match := _HUB_ID.fullmatch(text):
        folder = _download(match["repo"], match["revision"], _HUB_FILES)
    else:
        raise WeightsError(
            text,
            f"no such model: neither a folder here, nor in {models_dir()}, nor a hub id (org/name)",
            "`xdyna models` lists what is known and how to get it",
        )
    read_index(folder)
    return folder


def fetch(name: str, files: Sequence[str]) -> Path:
    """Files of a hub repository, downloaded once.

    Args:
        name: "org/name" or "org/name@revision".
        files: patterns of what is wanted.

    Returns:
        the folder that holds them.

    Raises:
        WeightsError: no hub id, or nothing to be had.
    """
    match = _HUB_ID.fullmatch(name)
    if match is None:
        raise WeightsError(name, "neither a file or folder here nor a hub id (org/name)", "Check the path")
    return _download(match["repo"], match["revision"], files)


def _download(repo: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise WeightsError(
            repo + (f"@{revision}" if revision else ""),
            f"no such folder, and it cannot be fetched from the Hugging Face hub ({reason})",
            "Check the name and the network, or download it elsewhere and give the folder",
        ) from error


def save_component(module: Any, folder: str | Path, *, storage: str = "fp16") -> None:
    """Write one part of a model into its folder.

    A network gives config.json and a safetensors file under the name that its library looks for
    (diffusion_pytorch_model.safetensors, or model.safetensors for transformers). Schedulers, tokenizers and
    image processors write their settings and ignore `storage`.

    Args:
        module: one of the classes of `COMPONENTS`.
        folder: made if needed.
        storage: "fp32", "fp16", "bf16" or "int8" (see `xdyna.weights.storage`).

    Raises:
        OptionError: there is no such storage.
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    _make_folder(folder)
    if not isinstance(module, torch.nn.Module):
        (module.save_config if hasattr(module, "save_config") else module.save_pretrained)(str(folder))
        return
    write_config(folder, network_config(module))
    tensors, metadata = pack(stored_state(module), storage)
    write_safetensors(folder / weight_name(module), tensors, metadata=metadata)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a network's config.json; see `network_config`."""
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True, default=_plain) + "\n")


def network_config(module: torch.nn.Module) -> dict[str, Any]:
    """What goes into a network's config.json, without what only its library uses inside."""
    settings: Any = module.config
    if _from_transformers(module):
        return {key: value for key, value in settings.to_dict().items() if not key.startswith("_")}
    public = {key: value for key, value in dict(settings).items() if not key.startswith("_")}
    return {"_class_name": type(module).__name__, **public}


def stored_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors under the names that files use.

    They are the network's own, but for CLIPTextModel: transformers 5 dropped a prefix that files keep (see
    `xdyna.weights.loading.module_name`).
    """
    state = module.state_dict()
    if type(module).__name__ == "CLIPTextModel":
        prefix = "text_model."
        return {prefix + name.removeprefix(prefix): value for name, value in state.items()}
    return state


def weight_name(module: torch.nn.Module) -> str:
    """The name of the weight file that a network's own library looks for."""
    return "model.safetensors" if _from_transformers(module) else "diffusion_pytorch_model.safetensors"


def _from_transformers(module: torch.nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "transformers"


def save_model(
    folder: str | Path,
    components: Mapping[str, Any],
    *,
    storage: str | Mapping[str, str] = "fp16",
    card: str | None = None,
    preset: ModelPreset | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole model; nothing stands under the final name until all of it is there.

    Args:
        folder: the model's folder.
        components: values by the names of `COMPONENTS`; None or absent for parts that the model lacks.
        storage: how networks are stored, or a storage for each component's name (others: fp16).
        card: text of README.md, the model card.
        preset: the settings that the model was made for, kept in model_index.json.
        overwrite: replace a folder that is there already.

    Raises:
        OptionError: a component or storage that does not exist, or a required component missing.
        OutputError: the folder exists, or cannot be written.
    """
    given = {name: value for name, value in components.items() if value is not None}
    storages = dict.fromkeys(given, storage) if isinstance(storage, str) else dict(storage)
    parts = {name: type(value).__name__ for name, value in given.items()}
    with new_folder(Path(folder), overwrite=overwrite) as temporary:
        write_index(temporary, parts, preset=preset)
        for name, value in given.items():
            save_component(value, temporary / name, storage=storages.get(name, "fp16"))
        if card is not None:
            write_text(temporary / "README.md", card)


def write_index(folder: Path, parts: Mapping[str, str], *, preset: ModelPreset | None = None) -> None:
    """Write model_index.json.

    Args:
        folder: the model's folder.
        parts: class names by component; only the scheduler's matters, the others have one class each.
        preset: the settings that the model was made for; None for the official model's.

    Raises:
        OptionError: an unknown component, a wrong class, or a required component missing.
    """
    unknown = sorted(set(parts) - set(COMPONENTS))
    if unknown:
        raise OptionError(
            "components", f"unknown: {', '.join(unknown)}", f"Known are {', '.join(COMPONENTS)}"
        )
    missing = [name for name, component in COMPONENTS.items() if component.required and name not in parts]
    if missing:
        raise OptionError("components", f"a model cannot do without {', '.join(missing)}")
    index: dict[str, Any] = {"_class_name": PIPELINE_CLASS, "_xdyna_version": package_version()}
    index["_preset"] = dataclasses.asdict(preset or ModelPreset())
    for name, component in COMPONENTS.items():
        if name not in parts:
            index[name] = None
            continue
        # CLIPImageProcessorPil and CLIPTokenizerFast are what some versions make of the classes we name.
        if component.class_name and not parts[name].startswith(component.class_name):
            raise OptionError(name, f"is a {parts[name]}, not a {component.class_name}")
        index[name] = [component.library, component.class_name or parts[name]]
    write_text(folder / INDEX_NAME, json.dumps(index, indent=2) + "\n")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that takes the name `folder` when the block ends well, and vanishes otherwise.

    Raises:
        OutputError: `folder` exists and is not empty (without `overwrite`), or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(folder, "is a file", "Name a folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(folder, "exists and is not empty", "Name another folder, or remove this one")
    _make_folder(folder.parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise OutputError(
            folder, f"cannot be made ({error.strerror or error})", "Name another folder"
        ) from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if folder.is_dir():
            # A folder cannot be replaced by a rename in one step unless it is empty.
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        raise OutputError(
            folder, f"cannot be written ({error.strerror or error})", "Free some space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def folder_hash(folder: str | Path) -> str:
    """A model's identity: sha256 (64 hex digits) over names and contents of its configs and weights.

    Covers model_index.json and every .json, .safetensors and .txt in the folders of the parts it lists; not
    the model card, and not where the folder is or when it was written.

    Raises:
        WeightsError: the folder is no model or a file cannot be read.
    """
    index = read_index(folder)
    paths = [index.folder / INDEX_NAME]
    for part in index.parts:
        paths += [path for path in (index.folder / part).rglob("*") if path.suffix in HASHED_SUFFIXES]
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(index.folder).as_posix()}\0{file_hash(path)}\n".encode())
    return total.hexdigest()


def file_hash(path: str | Path) -> str:
    """sha256 of a file's content, 64 hex digits; read once as long as its size and time stay the same.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        status = Path(path).stat()
        return _file_hash(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise WeightsError(path, f"cannot be read ({error.strerror or error})") from error


@lru_cache(maxsize=1024)
def _file_hash(path: str, size: int, time: int) -> str:  # size and time are there for the cache
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def package_version() -> str:
    """The version of this package, "0" when it runs uninstalled."""
    try:
        return version("xdyna-animate")
    except PackageNotFoundError:
        return "0"


def write_text(path: Path, text: str) -> None:
    """Write a small text file (utf-8).

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(
            path, f"cannot be written ({error.strerror or error})", "Free some space"
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            folder, f"cannot be made ({error.strerror or error})", "Name another folder"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    # Configs hold types such as torch.dtype or tuples inside frozen dictionaries.
    return list(value) if isinstance(value, (tuple, set)) else str(value)
