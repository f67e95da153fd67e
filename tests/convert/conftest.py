from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.convert import fake_tree


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_tree.write_tree(tmp_path_factory.mktemp("official"))


@pytest.fixture
def tree(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil, of hard links: replace files, never write into them."""
    return Path(shutil.copytree(whole, tmp_path / "pretrained_weights", copy_function=os.link))
