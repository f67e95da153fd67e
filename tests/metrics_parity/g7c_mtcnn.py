"""Group g7c_mtcnn: the three networks, the arithmetic of boxes, and the whole detector in both softmax modes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import numpy as np

from tests.metrics_parity.fixture import Case, Check, UnknownCase, absolute, exact, of_largest
from xdyna.evaluation.faces.align import align_face
from xdyna.evaluation.faces.boxes import BoxOutside, calibrated, cut_out, squared, suppressed
from xdyna.evaluation.faces.detect import MtcnnDetector, proposals
from xdyna.evaluation.faces.mtcnn import NAMES, Mtcnn, load_mtcnn, mtcnn_tensor
from xdyna.evaluation.packaged import find_file
from xdyna.evaluation.registry import MissingWeights

_BOXES, _INDICES, _CUTOUTS, _PIXELS = 1e-9, 1e-6, 5e-3, 0.05
_NMS = re.compile(r"nms_(?P<kind>union|min)_(?P<overlap>[\d.]+)")


def check_mtcnn(case: Case) -> Iterator[Check]:
    """One case, told by its inputs."""
    if case.name.startswith(NAMES):
        yield from _check_network(case)
    elif "boxes_xyxy_score" in case.inputs:
        yield from _check_boxes(case)
    elif "square_boxes" in case.inputs:
        yield from _check_cutouts(case)
    elif "prob" in case.inputs:
        got = proposals(
            case.input("prob"), case.input("offsets"), case.input("scale"), case.input("threshold")
        )
        yield absolute("boxes", got, case.output("boxes"), _INDICES)
    elif "softmax" in case.inputs:
        yield from _check_detector(case)
    else:
        raise UnknownCase(f"inputs {', '.join(case.inputs)}")


def _check_network(case: Case) -> Iterator[Check]:
    pictures = mtcnn_tensor(case.input("rgb"))
    if case.name.startswith("pnet"):
        by_class, by_width = (_networks(case, mode).pnet for mode in ("class", "adaface"))
        offsets, logits = by_class.logits(pictures)
        got = {
            "offsets": offsets,
            "class_logits": logits,
            "prob_class_softmax": by_class(pictures)[1],
            "prob_as_adaface": by_width(pictures)[1],
        }
    elif case.name.startswith("rnet"):
        got = dict(zip(("offsets", "prob"), _networks(case, "class").rnet(pictures), strict=True))
    else:
        got = dict(
            zip(("landmarks", "offsets", "prob"), _networks(case, "class").onet(pictures), strict=True)
        )
    for name in case.outputs:
        if name not in got:
            raise UnknownCase(f"output {name!r}")
        yield of_largest(name, got[name].numpy(), case.output(name))


def _check_boxes(case: Case) -> Iterator[Check]:
    boxes = case.input("boxes_xyxy_score")
    for name in case.outputs:
        wanted = case.output(name)
        if match := _NMS.fullmatch(name):
            got = suppressed(boxes, float(match["overlap"]), of_smaller=match["kind"] == "min")
            yield exact(name, got, wanted)
        elif name == "square":
            # the published function forgets the scores, which are written anew right afterwards
            yield absolute(name, squared(boxes)[:, :4], wanted[:, :4], _BOXES)
        elif name == "calibrated":
            yield absolute(name, calibrated(boxes, case.input("offsets")), wanted, _BOXES)
        else:
            raise UnknownCase(f"output {name!r}")


def _check_cutouts(case: Case) -> Iterator[Check]:
    wanted = case.output("cutouts")
    cutouts, clipped = cut_out(case.input("rgb"), case.input("square_boxes"), wanted.shape[-1])
    yield absolute("cutouts", mtcnn_tensor(cutouts).numpy(), wanted, _CUTOUTS)
    yield absolute("boxes_after_call", clipped, case.output("boxes_after_call"), _BOXES)


def _check_detector(case: Case) -> Iterator[Check]:
    real = "REAL" in str(case.inputs.get("weights", ""))
    try:
        networks = _real_networks(case) if real else _networks(case, case.input("softmax"))
    except MissingWeights as missing:
        # the case's own words: "skip this case where they are absent"
        case.used.update(case.outputs)
        yield Check(f"skipped, {missing}", 0.0, 0.0)
        return
    picture, overlaps = case.input("rgb"), case.input("nms", [0.5, 0.7, 0.7, 0.7])
    for name in case.outputs:
        what, _, told = name.partition("@")
        thresholds = tuple(ast.literal_eval(told)) if told else (0.6, 0.7, 0.9)
        detector = MtcnnDetector(
            networks,
            min_face=case.input("min_face", 20),
            factor=case.input("factor", 0.85),
            overlaps=tuple(overlaps),
            thresholds=thresholds,
            outside="raise",
        )
        wanted = case.output(name)
        if what == "scales":
            yield absolute(name, detector.scales(picture.shape[:2]), wanted, 1e-12)
        elif isinstance(wanted, str):
            yield exact(f"{name}: {wanted[:40]}", _gives_up(detector, picture), wanted.startswith("raised"))
        else:
            boxes, points = case.shared((case.name, thresholds), lambda d=detector: d.detect(picture))
            if what == "n":
                yield exact(name, len(boxes), wanted)
            elif what == "aligned_crop_of_first":
                crop = align_face(picture, np.stack([points[0, :5], points[0, 5:]], 1), fault=True)
                yield Check(name, float(np.abs(crop.astype(int) - wanted).mean()), 0.5)
            else:
                yield absolute(name, {"boxes": boxes, "landmarks": points}[what], wanted, _PIXELS)


def _gives_up(detector: MtcnnDetector, picture: np.ndarray) -> bool:
    """Whether the published detector would break: at a box outside, or since no proposal is left to stack."""
    try:
        return not len(detector.detect(picture)[0])
    except BoxOutside:
        return True


def _networks(case: Case, softmax: str) -> Mtcnn:
    p, r, o = (case.network_file(f"mtcnn_{name}") for name in NAMES)
    return case.shared(softmax, lambda: load_mtcnn(p, r, o, softmax=softmax))


def _real_networks(case: Case) -> Mtcnn:
    softmax = case.input("softmax")
    files = [find_file(f"mtcnn_{name}") for name in NAMES]
    return case.shared(("real", softmax), lambda: load_mtcnn(*files, softmax=softmax))


GROUPS = {"g7c_mtcnn": check_mtcnn}
