from __future__ import annotations

from pathlib import Path

import pytest

from xdyna.data.prepared.manifest import ClipRow, read_manifest
from xdyna.data.prepared.options import SynthOptions
from xdyna.data.prepared.synth import synth


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with five made clips of 64 x 64, people and scenes. Only to be read."""
    folder = tmp_path_factory.mktemp("made")
    synth(folder, options=SynthOptions(clips=5, frames=20, size="64", seed=3, workers=1))
    return folder


@pytest.fixture(scope="session")
def rows(made: Path) -> list[ClipRow]:
    return read_manifest(made)
