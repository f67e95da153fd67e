"""What is known of models: their parts, where each comes from, its licence, whether it is here, its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xdyna.errors import WeightsError
from xdyna.weights.components import COMPONENTS, INDEX_NAME, read_index
from xdyna.weights.folder import EMBEDDED, embedded_dir, file_hash, folder_hash, models_dir
from xdyna.weights.loading import weight_files
from xdyna.weights.official_files import OFFICIAL_FILES, find_official

OFFICIAL = "official"
OWN_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class PartInfo:
    """One part of a known model.

    Attributes:
        name: component or file.
        purpose: what it is for.
        file: where it belongs, relative to the model's folder or to pretrained_weights.
        source: where it comes from.
        licence: its licence; "" when not known.
        required: whether the model can do without it.
        path: where it is; None when it is not here.
        size: its bytes; 0 when not here.
        hash: sha256 of the file; "" when not here or not asked for.
    """

    name: str
    purpose: str
    file: str
    source: str
    licence: str
    required: bool
    path: Path | None = None
    size: int = 0
    hash: str = ""

    @property
    def here(self) -> bool:
        """Whether the file was found."""
        return self.path is not None


@dataclass(frozen=True)
class ModelInfo:
    """One known model.

    Attributes:
        name: what `--model` takes.
        title: what it is, in a line.
        source: where it comes from.
        licence: of the whole; "" when not known.
        remedy: how to get it, as a command or sentence; "" when it is here.
        folder: its folder, there or not.
        here: whether it can be used now.
        hash: `folder_hash`; "" when not here or not asked for.
        problem: why a folder that is there cannot be used; "" else.
        parts: its parts; for the official model the files that conversion reads.
    """

    name: str
    title: str
    source: str
    licence: str
    remedy: str
    folder: Path
    here: bool
    hash: str
    problem: str
    parts: tuple[PartInfo, ...]


def describe_models(models_dir_: str | Path | None = None, *, hashes: bool = True) -> list[ModelInfo]:
    """List the known models: the embedded one, the official one, and every other in the models folder.

    Args:
        models_dir_: where models are; None for `models_dir()`. The official download is looked for in it, as
            `pretrained_weights` or directly, and the converted official model as `official`.
        hashes: compute hashes of what is here, which reads all of it.
    """
    root = Path(models_dir_) if models_dir_ is not None else models_dir()
    infos = [_embedded(hashes), _official(root, hashes)]
    if root.is_dir():
        for path in sorted(root.glob(f"*/{INDEX_NAME}")):
            if path.parent.name not in (OFFICIAL, EMBEDDED) and not path.parent.name.startswith("."):
                infos.append(_local(path.parent, hashes))
    return infos


def _embedded(hashes: bool) -> ModelInfo:
    folder = embedded_dir()
    here, digest, problem, parts = _inspect(folder, hashes, source="in this package", licence=OWN_LICENCE)
    return ModelInfo(
        EMBEDDED,
        "small model trained on synthetic people, runs on a CPU",
        "in this package",
        OWN_LICENCE,
        "" if here else "Install a released package",
        folder,
        here,
        digest,
        problem,
        parts,
    )


def _official(root: Path, hashes: bool) -> ModelInfo:
    folder = root / OFFICIAL
    here, digest, problem, _ = _inspect(folder, hashes, source="", licence="")
    found = find_official(root) if root.is_dir() else {}
    parts = []
    for file in OFFICIAL_FILES:
        path = found.get(file.name)
        parts.append(
            PartInfo(
                file.name,
                file.purpose,
                file.place,
                file.source,
                file.licence,
                file.required,
                path,
                path.stat().st_size if path else 0,
                file_hash(path) if path and hashes else "",
            )
        )
    complete = all(part.here or not part.required for part in parts)
    tree = root / "pretrained_weights"
    remedy = f"xdyna convert official {tree if tree.is_dir() or not complete else root} -o {folder}"
    if not complete:
        remedy = f"Download the parts below into {tree}, then: {remedy}"
    return ModelInfo(
        OFFICIAL,
        "the published X-Dyna model (Stable Diffusion 1.5 size)",
        "https://github.com/bytedance/X-Dyna",
        "several, see the parts",
        "" if here else remedy,
        folder,
        here,
        digest,
        problem,
        tuple(parts),
    )


def _local(folder: Path, hashes: bool) -> ModelInfo:
    here, digest, problem, parts = _inspect(folder, hashes, source=str(folder), licence="")
    return ModelInfo(
        folder.name, "found in the models folder", str(folder), "", "", folder, here, digest, problem, parts
    )


def _inspect(
    folder: Path, hashes: bool, *, source: str, licence: str
) -> tuple[bool, str, str, tuple[PartInfo, ...]]:
    """Whether a model is usable, its hash, why not, and its parts."""
    if not (folder / INDEX_NAME).is_file():
        return False, "", "", ()
    problem = ""
    parts = []
    try:
        for name in read_index(folder).parts:
            component = COMPONENTS[name]
            files = _files(folder, name)
            problem = problem or ("" if files else f"{name}: its files are missing")
            parts.append(
                PartInfo(
                    name,
                    component.purpose,
                    files[0].relative_to(folder).as_posix() if files else f"{name}/",
                    source,
                    licence,
                    component.required,
                    files[0] if files else None,
                    sum(path.stat().st_size for path in files),
                    file_hash(files[0]) if files and hashes else "",
                )
            )
        digest = folder_hash(folder) if hashes and not problem else ""
    except WeightsError as error:
        return False, "", str(error), tuple(parts)
    return not problem, digest, problem, tuple(parts)


def _files(folder: Path, name: str) -> list[Path]:
    if COMPONENTS[name].kind == "network":
        try:
            return weight_files(folder / name)
        except WeightsError:
            return []
    return sorted((folder / name).glob("*.json"))
