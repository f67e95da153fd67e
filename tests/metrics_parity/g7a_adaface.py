"""Group g7a_adaface: AdaFace's input, its first layers, embeddings and cosines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.metrics_parity.fixture import Case, Check, UnknownCase, of_largest, relative
from xdyna.evaluation.faces.adaface import AdaFace, embed_faces, face_tensor, load_adaface

_TOLERANCE = 5e-5
_SAMPLE = (slice(None), slice(None), slice(None, None, 16), slice(None, None, 16))
_BODY = re.compile(r"body(\d+)_mean_hw")


def check_adaface(case: Case) -> Iterator[Check]:
    """One backbone, named by the case: `ir_50` or `ir_101`."""
    number = re.search(r"50|101", case.name)
    if number is None:
        raise UnknownCase("its name tells no backbone (50 or 101)")
    crops = case.input("crops_rgb_112")
    network = _network(case, number[0])
    vectors, lengths = embed_faces(network, crops)
    faces = face_tensor(crops)
    inner = network.input_layer(faces)
    for name in case.outputs:
        wanted = case.output(name)
        if name == "input_tensor_sample":
            yield of_largest(name, faces[_SAMPLE].numpy(), wanted, _TOLERANCE)
        elif name == "embedding_512":
            yield of_largest(name, vectors, wanted, _TOLERANCE)
        elif name == "norm":
            yield relative(name, lengths, wanted, _TOLERANCE)
        elif name == "cosine_matrix":
            yield of_largest(name, vectors @ vectors.T, wanted, _TOLERANCE)
        elif name == "input_layer_sample":
            yield of_largest(name, inner[_SAMPLE].numpy(), wanted, _TOLERANCE)
        elif block := _BODY.fullmatch(name):
            body = network.body[: int(block[1]) + 1](inner)
            yield of_largest(name, body.mean((2, 3)).numpy(), wanted, _TOLERANCE)
        else:
            raise UnknownCase(f"output {name!r}")


def _network(case: Case, number: str) -> AdaFace:
    path = case.network_file(f"adaface_ir{number}")
    return case.shared(number, lambda: load_adaface(f"ir{number}", path))


GROUPS = {"g7a_adaface": check_adaface}
