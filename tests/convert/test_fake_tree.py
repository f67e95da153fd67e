"""The fake tree is only worth something if it is like the real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.convert import fake_tree
from tests.convert.fake_tree import Size
from xdyna.convert.unet import unet_config
from xdyna.weights.components import COMPONENTS
from xdyna.weights.loading import build_empty

SHARED = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[2] / ".." / "shared"))
MANIFESTS = SHARED / "reference" / "manifest"


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    path = MANIFESTS / f"{name}.json"
    if not path.is_file():
        pytest.skip("the manifests of the official code are not here (set XDYNA_SHARED)")
    keys = json.loads(path.read_text())["keys"]
    return {key: tuple(value["shape"]) for key, value in keys.items()}


def test_unet_at_full_size_is_the_manifest() -> None:
    assert fake_tree.unet_shapes(Size.full()) == manifest("unet")


@pytest.mark.parametrize(("name", "channels"), [("controlnet_pose", 3), ("controlnet_sface", 6)])
def test_controlnets_at_full_size_are_the_manifests(name: str, channels: int) -> None:
    assert fake_tree.shapes_of(fake_tree.controlnet(Size.full(), channels)) == manifest(name)


def test_resampler_at_full_size_is_the_manifest() -> None:
    assert fake_tree.resampler_shapes(Size.full()) == manifest("resampler_image_proj")


def test_our_unet_from_the_official_config_has_the_official_names() -> None:
    for size in (Size(), Size.full()):
        shapes = fake_tree.unet_shapes(size)
        base = {"_class_name": "UNet2DConditionModel", **size.unet, "sample_size": 64, "act_fn": "silu"}
        config = unet_config(base, shapes, image_tokens=16, subject=Path("config.json"))
        module = build_empty(COMPONENTS["unet"], config, subject="unet")
        assert fake_tree.shapes_of(module) == shapes
