"""Sub-grids of tensors, as the fixtures store them."""

from __future__ import annotations

import re

import numpy as np

from tests.metrics_parity.fixture import Case, UnknownCase

_STEP = re.compile(r"(?:[A-Za-z]+)?::(\d+)")
_FIRST = re.compile(r"(?:[A-Za-z]+)?:(\d+)")


def sampled(case: Case, output: str, whole: np.ndarray) -> np.ndarray:
    """The part of `whole` that an output's "layout" tells: "C,T::5,::7,::7" or "B,tokens::97,:32"."""
    layout = case.outputs[output].get("layout", "")
    axes = [axis.strip() for axis in layout.split(",")]
    if len(axes) != whole.ndim:
        raise UnknownCase(f"{output} has the layout {layout!r} for an array of {whole.ndim} axes")
    places = []
    for axis in axes:
        if step := _STEP.fullmatch(axis):
            places.append(slice(None, None, int(step[1])))
        elif first := _FIRST.fullmatch(axis):
            places.append(slice(int(first[1])))
        else:
            places.append(slice(None))
    return whole[tuple(places)]
