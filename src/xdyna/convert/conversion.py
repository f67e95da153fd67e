"""What every conversion does alike: check the request, find gaps, fit the parts together, write the folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from xdyna.convert.part import Part
from xdyna.convert.report import ConversionReport
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.model_preset import ModelPreset
from xdyna.weights.components import COMPONENTS
from xdyna.weights.folder import new_folder, write_index, write_text
from xdyna.weights.official_files import OFFICIAL_FILES

logger = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
Progress = Callable[[str, int, int], None]
"""Called with (component, bytes written, bytes of the component)."""

CARD = """# {title}

Written by `xdyna convert {command}`. What each part was made from and its licence:

{parts}

The weights stay under these licences; `xdyna models` says where each file comes from.
"""


@dataclass(frozen=True)
class Conversion:
    """A conversion whose names and shapes were all compared, and of which nothing is written.

    Attributes:
        root: the official tree.
        parts: the model's parts.
        dtype: type of the stored weights.
        command: which conversion: what follows `xdyna convert`.
        title: heading of the model card.
        sources: names of `OFFICIAL_FILES` for the components that are not called like their file.
        absent: optional components that the source lacks.
    """

    root: Path
    parts: list[Part]
    dtype: torch.dtype
    command: str
    title: str
    sources: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Insist that the parts fit each other, not only themselves.

        Raises:
            WeightsError: they are of different models.
        """
        _check_widths(self.parts)

    def report(self, output: Path | None = None) -> ConversionReport:
        """What was done; nothing yet without `output`."""
        reports = tuple(part.report() for part in self.parts)
        return ConversionReport(self.root, output, self.dtype, reports, self.absent)

    def write(self, output: str | Path, *, progress: Progress | None = None) -> ConversionReport:
        """Write the model's folder, tensor by tensor; it takes its name when it is complete.

        Raises:
            WeightsError: a tensor holds NaN, or does not fit into the type.
            OutputError: `output` exists, cannot be written, or does not fit on the disk.
        """
        target = Path(output).expanduser()
        _check_space(target, sum(part.size for part in self.parts))
        with new_folder(target) as folder:
            classes = {part.name: COMPONENTS[part.name].class_name or "DDIMScheduler" for part in self.parts}
            write_index(folder, classes, preset=ModelPreset())
            for part in self.parts:
                logger.info("writing %s", part.name)
                step = None if progress is None else _named(progress, part.name)
                part.write(folder / part.name, dtype=self.dtype, progress=step)
            lines = "\n".join(self._card_line(part) for part in self.parts)
            card = CARD.format(title=self.title, command=self.command, parts=lines)
            write_text(folder / "README.md", card)
        return self.report(target)

    def _card_line(self, part: Part) -> str:
        if not part.files:
            return f"- {part.name}: settings of the official code"
        source = self.sources.get(part.name, part.name)
        licence = next(file.licence for file in OFFICIAL_FILES if file.name == source)
        return f"- {part.name}: {', '.join(path.name for path in part.files)} ({licence})"


def check_request(output: str | Path | None, *, dtype: torch.dtype, check: bool) -> None:
    """Insist on a type that can be stored, and on an output where something is to be written.

    Raises:
        OptionError: another type, or no output.
    """
    if dtype not in DTYPES:
        names = ", ".join(str(item).removeprefix("torch.") for item in DTYPES)
        raise OptionError("--dtype", f"{dtype} cannot be stored", f"Choose one of {names}")
    if output is None and not check:
        raise OptionError("output", "no folder was named", "Name one with -o, or use --check")


def check_present(root: Path, found: Collection[str], *, needed: Collection[str]) -> None:
    """Insist that the files are there, and name all that are not.

    Args:
        root: the official tree, for the message.
        found: names of the files that are there.
        needed: names of `OFFICIAL_FILES`.

    Raises:
        WeightsError: files are missing.
    """
    missing = [file for file in OFFICIAL_FILES if file.name in needed and file.name not in found]
    if missing:
        listed = "; ".join(f"{file.place} ({file.purpose}, from {file.source})" for file in missing)
        raise WeightsError(
            root, f"{len(missing)} files are missing: {listed}", "Put them there and try again"
        )


def _check_space(target: Path, size: int) -> None:
    place = target.parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise OutputError(
            target,
            f"needs {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB free",
            "Free some space",
        )


def _check_widths(parts: list[Part]) -> None:
    configs = {part.name: part.config or {} for part in parts}
    files = {part.name: part.files[0] for part in parts if part.files}
    width = configs["unet"]["cross_attention_dim"]
    for name, got in (
        ("text_encoder", configs["text_encoder"]["hidden_size"]),
        ("image_projector", configs["image_projector"]["output_dim"]),
    ):
        if got != width:
            raise WeightsError(
                files[name], f"gives tokens {got} wide, the UNet takes {width}", "It is of another model"
            )
    features, taken = configs["image_encoder"]["hidden_size"], configs["image_projector"]["embedding_dim"]
    if features != taken:
        raise WeightsError(
            files["image_encoder"],
            f"gives features {features} wide, IP-Adapter's Resampler takes {taken}",
            "Give models/image_encoder of h94/IP-Adapter (ViT-H), not that of its sdxl_models",
        )


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
