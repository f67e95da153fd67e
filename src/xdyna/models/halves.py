"""Several calls of a denoiser that differ in nothing but their tokens: the halves of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def in_halves(
    unet: Any,
    sample: Tensor,
    timestep: Tensor | float,
    tokens: Sequence[Tensor | None],
    *,
    together: bool,
    share: bool = True,
    down_residuals: Sequence[Tensor] | None = None,
    mid_residual: Tensor | None = None,
    reference_features: Sequence[Tensor] | None = None,
    moved: Tensor | None = None,
    reference_scale: float | Tensor = 1.0,
    motion: Tensor | float | None = None,
    deep: Tensor | None = None,
    keep_deep: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The denoiser's predictions for g guidance halves, in one batch or one after the other.

    What the halves have in common, everything up to the first self-attention, is computed once.

    Args:
        unet: an `XDynaUNet`, whose method this is.
        sample: (b c r+f h w), the same for all halves, as `XDynaUNet.forward` takes it.
        timestep: one number for all.
        tokens: (b n d) of each half, or None for each.
        together: all halves in one batch; otherwise one after the other, in less memory.
        share: False computes the common beginning for each half: one after the other, that holds two maps less of the
            outermost level.
        down_residuals: (b c r+f h w), which serve all halves, or (g b c r+f h w), the first half's first.
        mid_residual: likewise.
        reference_features: (b n c) each, for all halves.
        moved: (b c f h w), for all halves, or None.
        reference_scale: one number, or (b), or (g b).
        motion: likewise, or None.
        deep: what `keep_deep` gave in an earlier call.
        keep_deep: also return what `deep` takes.

    Returns:
        (g b out_channels r+f h w); with `keep_deep` also ((g b r+f) c h/2 w/2).

    Raises:
        OptionError, WeightsError: as `XDynaUNet.forward`.
    """
    batch, count = len(sample), len(tokens)

    def of_rows(value: Any, rows: slice) -> Any:
        """What belongs to some halves of one value for all, one a clip, or one a clip and half."""
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 1:
            return value
        return _repeated(value, (rows.stop - rows.start) // batch) if len(value) == batch else value[rows]

    def of_all(value: Any) -> bool:
        return not isinstance(value, Tensor) or value.ndim == 0 or len(value) in (1, batch)

    begun: list[Tensor] | None = None
    alike = of_all(reference_scale) and of_all(motion) and unet.begins_alike
    if share and count > 1 and alike and not torch.is_grad_enabled():
        begun = unet.begin(
            sample, timestep, reference_features=reference_features, moved=moved,
            reference_scale=reference_scale, motion=motion,
        )  # fmt: skip
    each = count if together else 1
    outputs, deeps = [], []
    for first in range(0, count, each):
        part, rows = tokens[first : first + each], slice(batch * first, batch * (first + each))
        handed = begun
        if begun is not None and each > 1:
            handed, begun = [_repeated(value, each) for value in begun], None
        elif begun is not None and first + each < count:
            handed = [*begun]  # the call empties it: the last one gets the list itself, and so frees the maps
        output = unet(
            _repeated(sample, len(part)),
            timestep,
            None if part[0] is None else torch.cat([one for one in part if one is not None]),
            down_residuals=None
            if down_residuals is None
            else [_shared(v, rows, batch) for v in down_residuals],
            mid_residual=None if mid_residual is None else _shared(mid_residual, rows, batch),
            reference_features=None
            if reference_features is None
            else [_repeated(feature, len(part)) for feature in reference_features],
            moved=None if moved is None else _repeated(moved, len(part)),
            reference_scale=of_rows(reference_scale, rows),
            motion=of_rows(motion, rows),
            deep=None if deep is None else deep.unflatten(0, (count * batch, -1))[rows].flatten(0, 1),
            keep_deep=keep_deep,
            begun=handed,
        )
        if keep_deep:
            output, found = output
            deeps.append(found)
        outputs.append(output)
    prediction = torch.cat(outputs)
    return (prediction, torch.cat(deeps)) if keep_deep else prediction


def _repeated(value: Tensor, times: int) -> Tensor:
    """A value of b clips, for so many halves of them."""
    return value if times == 1 else torch.cat([value] * times)


def _shared(residual: Tensor, rows: slice, batch: int) -> Tensor:
    """The part of a residual that belongs to some halves; one of a single half belongs to all."""
    return residual if len(residual) == batch else residual[rows]
