"""Networks built from the official configurations in fixtures."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler
from torch import Tensor

from tests.parity.fixture import UnknownFixture
from xdyna.models import XDynaUNet

OFFICIAL_IMAGE_TOKENS = 16
"""The official code cuts a constant number of image tokens off the end (spec.md 1.2)."""

_EXPECTED = {
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "unet_use_cross_frame_attention": "mixed_cross",
    "unet_use_temporal_attention": False,
    "motion_module_mid_block": False,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
}
_EXPECTED_MOTION = {
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
    "cross_id": True,
}


def build_unet(config: dict[str, Any], weights: dict[str, Tensor]) -> XDynaUNet:
    """Our UNet from an official configuration."""
    motion = config["motion_module_kwargs"]
    for values, expected in ((config, _EXPECTED), (motion, _EXPECTED_MOTION)):
        for key, value in expected.items():
            if values.get(key, value) != value:
                raise UnknownFixture(f"{key} = {values[key]!r}; only {value!r} is known")
    levels = [2**level for level in range(len(config["block_out_channels"]))]
    if config["use_motion_module"] and not set(levels) <= set(config["motion_module_resolutions"]):
        raise UnknownFixture(f"motion modules at {config['motion_module_resolutions']}, not at all levels")
    heads = config["attention_head_dim"]
    unet = XDynaUNet(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=tuple(config["block_out_channels"]),
        layers_per_block=config["layers_per_block"],
        down_block_types=tuple(config["down_block_types"]),
        up_block_types=tuple(config["up_block_types"]),
        attention_head_dim=heads if isinstance(heads, int) else tuple(heads),
        cross_attention_dim=config["cross_attention_dim"],
        norm_num_groups=config["norm_num_groups"],
        norm_eps=config["norm_eps"],
        motion_heads=motion["num_attention_heads"],
        motion_max_length=motion["temporal_position_encoding_max_len"],
        use_motion_modules=config["use_motion_module"],
        image_tokens=OFFICIAL_IMAGE_TOKENS if config["unet_use_ipadapter"] else 0,
    )
    return _filled(unet, weights)


def build_controlnet(config: dict[str, Any], weights: dict[str, Tensor]) -> ControlNetModel:
    """diffusers' ControlNet from an official configuration; the weights tell the condition's channels."""
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    settings["conditioning_channels"] = weights["controlnet_cond_embedding.conv_in.weight"].shape[1]
    return _filled(ControlNetModel(**settings), weights)


def build_vae(config: dict[str, Any], weights: dict[str, Tensor]) -> AutoencoderKL:
    """diffusers' autoencoder."""
    return _filled(AutoencoderKL(**config), weights)


def build_scheduler(config: dict[str, Any], steps: int) -> DDIMScheduler:
    """diffusers' DDIM with its timesteps laid out."""
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def _filled(network: Any, weights: dict[str, Tensor]) -> Any:
    network.load_state_dict(weights, strict=True)
    return network.eval()
