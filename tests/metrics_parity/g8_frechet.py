"""g8: the Frechet distance on given features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tests.metrics_parity.fixture import Case, Check, UnknownCase

from xdyna.evaluation.frechet import Covariance, frechet_distance

EXACT, ROOT = 1e-8, 1e-6
"""Shares of (value + trace) that the exact and the scipy values may be off."""

_ROOTS = {
    "unbiased_scipy_sqrtm": "unbiased",
    "unbiased_disco_fid_from_feats": "unbiased",
    "biased_cdfvd": "biased",
}
_EXACT = {
    "unbiased_exact_low_rank": "unbiased",
    "unbiased_tfgan_svd_float64": "unbiased",
    "biased_exact_low_rank": "biased",
}


def check_distance(case: Case) -> Iterator[Check]:
    """Exact values by our exact form, scipy's by our root form; where the reference raised, ours must not."""
    first, second = (case.input(f"features_{side}") for side in (1, 2))
    trace = float(first.var(axis=0).sum() + second.var(axis=0).sum())
    for name in case.outputs:
        wanted = case.output(name)
        if name in _EXACT:
            yield _against(name, first, second, _EXACT[name], wanted, trace, root=False)
        elif name in _ROOTS:
            exact = float(case.output(f"{_ROOTS[name]}_exact_low_rank"))
            yield _against(name, first, second, _ROOTS[name], wanted, trace, root=True, exact=exact)
        else:
            raise UnknownCase(f"has an unknown output {name!r}")


def _against(
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    covariance: Any,
    wanted: float | str,
    trace: float,
    *,
    root: bool,
    exact: float | None = None,
) -> Check:
    scaling: Covariance = covariance
    method = "sqrtm" if root else "exact"
    got = frechet_distance(first, second, covariance=scaling, method=method)
    tolerance = ROOT if root else EXACT
    if isinstance(wanted, str):  # "raised ...": the reference fails here, so our two forms are held together
        wanted = frechet_distance(first, second, covariance=scaling) if exact is None else exact
    size = abs(wanted) + trace
    # scipy's root of a singular product is itself off by the gap between the two reference values
    gap = 0.0 if exact is None else abs(wanted - exact)
    return Check(name, abs(got - wanted) / size, tolerance + 2 * gap / size)


GROUPS = {"g8_frechet": check_distance}
