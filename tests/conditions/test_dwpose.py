"""DWPose's arithmetic on tiny networks of the same inputs and outputs, which see bright pixels.

The detector net finds one person where its constants say; the pose net scores every column and row of its
crop by the brightness of two channels, so that every point lies at the crop's brightest place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdyna.conditions.detect import make_detector
from xdyna.conditions.dwpose import DwposeDetector, decode_simcc, decode_yolox, to_keypoints
from xdyna.errors import InputError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BOX_SIZE, POSE_SIZE = (64, 64), (96, 72)


def save(
    path: Path, nodes: list, output_names: list[str], constants: dict[str, np.ndarray], size: tuple
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in output_names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def yolox_rows(boxes: list[tuple[float, float, float, float, float]]) -> np.ndarray:
    """Raw output that decodes to the boxes (left, top, right, bottom, score) at input size."""
    cells = [(s, c, r) for s in (8, 16, 32) for r in range(BOX_SIZE[0] // s) for c in range(BOX_SIZE[1] // s)]
    rows = np.zeros((1, len(cells), 85), np.float32)
    for place, (left, top, right, bottom, score) in zip((5, 40, 70), boxes, strict=False):
        stride, column, row = cells[place]
        rows[0, place, 0] = (left + right) / 2 / stride - column
        rows[0, place, 1] = (top + bottom) / 2 / stride - row
        rows[0, place, 2:4] = np.log([(right - left) / stride, (bottom - top) / stride])
        rows[0, place, 4:6] = (score, 1.0)
    return rows


def doubled(n: int) -> np.ndarray:
    """(n 2n): every value twice, the second time at half its height so that the first is the maximum."""
    return (np.repeat(np.eye(n), 2, 1) * np.tile([1.0, 0.5], n)).astype(np.float32)


def networks(
    folder: Path, boxes: list[tuple[float, float, float, float, float]], *, points: int = 133
) -> Path:
    from onnx import helper

    folder.mkdir(exist_ok=True)
    # rows + 0 * mean(input): constant, yet a network of its input
    save(
        folder / "yolox_tiny.onnx",
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["rows", "nothing"], ["output"]),
        ],
        ["output"],
        {"zero": np.zeros(1, np.float32), "rows": yolox_rows(boxes)},
        BOX_SIZE,
    )
    height, width = POSE_SIZE
    # Column and row profiles, repeated to half pixels: [1, n] -> [1, points, 2 n]
    save(
        folder / "dw-ll_tiny.onnx",
        [
            helper.make_node("ReduceMax", ["input"], ["across"], axes=[1, 2], keepdims=0),
            helper.make_node("ReduceMax", ["input"], ["down"], axes=[1, 3], keepdims=0),
            *(
                node
                for name, n in (("across", width), ("down", height))
                for node in (
                    helper.make_node("MatMul", [name, f"{name}_spread"], [f"{name}_fine"]),
                    helper.make_node("Unsqueeze", [f"{name}_fine", "one"], [f"{name}_row"]),
                    helper.make_node("Expand", [f"{name}_row", f"{name}_shape"], [f"simcc_{name}"]),
                )
            ),
        ],
        ["simcc_across", "simcc_down"],
        {
            "one": np.array([1], np.int64),
            "across_spread": doubled(width),
            "down_spread": doubled(height),
            "across_shape": np.array([1, points, 2 * width], np.int64),
            "down_shape": np.array([1, points, 2 * height], np.int64),
        },
        POSE_SIZE,
    )
    return folder


def test_a_bright_dot_is_found_where_it_is(tmp_path: Path) -> None:
    frame = np.zeros((200, 160, 3), np.uint8)
    frame[118:123, 70:75] = 255  # its centre in our coordinates: (72.5, 120.5)
    ratio = 64 / 200
    box = (30 * ratio, 40 * ratio, 110 * ratio, 190 * ratio, 0.9)
    detector = DwposeDetector(networks(tmp_path / "dw", [box]))
    ((found,),) = detector.stream([frame])
    body = found.keypoints.body[0]
    # The crop is enlarged or shrunk to 96 x 72 and places are half pixels of it, so about two pixels are lost.
    np.testing.assert_allclose(body[:, :2], np.tile([72.5, 120.5], (18, 1)), atol=2.6)
    assert body[:, 2].min() == 1
    assert found.keypoints.size == (200, 160)
    np.testing.assert_allclose(found.keypoints.face[0, :, :2], body[:1, :2].repeat(68, 0))


def test_people_largest_first_without_doubles_and_weak_ones(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    small, large = (2, 2, 20, 30, 0.8), (24, 4, 60, 60, 0.7)
    detector = DwposeDetector(networks(tmp_path / "dw", [small, large]))
    boxes = detector._find_boxes(frame)
    np.testing.assert_allclose(boxes, [large[:4], small[:4]], atol=1e-3)
    double = (25, 4, 60, 61, 0.6)
    detector = DwposeDetector(networks(tmp_path / "double", [small, large, double]))
    assert len(detector._find_boxes(frame)) == 2
    weak = (2, 2, 20, 30, 0.2)
    assert len(DwposeDetector(networks(tmp_path / "weak", [weak]))._find_boxes(frame)) == 0
    assert list(DwposeDetector(tmp_path / "weak").stream([frame])) == [[]]


def test_decoding_by_hand() -> None:
    rows = yolox_rows([(8, 16, 24, 48, 0.5)])[0]
    boxes, scores = decode_yolox(rows, BOX_SIZE)
    np.testing.assert_allclose(boxes[5], [8, 16, 24, 48], rtol=1e-5)
    assert scores[5] == pytest.approx(0.5)
    across, down = np.zeros((2, 10)), np.zeros((2, 8))
    across[0, 7], down[0, 3] = 0.9, 0.6
    across[1, 2], down[1, 5] = 1.7, 1.2
    np.testing.assert_allclose(decode_simcc(across, down), [[3.5, 1.5, 0.6], [1.0, 2.5, 1.0]])


def test_wholebody_layout() -> None:
    points = np.stack([np.arange(133), 1000 + np.arange(133), np.ones(133)], 1).astype(float)
    points[6, 2] = 0.4
    one = to_keypoints(points, (10, 10))
    # nose, neck, right shoulder elbow wrist, left ..., hips, eyes, ears by COCO's numbers
    assert one.body[0, [0, 2, 3, 4, 5, 6, 7], 0].tolist() == [0, 6, 8, 10, 5, 7, 9]
    assert one.body[0, 8:, 0].tolist() == [12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    np.testing.assert_allclose(one.body[0, 1], [5.5, 1005.5, 0.4], rtol=1e-6)
    assert one.face[0, [0, 67], 0].tolist() == [23, 90]
    assert one.left_hand[0, [0, 20], 0].tolist() == [91, 111]
    assert one.right_hand[0, [0, 20], 0].tolist() == [112, 132]


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        make_detector("dwpose", folder=tmp_path / "absent")
    with pytest.raises(InputError, match=r"no \*yolox\*\.onnx in it"):
        make_detector("dwpose", folder=tmp_path)
    folder = networks(tmp_path / "dw", [(8, 8, 40, 60, 0.9)])
    (folder / "yolox_other.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"several files match: yolox_other\.onnx, yolox_tiny\.onnx"):
        make_detector("dwpose", folder=folder)
    (folder / "yolox_other.onnx").unlink()
    pose = (folder / "dw-ll_tiny.onnx").read_bytes()
    (folder / "yolox_tiny.onnx").write_bytes(pose)
    with pytest.raises(InputError, match=r"yolox_tiny\.onnx: has 1 inputs and 2 outputs, not 1 and 1"):
        make_detector("dwpose", folder=folder)
    (folder / "yolox_tiny.onnx").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="no ONNX network that can be run"):
        make_detector("dwpose", folder=folder)
    other = networks(tmp_path / "other", [(8, 8, 40, 60, 0.9)], points=17)
    with pytest.raises(InputError, match="gives 17 points, not COCO-WholeBody's 133"):
        list(make_detector("dwpose", folder=other).stream([np.zeros((64, 64, 3), np.uint8)]))
