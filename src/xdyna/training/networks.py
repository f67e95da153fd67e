"""The networks of a run, built from its config alone, so that a run folder's config is enough to load its weights.

Embedded models are X-Dyna's own classes at small width, without text; both ControlNets are diffusers' class with plain
convolution blocks, which need no text tokens. "sd15" is the published model at its published widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler
from torch import nn

from xdyna.models import Denoiser, ReferenceEncoder, ReferenceNet, Resampler, XDynaUNet
from xdyna.training.config import ModelConfig, NoiseConfig, TrainConfig

SD15_IMAGE_FEATURES = 1280
"""Width of the ViT-H features that the published image projector reads."""


@dataclass(frozen=True)
class Networks:
    """The networks that a model is made of; what its config does not ask for is None."""

    vae: AutoencoderKL
    unet: XDynaUNet
    pose_controlnet: ControlNetModel
    face_controlnet: ControlNetModel | None = None
    reference_net: ReferenceNet | None = None
    reference_encoder: ReferenceEncoder | None = None
    image_projector: Resampler | None = None

    def named(self) -> dict[str, nn.Module]:
        """Those that there are, by the names that a model folder gives them."""
        return {name: network for name, network in vars(self).items() if network is not None}

    def denoiser(self) -> Denoiser:
        """All networks of a denoising step as one module."""
        parts = {name: network for name, network in vars(self).items() if name not in ("vae", "unet")}
        return Denoiser(self.unet, **parts)


def build_networks(config: TrainConfig, *, seed: int) -> Networks:
    """Freshly initialised networks on the CPU, float32; the same for the same `seed`.

    The global random state is left as it was.
    """
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model.kind == "sd15":
            return _published(model)
        vae, unet = _autoencoder(model), _unet(model)
        return Networks(
            vae=vae,
            unet=unet,
            pose_controlnet=_controlnet(model, condition_channels=3),
            face_controlnet=_controlnet(model, condition_channels=6) if model.face == "s-face" else None,
            reference_net=ReferenceNet.for_denoiser(unet) if unet.reads_features else None,
            reference_encoder=ReferenceEncoder(
                in_channels=model.latent_channels,
                dim=model.token_width,
                num_queries=model.image_tokens,
                output_dim=model.token_width,
            )
            if unet.reads_tokens
            else None,
        )


def build_scheduler(noise: NoiseConfig) -> DDIMScheduler:
    """The scheduler that a model is trained for, and sampled with.

    With zero terminal SNR (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed") sampling
    starts from pure noise and steps are spaced from the end, so 8 steps suffice; otherwise it is the official one.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule=noise.schedule,
        prediction_type=noise.prediction,
        rescale_betas_zero_snr=noise.zero_snr,
        timestep_spacing="trailing" if noise.zero_snr else "leading",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0 if noise.zero_snr else 1,
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
    by_tokens = model.reference == "ip-adapter"
    return XDynaUNet(
        in_channels=model.latent_channels,
        out_channels=model.latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=down,
        up_block_types=up,
        attention_head_dim=config.heads,
        cross_attention_dim=model.token_width if by_tokens else None,
        norm_num_groups=config.groups,
        motion_heads=config.motion_heads,
        motion_norm_groups=config.groups,
        image_tokens=model.image_tokens if by_tokens else 0,
        text_tokens=not by_tokens,
        use_motion_modules=True,
        reference=model.reference,
        position_gain=config.position_gain,
        adapter_query_init="key",
        motion_condition=config.motion_energy > 0,
        moved_reference=config.moved_reference,
    )


def _controlnet(model: ModelConfig, *, condition_channels: int) -> ControlNetModel:
    config = model.unet
    network = ControlNetModel(
        in_channels=model.latent_channels,
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


def _published(model: ModelConfig) -> Networks:
    """The published widths: Stable Diffusion 1.5 with everything that X-Dyna adds (spec.md 1 to 3)."""
    unet = XDynaUNet(reference=model.reference)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )

    def controlnet(condition_channels: int) -> ControlNetModel:
        return ControlNetModel(conditioning_channels=condition_channels, cross_attention_dim=768)

    return Networks(
        vae=vae,
        unet=unet,
        pose_controlnet=controlnet(3),
        face_controlnet=controlnet(6) if model.face == "s-face" else None,
        reference_net=ReferenceNet.for_denoiser(unet) if unet.reads_features else None,
        image_projector=Resampler(),
    )
