"""A tiny model of the real classes, and synthetic inputs, for tests that need a whole pipeline."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler

from xdyna import weights
from xdyna.conditions.keypoints import Keypoints
from xdyna.model_preset import ModelPreset
from xdyna.models import ReferenceEncoder, ReferenceNet, XDynaUNet
from xdyna.pipeline import XDynaPipeline

PRESET = ModelPreset(
    height=80, width=80, multiple=8, steps=2, guidance=1.0, stretch_conditions=False, fps=8.0
)


def tiny_components(
    seed: int = 0, *, reference: str = "dynamics-adapter", moved: bool = False
) -> dict[str, Any]:
    """UNet, ControlNets, autoencoder and scheduler of an embedded kind, every weight alive."""
    by_tokens = reference == "ip-adapter"
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        force_upcast=False,
    )
    unet = XDynaUNet(
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D",) * 2,
        up_block_types=("CrossAttnUpBlock3D",) * 2,
        attention_head_dim=2,
        cross_attention_dim=12 if by_tokens else None,
        norm_num_groups=4,
        motion_heads=2,
        motion_norm_groups=4,
        image_tokens=4 if by_tokens else 0,
        text_tokens=not by_tokens,
        reference=reference,
        moved_reference=moved,
    )
    control = [
        ControlNetModel(
            conditioning_channels=channels,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2,
            mid_block_type="UNetMidBlock2D",
            norm_num_groups=4,
            conditioning_embedding_out_channels=(4, 4, 8, 8),
        )
        for channels in (3, 6)
    ]
    shown = {
        "reference-net": ("reference_net", lambda: ReferenceNet.for_denoiser(unet)),
        "ip-adapter": (
            "reference_encoder",
            lambda: ReferenceEncoder(dim=8, depth=1, heads=2, num_queries=4, output_dim=12),
        ),
    }
    extra: dict[str, Any] = {}
    if reference in shown:
        name, build = shown[reference]
        extra[name] = build()
    for network in (unet, *control, *extra.values()):
        for parameter in network.parameters():
            # zero-initialised layers would hide whatever they guard
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "pose_controlnet": control[0].eval(),
        "face_controlnet": control[1].eval(),
        "scheduler": scheduler,
        **{name: network.eval() for name, network in extra.items()},
    }


def tiny_pipeline(seed: int = 0, *, reference: str = "dynamics-adapter") -> XDynaPipeline:
    return XDynaPipeline(**tiny_components(seed, reference=reference), preset=PRESET, name="tiny")


def tiny_model(folder: Path) -> Path:
    """The same model on disk."""
    weights.save_model(folder, tiny_components(), storage="fp32", preset=PRESET)
    return folder


def dancer(frames: int, size: tuple[int, int] = (96, 72), *, sway: float = 4.0) -> Keypoints:
    """A standing person with hands and face who sways and waves."""
    height, width = size
    body = np.array(
        [
            (36, 16), (36, 26), (28, 27), (24, 40), (22, 52), (44, 27), (48, 40), (50, 52),
            (31, 52), (30, 68), (30, 84), (41, 52), (42, 68), (42, 84), (34, 14), (38, 14), (31, 15), (41, 15),
        ],
        np.float32,
    )  # fmt: skip
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    face = np.stack([36 + 5 * np.cos(angle), 16 + 6 * np.sin(angle)], -1).astype(np.float32)
    face[36:42] = (33.5, 14)
    face[42:48] = (38.5, 14)
    face[48:68] = (36, 19)
    hand = np.stack([np.arange(21) % 5, np.arange(21) // 5], -1).astype(np.float32)
    groups = {"body": body, "left_hand": hand + (49, 53), "right_hand": hand + (20, 53), "face": face}
    scale = np.array([width / 72, height / 96], np.float32)
    moved = {}
    for name, points in groups.items():
        clip = np.ones((frames, len(points), 3), np.float32)
        for frame in range(frames):
            clip[frame, :, :2] = (points + (sway * np.sin(frame / 3), 0)) * scale
        moved[name] = clip
    moved["body"][:, 4, 1] -= 4 * np.sin(np.arange(frames))
    return Keypoints(**moved, size=size)


def noise_frames(frames: int, size: tuple[int, int] = (96, 72), *, seed: int = 0) -> np.ndarray:
    """Smooth moving pictures, (f h w 3) uint8."""
    generator = np.random.default_rng(seed)
    phase = generator.uniform(0, 6, (3, 1, 1))
    rows, columns = np.mgrid[: size[0], : size[1]] / 9.0
    pictures = [127 + 120 * np.sin(rows + columns * 0.7 + phase + frame / 2) for frame in range(frames)]
    return np.stack(pictures).transpose(0, 2, 3, 1).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, fps: Fraction = Fraction(8)) -> Path:
    from xdyna import media

    media.write_clip(media.Clip(frames=frames, fps=fps), path, overwrite=True)
    return path
