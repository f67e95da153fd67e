"""Finished models averaged: one that lies between runs which went on from one another.

Weights that a run ends with still carry the noise of its last steps and clips. Where runs began from the same weights,
the middle between their ends often does a little better than each (Wortsman et al. 2022, "Model soups"), at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdyna.errors import OptionError, WeightsError
from xdyna.weights import COMPONENTS, load_components, read_index, resolve, save_model

BEGINS_AT_ZERO = ("moved_in.weight",)
"""Weights that a model may get when it is trained further; one without them counts as one with zeros."""


@torch.no_grad()
def average_models(
    models: Sequence[str | Path], output: str | Path, *, shares: Sequence[float] | None = None,
    storage: str = "int8",
) -> None:  # fmt: skip
    """Write a model whose weights are the mean of several models'.

    Args:
        models: two or more folders, names or hub ids; scheduler, presets and what is no network come from the first,
            which has all that the others have.
        output: the folder to write; it must not be there yet.
        shares: weight of each model in the mean; equal by default. They are divided by their sum.
        storage: as in `xdyna.weights.save_model`.

    Raises:
        OptionError: fewer than two models, or shares that do not fit.
        WeightsError: a model cannot be read, or has other parts or widths than the first.
        OutputError: the folder is there, or cannot be written.
    """
    parts = _normalised(shares, len(models))
    folders = [resolve(str(model)) for model in models]
    indices = [read_index(folder) for folder in folders]
    for folder, index in zip(folders[1:], indices[1:], strict=True):
        if index.parts != indices[0].parts:
            raise WeightsError(
                folder,
                f"has other parts than {folders[0]}",
                "Average models of one config, such as one's runs",
            )
    total = load_components(folders[0])
    networks = {name: value for name, value in total.items() if isinstance(value, nn.Module)}
    for network in networks.values():
        _scale(network, parts[0])
    for folder, part in zip(folders[1:], parts[1:], strict=True):
        for name, network in networks.items():
            other = load_components(folder, names=[name])[name]
            _add(network, other, part, subject=f"{folder}/{name}")
    given = {name: total[name] for name in COMPONENTS if total.get(name) is not None}
    save_model(output, given, storage=storage, preset=indices[0].preset, card=_card(models, parts))


def _normalised(shares: Sequence[float] | None, count: int) -> list[float]:
    if count < 2:
        raise OptionError("models", f"got {count}, and a mean needs two", "Name two models or more")
    values = [1.0] * count if shares is None else list(shares)
    if len(values) != count or min(values) < 0 or sum(values) <= 0:
        raise OptionError(
            "--shares", f"got {len(values)} for {count} models", "Give one number a model, none below 0"
        )
    return [value / sum(values) for value in values]


def _floats(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}


def _scale(network: nn.Module, part: float) -> None:
    for value in _floats(network).values():
        value.mul_(part)


def _add(network: nn.Module, other: Any, part: float, *, subject: str) -> None:
    mine, theirs = _floats(network), _floats(other)
    # a run may have added what its beginning lacked, and what starts at zero was zero there
    theirs = {
        name: torch.zeros_like(value) for name, value in mine.items() if name in BEGINS_AT_ZERO
    } | theirs
    differing = [name for name in mine if name not in theirs or mine[name].shape != theirs[name].shape]
    if differing or len(mine) != len(theirs):
        raise WeightsError(
            subject, f"does not fit the first model's ({', '.join(differing[:3]) or 'more weights'})",
            "Average models of one config, such as one's runs",
        )  # fmt: skip
    for name, value in mine.items():
        value.add_(theirs[name], alpha=part)


def _card(models: Sequence[str | Path], parts: Sequence[float]) -> str:
    named = ", ".join(f"{part:.3g} of {Path(model).name}" for model, part in zip(models, parts, strict=True))
    return f"# X-Dyna, averaged\n\nMean of the weights of several models (`xdyna.training.averaging`): {named}.\n"
