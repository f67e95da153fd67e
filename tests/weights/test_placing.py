from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from xdyna import weights
from xdyna.errors import OptionError
from xdyna.weights.components import COMPONENTS


def test_what_is_lent() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert weights.lent_parts(cpu, offload=True) == frozenset()
    assert "image_encoder" in weights.lent_parts(gpu, offload=False)
    assert "unet" not in weights.lent_parts(gpu, offload=False)
    assert {"unet", "vae", "face_controlnet"} < weights.lent_parts(gpu, offload=True)
    assert weights.lent_parts(gpu, offload=True) <= set(COMPONENTS)


def test_networks_in_eight_bits(tmp_path: Path) -> None:
    folder = tiny.tiny_model(tmp_path / "model")
    cpu = torch.device("cpu")
    parts = weights.load_placed(folder, dtype=torch.float32, device=cpu, weights_as="int8")
    names = {name.rsplit(".", 1)[-1] for name, _ in parts["unet"].named_parameters()}
    assert "original0" in names
    assert all(value.dtype == torch.float32 for value in parts["vae"].parameters())
    assert parts["text_encoder"] is None
    convolution = parts["pose_controlnet"].down_blocks[0].resnets[0].conv1
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    for wrong in ({"fusing": "quick"}, {"weights_as": "int2"}):
        with pytest.raises(OptionError):
            weights.load_placed(folder, dtype=torch.float32, device=cpu, **wrong)  # type: ignore[arg-type]
