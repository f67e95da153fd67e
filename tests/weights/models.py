"""Tiny real models for the tests of weights and conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )


def tiny_controlnet(channels: int = 3) -> ControlNetModel:
    torch.manual_seed(channels)
    return ControlNetModel(
        conditioning_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 8),
    )


def tiny_unet() -> Any:
    from xdyna.models import XDynaUNet

    torch.manual_seed(2)
    return XDynaUNet(
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        motion_norm_groups=4,
        attention_head_dim=2,
        motion_heads=2,
        cross_attention_dim=12,
    )


def tiny_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1)


def tiny_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(3)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=40,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=38,
            eos_token_id=39,
        )
    )


def tiny_image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(4)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            projection_dim=8,
        )
    )


def tiny_image_projector() -> Any:
    from xdyna.models import Resampler

    torch.manual_seed(5)
    return Resampler(
        dim=8, depth=1, dim_head=4, heads=2, num_queries=4, embedding_dim=16, output_dim=12, ff_mult=2
    )


def write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer's own files, with a vocabulary of letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqr"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": words[-2], "eos_token": words[-1], "pad_token": words[-1], "unk_token": words[-1]}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
