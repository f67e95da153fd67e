from __future__ import annotations

from pathlib import Path

import pytest

import xdyna
from tests.contracts.imports import FLOOR, violations

SOURCE = Path(xdyna.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = ["xdyna", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_run_downhill(path: Path) -> None:
    broken = violations(dotted(path), path.read_text(encoding="utf-8"), package=path.name == "__init__.py")
    assert not broken, "\n".join(broken)


def test_the_checker_sees_the_modules() -> None:
    seen = {dotted(path) for path in MODULES}
    assert {"xdyna", "xdyna.errors", "xdyna.media", "xdyna.media.video", "xdyna.models.unet"} <= seen


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        (
            "xdyna.media.video",
            "from xdyna.pipeline import XDynaPipeline",
            "pipeline does not lie below media",
        ),
        (
            "xdyna.media.video",
            "def f():\n    from xdyna import pipeline",
            "pipeline does not lie below media",
        ),
        (
            "xdyna.media.video",
            "class A:\n  def f(self):\n    import xdyna.cli",
            "cli does not lie below media",
        ),
        ("xdyna.media.video", "from ..sampling.loop import denoise", "sampling does not lie below media"),
        ("xdyna.media.video", "from .. import sampling", "sampling does not lie below media"),
        ("xdyna.media.video", "from xdyna.options import parse_size", "options does not lie below media"),
        ("xdyna.errors", "from xdyna.media import Clip", "media does not lie below errors"),
        ("xdyna.cli", "from xdyna import XDynaPipeline", "which is no room"),
        ("xdyna.attic.box", "", "is on no floor"),
        ("xdyna", "from xdyna.errors import XdynaError", "the package's names are loaded on first use"),
        ("xdyna.models.unet", "import transformers", "imports transformers when loaded"),
        (
            "xdyna.models.unet",
            "def f():\n    import cv2",
            "models may import diffusers, einops, numpy, torch only",
        ),
        ("xdyna.models.unet", "try:\n    import xformers\nexcept ImportError:\n    pass", "imports xformers"),
        ("xdyna.models.unet", "import triton.language as tl", "imports triton when loaded"),
        ("xdyna.models.unet", "def f():\n    import triton", "models may import diffusers"),
        ("xdyna.models.unet", "from xdyna.models import kernels", "imports xdyna.models.kernels when loaded"),
        ("xdyna.models.unet", "from . import kernels", "imports xdyna.models.kernels when loaded"),
        ("xdyna.conditions.draw", "from PIL import Image", "conditions may import cv2, numpy only"),
        ("xdyna.conditions.detect", "import mediapipe as mp", "imports mediapipe when loaded"),
        ("xdyna.conditions.detect", "import mediapipe as mp", "conditions may import cv2, numpy only"),
        ("xdyna.media.video", "import av.error", "imports av when loaded"),
        ("xdyna.training.loop", "def f():\n    import torchvision.io", "which the project does without"),
    ],
)
def test_the_checker_catches(module: str, source: str, problem: str) -> None:
    package = module == "xdyna"
    assert any(problem in said for said in violations(module, source, package=package))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("xdyna.media.video", "import os\nimport numpy as np\nfrom xdyna.errors import InputError"),
        ("xdyna.media.video", "from xdyna.media.files import existing_file\nfrom . import image"),
        ("xdyna.media.video", "def f():\n    import av"),
        ("xdyna.media.video", "if TYPE_CHECKING:\n    import av"),
        ("xdyna.models.unet", "import torch\nfrom diffusers import ModelMixin\nfrom einops import rearrange"),
        ("xdyna.conditions.detect", "def f():\n    from mediapipe.python.solutions import holistic"),
        ("xdyna.models.kernels.bias", "import torch\nimport triton\nimport triton.language as tl"),
        ("xdyna.models.fused", "def f():\n    from xdyna.models import kernels"),
        ("xdyna.pipeline", "from xdyna import __version__, media\nimport xdyna"),
        ("xdyna.cli", "def f():\n    from xdyna.training import run"),
    ],
)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_architecture_names_every_room() -> None:
    architecture = Path(__file__).parents[2] / "docs" / "architecture.md"
    text = architecture.read_text(encoding="utf-8")
    unnamed = [room for room in FLOOR if room not in text and room != "__main__"]
    assert not unnamed, f"docs/architecture.md does not mention {', '.join(unnamed)}"
