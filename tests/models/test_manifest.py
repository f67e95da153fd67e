from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from xdyna.models import Resampler, XDynaUNet

FOLDER = Path(os.environ.get("XDYNA_SHARED", Path(__file__).parents[3] / "shared")) / "reference" / "manifest"
needs_manifest = pytest.mark.skipif(not FOLDER.is_dir(), reason="the manifests are not on this machine")


@needs_manifest
@pytest.mark.parametrize(
    ("name", "build", "keys"),
    [
        ("unet", XDynaUNet, 1326),
        ("resampler_image_proj", Resampler, 51),
        ("controlnet_pose", lambda: ControlNetModel(cross_attention_dim=768), 340),
        (
            "controlnet_sface",
            lambda: ControlNetModel(cross_attention_dim=768, conditioning_channels=6),
            340,
        ),
    ],
)
def test_full_size_has_the_published_keys_and_shapes(name: str, build: Any, keys: int) -> None:
    manifest = json.loads((FOLDER / f"{name}.json").read_text())
    with torch.device("meta"):
        network = build()
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert shapes == {key: value["shape"] for key, value in manifest["keys"].items()}
    assert len(shapes) == keys
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["num_params"]
    assert sorted(key for key, _ in network.named_buffers()) == sorted(manifest["buffers"])


def test_resampler_gives_its_tokens() -> None:
    resampler = Resampler(dim=16, depth=2, dim_head=4, heads=3, num_queries=5, embedding_dim=10, output_dim=6)
    features = torch.randn(2, 7, 10)
    tokens = resampler(features)
    assert tokens.shape == (2, 5, 6)
    # no code of place: the order of the features does not matter
    torch.testing.assert_close(resampler(features.flip(1)), tokens)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
