"""Finding faces with MTCNN: proposals at many sizes, refined twice.

Source: mk-minchul/AdaFace face_alignment/mtcnn.py and mtcnn_pytorch/src/first_stage.py. Two faults of it are
options: `softmax="adaface"` of the first network, and `outside="raise"`: at a box wholly outside of the picture
the published code breaks (and its caller takes the picture for one without faces), while we leave out that box.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from xdyna.errors import OptionError
from xdyna.evaluation.faces.boxes import BoxOutside, calibrated, cut_out, inside, squared, suppressed
from xdyna.evaluation.faces.found import Face
from xdyna.evaluation.faces.mtcnn import Mtcnn, mtcnn_tensor
from xdyna.evaluation.pictures import as_picture

CELL, STRIDE = 12, 2
OUTSIDE = ("drop", "raise")


class MtcnnDetector:
    """Finds faces with MTCNN.

    Args:
        networks: with their weights, see `load_mtcnn`.
        min_face: height of the smallest faces looked for, in pixels.
        factor: from one size of faces to the next.
        thresholds: least scores of the three networks.
        overlaps: from which overlap a worse box is dropped: within one size, over all sizes, after the second
            network, after the third (there as a share of the smaller box).
        outside: what to do at a box that lies wholly outside: "drop" it, or "raise" `BoxOutside` as published.

    Raises:
        OptionError: a value is out of range.
    """

    name = "mtcnn"

    def __init__(
        self,
        networks: Mtcnn,
        *,
        min_face: float = 20.0,
        factor: float = 0.85,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9),
        overlaps: tuple[float, float, float, float] = (0.5, 0.7, 0.7, 0.7),
        outside: str = "drop",
    ) -> None:
        if not (min_face >= 1 and 0 < factor < 1):
            raise OptionError(
                "MTCNN", f"min_face {min_face}, factor {factor}: at least 1, and between 0 and 1"
            )
        if outside not in OUTSIDE:
            raise OptionError("outside", f"{outside!r} is unknown", f"Known are {', '.join(OUTSIDE)}")
        self.networks, self.min_face, self.factor = networks, min_face, factor
        self.thresholds, self.overlaps, self.outside = thresholds, overlaps, outside
        self._device = networks.pnet.conv4_1.weight.device

    def find(self, picture: np.ndarray) -> list[Face]:
        """All faces, in the order of the third network's suppression (best score first).

        Where `detect` gives up at a box outside, there is none, as the published code's caller has it.
        """
        try:
            boxes, points = self.detect(picture)
        except BoxOutside:
            return []
        return [
            Face(box[:4], np.stack([found[:5], found[5:]], 1).astype(np.float64), float(box[4]))
            for box, found in zip(boxes, points, strict=True)
        ]

    @torch.no_grad()
    def detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n 5) with scores, and points (n 10) float32: five x, then five y; in pixels.

        Args:
            picture: (h w 3) uint8 RGB.

        Raises:
            InputError: it is no picture.
            BoxOutside: see `outside`.
        """
        picture = as_picture(picture)
        nothing = np.zeros((0, 5)), np.zeros((0, 10), np.float32)
        boxes = self._proposals(picture)
        if not len(boxes):
            return nothing
        cutouts, boxes = self._cut_out(picture, boxes, 24)
        boxes = self._refined(boxes, cutouts)
        if not len(boxes):
            return nothing
        cutouts, boxes = self._cut_out(picture, boxes, 48)
        if not len(boxes):
            return nothing
        shares_of_box, offsets, shares = (t.cpu().numpy() for t in self.networks.onet(self._tensor(cutouts)))
        good = shares[:, 1] > self.thresholds[2]
        boxes, offsets, shares_of_box = boxes[good], offsets[good], shares_of_box[good]
        boxes[:, 4] = shares[good, 1]
        points = np.empty_like(shares_of_box)
        points[:, :5] = boxes[:, 0:1] + (boxes[:, 2:3] - boxes[:, 0:1] + 1) * shares_of_box[:, :5]
        points[:, 5:] = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2] + 1) * shares_of_box[:, 5:]
        boxes = calibrated(boxes, offsets)
        keep = suppressed(boxes, self.overlaps[3], of_smaller=True)
        return boxes[keep], points[keep]

    def scales(self, size: tuple[int, int]) -> list[float]:
        """By which the picture of size (height, width) is scaled for the first network, largest first."""
        first = CELL / self.min_face
        side = min(size) * first
        scales: list[float] = []
        while side > CELL:
            scales.append(first * self.factor ** len(scales))
            side *= self.factor
        return scales

    def _proposals(self, picture: np.ndarray) -> np.ndarray:
        """(n 5) square boxes of whole pixels."""
        image, found = Image.fromarray(picture), []
        for scale in self.scales((picture.shape[0], picture.shape[1])):
            size = math.ceil(picture.shape[1] * scale), math.ceil(picture.shape[0] * scale)
            scaled = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
            offsets, shares = self.networks.pnet(self._tensor(scaled[None]))
            boxes = proposals(shares[0, 1].cpu().numpy(), offsets.cpu().numpy(), scale, self.thresholds[0])
            found.append(boxes[suppressed(boxes[:, :5], self.overlaps[0])])
        if not sum(map(len, found)):
            return np.zeros((0, 5))
        boxes = np.concatenate(found)
        boxes = boxes[suppressed(boxes[:, :5], self.overlaps[1])]
        return _whole(squared(calibrated(boxes[:, :5], boxes[:, 5:])))

    def _refined(self, boxes: np.ndarray, cutouts: np.ndarray) -> np.ndarray:
        if not len(boxes):
            return boxes
        offsets, shares = (t.cpu().numpy() for t in self.networks.rnet(self._tensor(cutouts)))
        good = shares[:, 1] > self.thresholds[1]
        boxes, offsets = boxes[good], offsets[good]
        boxes[:, 4] = shares[good, 1]
        keep = suppressed(boxes, self.overlaps[2])
        return _whole(squared(calibrated(boxes[keep], offsets[keep])))

    def _cut_out(self, picture: np.ndarray, boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        if self.outside == "drop":
            boxes = boxes[inside(boxes, (picture.shape[0], picture.shape[1]))]
        return cut_out(picture, boxes, side)

    def _tensor(self, pictures: np.ndarray) -> torch.Tensor:
        return mtcnn_tensor(pictures).to(self._device)


def proposals(shares: np.ndarray, offsets: np.ndarray, scale: float, threshold: float) -> np.ndarray:
    """Boxes in the picture from what the first network says of it scaled.

    Args:
        shares: (h w), how much each cell is a face.
        offsets: (1 4 h w).
        scale: of the picture that the network saw.
        threshold: cells above it are taken.

    Returns:
        (n 9): box, share, the four offsets; row by row.
    """
    rows, columns = np.nonzero(shares > threshold)
    corner = np.stack([columns, rows], 1) * STRIDE + 1.0
    edges = np.concatenate([np.round(corner / scale), np.round((corner + CELL) / scale)], 1)
    return np.concatenate([edges, shares[rows, columns][:, None], offsets[0, :, rows, columns]], 1)


def _whole(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.copy()
    boxes[:, :4] = np.round(boxes[:, :4])
    return boxes
