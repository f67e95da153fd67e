from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.pictures_for_tests import noise
from xdyna.errors import InputError
from xdyna.evaluation.faces.align import POINTS_96_112, POINTS_112, align_face, fit_similarity

TARGET = np.array(POINTS_112)


def moved(points: np.ndarray, *, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ (scale * turn).T + shift


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, 3.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_turned_scaled_and_shifted_face_comes_back(angle: float, scale: float) -> None:
    points = moved(TARGET, angle=angle, scale=scale, shift=(50, -20))
    for fault in (False, True):
        matrix = fit_similarity(points, fault=fault)
        assert np.allclose(points @ matrix[:, :2].T + matrix[:, 2], TARGET, atol=1e-3)


def squeezed(share: float) -> np.ndarray:
    middle = TARGET.mean(0)
    return (TARGET - middle) * (share, 1) + middle


def test_profiles_are_mirrored_only_on_request() -> None:
    profile = squeezed(0.2)
    plain, published = fit_similarity(profile), fit_similarity(profile, fault=True)
    assert np.linalg.det(plain[:, :2]) > 0 > np.linalg.det(published[:, :2])

    def error(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(profile @ matrix[:, :2].T + matrix[:, 2] - TARGET))

    assert error(plain) < error(published)
    half = squeezed(0.7)
    assert np.array_equal(fit_similarity(half), fit_similarity(half, fault=True))


def test_the_crop_shows_the_face_upright() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    points = moved(TARGET, angle=0.5, scale=0.9, shift=(70, 10))
    for x, y in points.round().astype(int):
        picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    crop = align_face(picture, points)
    assert crop.shape == (112, 112, 3)
    for x, y in TARGET.round().astype(int):
        assert crop[y, x].min() > 100
    assert align_face(picture, points, side=224).shape == (224, 224, 3)


def test_beyond_the_picture_is_black() -> None:
    crop = align_face(np.full((40, 40, 3), 200, np.uint8), TARGET)
    assert crop[5:35, 5:35].min() == 200
    assert crop[60:].max() == 0


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 7.0),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        TARGET[:4],
        TARGET.ravel(),
    ],
)
def test_points_that_are_no_face_are_refused(points: np.ndarray) -> None:
    for fault in (False, True):
        with pytest.raises(InputError, match="face points"):
            align_face(noise(20, 20), points, fault=fault)


def test_tiny_and_grey_pictures() -> None:
    assert align_face(noise(1, 1), TARGET).shape == (112, 112, 3)
    assert align_face(noise(30, 30)[..., 0], TARGET).shape == (112, 112, 3)
    with pytest.raises(InputError, match="uint8"):
        align_face(noise(30, 30) / 255, TARGET)


def test_the_square_points_are_the_narrow_ones_moved() -> None:
    assert np.allclose(TARGET - POINTS_96_112, (8, 0))
