"""One component on its way from official files to ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from xdyna.convert.checkpoint import Checkpoint
from xdyna.convert.report import PartReport
from xdyna.errors import WeightsError
from xdyna.weights.components import COMPONENTS
from xdyna.weights.folder import network_config, stored_state, weight_name, write_config, write_text
from xdyna.weights.keys import check_keys
from xdyna.weights.loading import build_empty, module_name
from xdyna.weights.storage import FORMAT_KEY, STORAGES, LazyTensor, write_safetensors

logger = logging.getLogger(__name__)


@dataclass
class Part:
    """A component's files, not yet written.

    Attributes:
        name: the component.
        files: what it is read from.
        config: content of config.json; None for parts without a network.
        weight_file: name of the weight file.
        tensors: what goes into it.
        origins: where each parameter comes from -> names.
        texts: other files: name -> content.
        notes: for the report.
        checkpoints: open files, closed after writing.
    """

    name: str
    files: tuple[Path, ...] = ()
    config: dict[str, Any] | None = None
    weight_file: str = ""
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.size for tensor in self.tensors.values())

    def report(self) -> PartReport:
        """The part of the report about it."""
        return PartReport(self.name, self.files, dict(self.origins), self.size, tuple(self.notes))

    def write(
        self, folder: Path, *, dtype: torch.dtype, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write the component's folder, tensor by tensor, then let go of what it was read from.

        Args:
            folder: the component's folder; its parent exists.
            dtype: the type of the tensors, for the file's metadata.
            progress: called with (bytes written, bytes in all).

        Raises:
            OutputError: it cannot be written.
            WeightsError: a tensor holds NaN or does not fit into the type.
        """
        folder.mkdir()
        if self.config is not None:
            write_config(folder, self.config)
        for name, text in self.texts.items():
            write_text(folder / name, text)
        if self.tensors:
            storage = next(name for name, stored in STORAGES.items() if stored == dtype)
            metadata = {"format": "pt", FORMAT_KEY: storage}
            write_safetensors(folder / self.weight_file, self.tensors, metadata=metadata, progress=progress)
        for checkpoint in self.checkpoints:
            checkpoint.close()


def plan_network(
    name: str,
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    *,
    subject: Path,
    dtype: torch.dtype,
    prefix: str = "",
    notes: list[str] | None = None,
) -> Part:
    """Plan a component whose parameters all come from one file.

    Args:
        name: the component.
        checkpoint: the file.
        config: content of its config.json.
        subject: the config's file, for messages.
        dtype: what floating tensors become.
        prefix: where in the file the parameters are, such as "image_proj.".
        notes: for the report.

    Raises:
        WeightsError: parameters missing, extra or of another shape, with the likely cause.
    """
    module = build_empty(COMPONENTS[name], config, subject=subject.parent)
    expected = {key: tuple(tensor.shape) for key, tensor in stored_state(module).items()}
    found: dict[str, tuple[int, ...]] = {}
    stored: dict[str, str] = {}
    dropped = []
    for key, shape in checkpoint.part(prefix).items():
        renamed = module_name(key, expected)
        if renamed not in expected and key.endswith(".position_ids"):
            dropped.append(key)  # 0, 1, 2 ...: transformers makes it itself
            continue
        found[renamed], stored[renamed] = shape, prefix + key
    check_keys(checkpoint.path, expected, found, component=name)
    all_notes = list(notes or [])
    if dropped:
        all_notes.append(f"left out, as the network counts by itself: {', '.join(dropped)}")
    return Part(
        name,
        files=(checkpoint.path,),
        config=network_config(module),
        weight_file=weight_name(module),
        tensors={key: checkpoint.lazy(stored[key], dtype) for key in expected},
        origins={checkpoint.path.name: tuple(expected)},
        notes=all_notes,
        checkpoints=(checkpoint,),
    )


def plan_files(name: str, files: Mapping[str, Path]) -> Part:
    """Plan a component that is copied as it is: small text files by their names."""
    texts = {}
    for file_name, path in files.items():
        try:
            texts[file_name] = path.read_text("utf-8")
            if file_name.endswith(".json"):
                json.loads(texts[file_name])
        except (OSError, ValueError) as error:
            raise WeightsError(path, f"cannot be read ({error})", "Download it again") from error
    return Part(name, files=tuple(files.values()), texts=texts)
