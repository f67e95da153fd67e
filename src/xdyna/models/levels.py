"""The levels of a U: its down blocks, mid block and up blocks, and the options they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from xdyna.errors import OptionError
from xdyna.models.attention import SpatialTransformer
from xdyna.models.blocks import BlockOptions, DownBlock, MidBlock, UpBlock

DOWN_TYPES = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
UP_TYPES = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}
"""Block type -> whether the level has spatial transformers."""


@dataclass(frozen=True)
class Levels:
    """A U without its first and last convolution; `skips` counts the skip connections."""

    down_blocks: nn.ModuleList
    mid_block: MidBlock
    up_blocks: nn.ModuleList
    skips: int


def make_levels(
    widths: Sequence[int],
    *,
    layers: int,
    down_types: Sequence[str],
    up_types: Sequence[str],
    options: Callable[[int, bool], BlockOptions],
) -> Levels:
    """Build all levels.

    Args:
        widths: of each level, the top one first.
        layers: resnets of a down block; up blocks have one more.
        down_types: a key of `DOWN_TYPES` for each level.
        up_types: a key of `UP_TYPES` for each level, deepest first.
        options: (level, whether it has attention) -> how it is built. The mid block has attention always.
    """
    levels = len(widths)
    skips = [widths[0]]
    down_blocks, up_blocks = nn.ModuleList(), nn.ModuleList()
    for level, kind in enumerate(down_types):
        last = level == levels - 1
        down_block = DownBlock(
            widths[max(level - 1, 0)],
            widths[level],
            layers=layers,
            downsample=not last,
            options=options(level, DOWN_TYPES[kind]),
        )
        down_blocks.append(down_block)
        skips += [widths[level]] * (layers if last else layers + 1)
    number = len(skips)
    mid_block = MidBlock(widths[-1], options(levels - 1, True))
    for level, kind in zip(reversed(range(levels)), up_types, strict=True):
        up_block = UpBlock(
            widths[min(level + 1, levels - 1)],
            widths[level],
            skip_channels=[skips.pop() for _ in range(layers + 1)],
            upsample=level > 0,
            options=options(level, UP_TYPES[kind]),
        )
        up_blocks.append(up_block)
    return Levels(down_blocks, mid_block, up_blocks, number)


def spatial_transformers(network: nn.Module) -> list[nn.Module]:
    """The spatial transformers of a U in the order in which they run.

    That is: down blocks from the top, mid block, up blocks from the bottom, each by its layers. Both a denoiser and a
    `ReferenceNet` register their parts in this order.
    """
    return [module for module in network.modules() if isinstance(module, SpatialTransformer)]


def check_levels(levels: int, down: Sequence[str], up: Sequence[str], heads: Sequence[int]) -> None:
    """Raise OptionError unless every level has its types and heads."""
    if levels < 2:
        raise OptionError("block_out_channels", f"got {levels} level, at least 2 are needed")
    for name, values in (("down_block_types", down), ("up_block_types", up), ("attention_head_dim", heads)):
        if len(values) != levels:
            raise OptionError(name, f"got {len(values)} values for the {levels} levels of block_out_channels")
    for name, values, allowed in (("down_block_types", down, DOWN_TYPES), ("up_block_types", up, UP_TYPES)):
        for kind in values:
            if kind not in allowed:
                raise OptionError(name, f"got {kind!r}, allowed are {', '.join(allowed)}")


def check_groups(name: str, widths: Sequence[int], groups: int) -> None:
    """Raise OptionError unless every width can be split into `groups` groups."""
    for width in widths:
        if groups < 1 or width % groups:
            raise OptionError(name, f"{width} channels cannot be split into {groups} groups")
