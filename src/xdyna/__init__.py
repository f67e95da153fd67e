"""X-Dyna: animate a picture of a person with a driving video, in a living scene.

::

    from xdyna import XDynaPipeline

    output = XDynaPipeline.from_pretrained("embedded")("photo.jpg", "dance.mp4", frames=16)
    output.save("result.mp4")

Names are loaded on first use, so that `import xdyna` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AnimateOptions": "xdyna.options",
    "AnimationOutput": "xdyna.pipeline",
    "Clip": "xdyna.media",
    "Keypoints": "xdyna.conditions.keypoints",
    "ModelPreset": "xdyna.model_preset",
    "XDynaPipeline": "xdyna.pipeline",
    "XDynaUNet": "xdyna.models",
    "XdynaError": "xdyna.errors",
    "animate_file": "xdyna.animate",
}

__all__ = [
    "AnimateOptions",
    "AnimationOutput",
    "Clip",
    "Keypoints",
    "ModelPreset",
    "XDynaPipeline",
    "XDynaUNet",
    "XdynaError",
    "animate_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xdyna' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
