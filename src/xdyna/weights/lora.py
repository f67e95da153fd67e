"""LoRAs acting in a denoiser's weights: found by name, merged, and taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xdyna.errors import OptionError, WeightsError
from xdyna.models.low_rank import multiplied
from xdyna.weights.folder import fetch, file_hash
from xdyna.weights.keys import first_of
from xdyna.weights.lora_file import BASE_KEY, Lora, read_lora, read_metadata

OWN = "fast"
"""As a LoRA's name: the model's own for few steps."""

FAST_FILE = "fast.safetensors"
"""The LoRA for few steps that a model's folder may hold."""

FILE_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What a LoRA is called in a folder, or in a repository of the hub."""


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA as it is asked for: where it is, and how strongly it is to act."""

    name: str
    scale: float = 1.0

    @staticmethod
    def parse(text: str) -> LoraChoice:
        """ "PATH_OR_HUB_ID" or "PATH_OR_HUB_ID:SCALE".

        Raises:
            OptionError: no name, or a scale that is no finite number.
        """
        name, colon, scale = text.rpartition(":")
        if not colon or Path(text).expanduser().exists():
            name, scale = text, "1"
        try:
            number = float(scale)
        except ValueError:
            name, number = text, 1.0
        if not name or number != number or number in (float("inf"), float("-inf")):
            raise OptionError(
                "--lora", f"got {text!r}", "Write it as PATH or PATH:SCALE, such as lcm.safetensors:0.8"
            )
        return LoraChoice(name, number)


def find_lora(name: str) -> Path:
    """The file of a LoRA: a path, a folder that holds one, or a hub id.

    Raises:
        WeightsError: there is none.
    """
    path = Path(name).expanduser()
    if not path.exists():
        path = fetch(name, [*FILE_NAMES, "*.safetensors"])
    if path.is_dir():
        found = [path / file for file in FILE_NAMES if (path / file).is_file()] or sorted(
            path.glob("*.safetensors")
        )
        if not found:
            raise WeightsError(path, "holds no .safetensors file", "Name the file of the LoRA")
        if len(found) > 1 and found[0].name not in FILE_NAMES:
            raise WeightsError(
                path, f"holds several files ({first_of(file.name for file in found)})", "Name one of them"
            )
        path = found[0]
    if path.suffix != ".safetensors":
        raise WeightsError(path, "is no .safetensors file", "Convert it first; pickled LoRAs are not read")
    return path


class Loras:
    """The LoRAs that act in a network's weights, and the weights as they were, in main memory.

    The same choice gives the same weights, bit for bit, whatever was merged before.

    Args:
        network: the denoiser; changed in place.
        folder: its model's, where the model's own LoRA is looked for; None for a model that came from no files.
        model_hash: `folder_hash` of it.
    """

    def __init__(
        self, network: nn.Module, *, folder: Path | None = None, model_hash: str | None = None
    ) -> None:
        self.network, self.folder, self.model_hash = network, folder, model_hash
        self._kept: list[str] = []
        self._active: list[tuple[LoraChoice, Lora]] = []
        self._originals: dict[str, Tensor] = {}

    def keep(self, name: str, *, scale: float = 1.0) -> None:
        """Let a LoRA act from now on, beside those that `use` names.

        Args:
            name: as `find` takes it.
            scale: strength; 0 takes it out again.

        Raises:
            WeightsError: no such file, or one that does not fit.
        """
        path = str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name
        kept = [text for text in self._kept if LoraChoice.parse(text).name != path]
        if scale:
            kept.append(f"{path}:{scale}")
        before, self._kept = self._kept, kept
        try:
            self.use(())
        except WeightsError:
            self._kept = before
            raise

    def use(self, names: Sequence[str]) -> None:
        """Let these act besides what is kept, and no others.

        Args:
            names: each "PATH_OR_HUB_ID" or "PATH_OR_HUB_ID:SCALE"; the name may be `OWN`.

        Raises:
            OptionError: a name that cannot be read, or a network whose weights are held in 8 bits.
            WeightsError: a file that does not fit; the weights are as they were then.
        """
        choices = [LoraChoice.parse(name) for name in (*self._kept, *names)]
        if not choices and not self._active:
            return
        if any(parametrize.is_parametrized(module) for module in self.network.modules()):
            raise OptionError("--lora", "does not go with weights held in 8 bits", "Leave --weights away")
        files = [self.find(choice.name) for choice in choices]
        digests = [file_hash(path) for path in files]
        if list(zip(choices, digests, strict=True)) == [(c, lora.hash) for c, lora in self._active]:
            return
        loras = [read_lora(path, self.network) for path in files]
        with torch.no_grad():
            self._restore()
            for choice, lora in zip(choices, loras, strict=True):
                self._merge(lora, choice.scale)
        self._active = list(zip(choices, loras, strict=True))

    def own(self) -> Path | None:
        """The model's own LoRA for few steps; None where it has none.

        Raises:
            WeightsError: it was made for other weights.
        """
        path = None if self.folder is None else self.folder / FAST_FILE
        if path is None or not path.is_file():
            return None
        base = read_metadata(path).get(BASE_KEY, "")
        if base and self.model_hash and base != self.model_hash:
            raise WeightsError(
                path, "was distilled from other weights than this model's", "Distil again, or remove it"
            )
        return path

    def find(self, name: str) -> Path:
        """The file of a LoRA: `OWN`, a path, a folder that holds one, or a hub id.

        Raises:
            WeightsError: there is none.
        """
        if name != OWN:
            return find_lora(name)
        path = self.own()
        if path is None:
            raise WeightsError(
                OWN, "this model has no LoRA of its own for few steps", "Name a file with --lora"
            )
        return path

    def describe(self) -> list[dict[str, Any]]:
        """Those that act: name, scale, sha256."""
        return [
            {"name": choice.name, "scale": choice.scale, "sha256": lora.hash} for choice, lora in self._active
        ]

    def _restore(self) -> None:
        parameters = dict(self.network.named_parameters())
        for name, value in self._originals.items():
            parameters[name].copy_(value)
        self._originals, self._active = {}, []

    def _merge(self, lora: Lora, scale: float) -> None:
        parameters = dict(self.network.named_parameters())
        for name, change in lora.changes.items():
            weight = parameters[name]
            if name not in self._originals:
                self._originals[name] = weight.detach().to("cpu", copy=True)
            down, up = (factor.to(weight.device, torch.float32) for factor in (change.down, change.up))
            added = multiplied(down.flatten(1), up.flatten(1)).view(weight.shape)
            weight.copy_(weight.float() + scale * change.scale * added)
