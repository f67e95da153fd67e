"""The networks of an embedded model: X-Dyna's own classes at small width, without text.

Both ControlNets are diffusers' class with plain convolution blocks, which need no text tokens. Everything is built
from a `ModelConfig` alone, so that a run folder's config is enough to load its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler
from torch import nn

from xdyna.models import XDynaUNet
from xdyna.training.config import ModelConfig


@dataclass(frozen=True)
class Networks:
    """The four networks that a model is made of."""

    vae: AutoencoderKL
    unet: XDynaUNet
    pose_controlnet: ControlNetModel
    face_controlnet: ControlNetModel

    def named(self) -> dict[str, nn.Module]:
        """The networks by the names that a model folder gives them."""
        return {
            "vae": self.vae,
            "unet": self.unet,
            "pose_controlnet": self.pose_controlnet,
            "face_controlnet": self.face_controlnet,
        }


def build_networks(model: ModelConfig, *, seed: int) -> Networks:
    """Freshly initialised networks on the CPU, float32; the same for the same `seed`.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(
            vae=_autoencoder(model),
            unet=_unet(model),
            pose_controlnet=_controlnet(model, condition_channels=3),
            face_controlnet=_controlnet(model, condition_channels=6),
        )


def build_scheduler() -> DDIMScheduler:
    """Velocity prediction with zero terminal SNR and trailing steps (Lin et al. 2023, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed"): sampling starts from pure noise, so 8 steps suffice."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )


def _autoencoder(model: ModelConfig) -> AutoencoderKL:
    config = model.autoencoder
    levels = len(config.channels)
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        sample_size=max(model.size),
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
        # Attention over every latent would make the cost grow with the square of the picture's area.
        mid_block_add_attention=False,
    )
    # Kernels that keep the signal's size, and residual branches that start at zero: at first the network is the
    # plain chain of its convolutions, which learns sooner than with diffusers' small default kernels.
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
    return network


def _unet(model: ModelConfig) -> XDynaUNet:
    config = model.unet
    down = tuple("CrossAttnDownBlock3D" if attention else "DownBlock3D" for attention in config.attention)
    up = tuple("CrossAttnUpBlock3D" if attention else "UpBlock3D" for attention in reversed(config.attention))
    return XDynaUNet(
        in_channels=model.autoencoder.latent_channels,
        out_channels=model.autoencoder.latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=down,
        up_block_types=up,
        attention_head_dim=config.heads,
        cross_attention_dim=None,
        norm_num_groups=config.groups,
        motion_heads=config.motion_heads,
        motion_norm_groups=config.groups,
        image_tokens=0,
        use_motion_modules=True,
        position_gain=config.position_gain,
        adapter_query_init="key",
        motion_condition=config.motion_energy > 0,
    )


def _controlnet(model: ModelConfig, *, condition_channels: int) -> ControlNetModel:
    config = model.unet
    network = ControlNetModel(
        in_channels=model.autoencoder.latent_channels,
        conditioning_channels=condition_channels,
        down_block_types=("DownBlock2D",) * len(config.channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        attention_head_dim=config.heads,
        conditioning_embedding_out_channels=model.condition_channels,
    )
    # ControlNets start with two layers of zeros in a row, which protects a pretrained denoiser but stops all
    # gradients into the condition's embedding. Nothing needs protecting here: only the outer zeros are kept.
    network.controlnet_cond_embedding.conv_out.reset_parameters()
    return network
