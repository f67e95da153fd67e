"""Group g7b_align: the reference points, and fit and crop of single faces, published faults included."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.metrics_parity.fixture import Case, Check, UnknownCase, absolute, exact
from xdyna.evaluation.faces.align import POINTS_96_112, POINTS_112, align_face, fit_similarity

_MATRIX, _POINTS = 1e-4, 1e-6
_MEAN_LEVELS, _LEVELS, _SHARE_BEYOND = 0.5, 2, 0.01


def check_align(case: Case) -> Iterator[Check]:
    """The table of points, or one face."""
    if "landmarks_xy_5x2" not in case.inputs:
        for name, points in (("points_112_square", POINTS_112), ("points_96x112", POINTS_96_112)):
            yield absolute(name, points, case.output(name), _POINTS)
        return
    points = case.input("landmarks_xy_5x2")
    height, width = case.input("crop_size")
    if height != width:
        raise UnknownCase(f"a crop of {height}x{width}")
    plain = fit_similarity(points, side=height)
    published = fit_similarity(points, side=height, fault=True)
    difference = float(np.abs(plain - published).max())
    for name in case.outputs:
        wanted = case.output(name)
        if name == "matrix_2x3_used":
            yield absolute(name, published, wanted, _MATRIX)
        elif name == "matrix_2x3_non_reflective_lstsq":
            yield absolute(name, plain, wanted, _MATRIX)
        elif name == "reference_chose_reflection":
            yield exact(name, bool(np.linalg.det(published[:, :2]) < 0), wanted)
        elif name == "max_abs_difference_of_the_two_matrices":
            yield absolute(name, difference, wanted, _MATRIX)
        elif name == "crop_rgb":
            crop = align_face(case.input("image_rgb"), points, side=height, fault=True)
            levels = np.abs(crop.astype(int) - wanted)
            yield Check("crop_rgb, mean", float(levels.mean()), _MEAN_LEVELS)
            yield Check("crop_rgb, share beyond 2 levels", float((levels > _LEVELS).mean()), _SHARE_BEYOND)
        else:
            raise UnknownCase(f"output {name!r}")


GROUPS = {"g7b_align": check_align}
