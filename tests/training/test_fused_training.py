"""Whole networks in a training step: everything that can go by the fused kernels does, and gives what it should.

On a GPU, or by Triton's interpreter on a CPU; see tests/models/test_fused.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xdyna.models import Denoiser, fused
from xdyna.models.fusing import fuse
from xdyna.models.low_rank import LowRankDeltas
from xdyna.training.config import TrainConfig
from xdyna.training.distill import StudentLearner
from xdyna.training.networks import build_networks
from xdyna.training.norms import HalfGroupNorm, HalfLayerNorm, halve_norms

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(
        not fused.kernels_available(DEVICE), reason="needs CUDA and triton, or its interpreter"
    ),
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
]


def network(config: TrainConfig, kind: str, *, fusing: str) -> nn.Module:
    """As the trainer makes it ready, with nothing left at zero."""
    networks = build_networks(config, seed=1)
    made: nn.Module = networks.vae
    if kind != "vae":
        poses, faces = networks.pose_controlnet, networks.face_controlnet
        made = Denoiser(networks.unet, pose_controlnet=poses, face_controlnet=faces)
    torch.manual_seed(2)
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    made.to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    halve_norms(made)
    fuse(made, fusing)
    return made.train()


def step(made: nn.Module, config: TrainConfig, kind: str, *, half: bool) -> tuple[Tensor, Tensor]:
    """The output, and all gradients side by side."""
    torch.manual_seed(3)
    latents = config.model.latent_channels

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape).to(DEVICE)

    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=half):
        if kind == "vae":
            pictures = noise(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
            output = made.decode(made.encode(pictures).latent_dist.mean).sample  # type: ignore[operator]
        else:
            output = made(
                noise(2, latents, 2, 8, 8), torch.tensor([300, 700], device=DEVICE), reference=noise(2, latents, 8, 8),
                pose=noise(2, 2, 3, 64, 64), face=noise(2, 2, 6, 64, 64), reference_scale=torch.ones(2, device=DEVICE),
                temporal=kind == "clips",
            )  # fmt: skip
    output.float().square().mean().backward()
    gradients = [p.grad.float().flatten() for p in made.parameters() if p.grad is not None]
    return output.detach().float(), torch.cat(gradients)


def apart(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("kind", ["vae", "image", "clips"])
def test_in_float32_a_step_is_the_plain_one(smoke_config: TrainConfig, kind: str) -> None:
    plain = step(network(smoke_config, kind, fusing="never"), smoke_config, kind, half=False)
    quick = step(network(smoke_config, kind, fusing="always"), smoke_config, kind, half=False)
    limit = 1e-4 if DEVICE == "cpu" else 1e-2  # a GPU's convolutions may round to TF32
    assert quick[1].shape == plain[1].shape
    assert apart(quick[0], plain[0]) < limit
    assert apart(quick[1], plain[1]) < limit


# the interpreter cannot multiply matrices of bfloat16, as attention over time does
@pytest.mark.parametrize("kind", ["vae", "image", "clips"] if DEVICE == "cuda" else ["vae", "image"])
def test_in_half_precision_no_norm_goes_the_plain_way(
    smoke_config: TrainConfig, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = step(network(smoke_config, kind, fusing="never"), smoke_config, kind, half=False)
    plain = step(network(smoke_config, kind, fusing="never"), smoke_config, kind, half=True)
    missed: list[str] = []
    for norm in (HalfGroupNorm, HalfLayerNorm):

        def noted(self: nn.Module, input: Tensor, **options: int) -> Tensor:
            missed.append(f"{type(self).__name__} {input.dtype} {tuple(input.shape)} {input.stride()}")
            return input

        monkeypatch.setattr(norm, "plain", noted)
    quick = step(network(smoke_config, kind, fusing="half"), smoke_config, kind, half=True)
    assert not missed
    for one, other, exact in zip(quick, plain, true, strict=True):
        assert apart(one, exact) < 2 * apart(other, exact) + 1e-3, "no more rounding than without"


@pytest.mark.parametrize("convolutions", [False, True])
def test_a_student_learns_the_same(smoke_config: TrainConfig, convolutions: bool) -> None:
    """Low-rank changes reach the fused layers, whose own weights stay as they are."""
    found = []
    for fusing in ("never", "always"):
        made = network(smoke_config, "clips", fusing=fusing).requires_grad_(False)
        assert isinstance(made, Denoiser)
        torch.manual_seed(4)
        changes = LowRankDeltas(made.unet, rank=2, convolutions=convolutions)
        for name, parameter in changes.named_parameters():
            nn.init.normal_(parameter, std=0.1 if "lora_B" in name else 0.5)
        learner = StudentLearner(made, changes.to(DEVICE))
        output = answer(learner, smoke_config)
        output.square().mean().backward()
        gradients = [p.grad.flatten() for p in changes.parameters() if p.grad is not None]
        found.append((output.detach(), torch.cat(gradients)))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 2e-3 * theirs.norm()


def answer(learner: StudentLearner, config: TrainConfig) -> Tensor:
    """A student's output for a batch drawn here."""
    torch.manual_seed(3)
    latents = config.model.latent_channels
    times = torch.tensor([499, 999], device=DEVICE)
    given = {
        "reference": torch.randn(2, latents, 8, 8).to(DEVICE),
        "pose": torch.rand(2, 2, 3, 64, 64).to(DEVICE),
    }
    output: Tensor = learner(torch.randn(2, latents, 2, 8, 8).to(DEVICE), times, given)
    return output
