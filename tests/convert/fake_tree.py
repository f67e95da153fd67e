"""A fake `pretrained_weights` tree, drawn as the official README draws it, at any width.

Names and shapes come from diffusers' and transformers' own networks and, for what X-Dyna adds, from rules
that `test_fake_tree.py` holds against the manifests of the official code. By hand, at full size (24 GB)::

    python -m tests.convert.fake_tree DIR
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

Shapes = dict[str, tuple[int, ...]]

SD = "initialization/unet_initialization/SD/stable-diffusion-v1-5"
IP = "initialization/unet_initialization/IP-Adapter/IP-Adapter/models"
OPENPOSE = "initialization/controlnets_initialization/controlnet/control_v11p_sd15_openpose"
CONTROLNET2 = "initialization/controlnets_initialization/controlnet_face/controlnet2"


@dataclass(frozen=True)
class Size:
    """Widths of a whole tree; the defaults are small."""

    unet: dict[str, Any] = field(
        default_factory=lambda: {
            "block_out_channels": [32, 64],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 24,
            "norm_num_groups": 32,
            "attention_head_dim": 8,
        }
    )
    control: dict[str, Any] = field(
        default_factory=lambda: {"conditioning_embedding_out_channels": [4, 4, 8, 8]}
    )
    vae: dict[str, Any] = field(default_factory=lambda: {"block_out_channels": [8, 16], "norm_num_groups": 4})
    text: dict[str, Any] = field(
        default_factory=lambda: {
            "vocab_size": 40,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "bos_token_id": 38,
            "eos_token_id": 39,
        }
    )
    image: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "projection_dim": 16,
        }
    )
    resampler: tuple[int, int, int] = (64, 2, 4)  # width, layers, tokens

    @staticmethod
    def for_pipeline() -> Size:
        """Small, with an autoencoder and an image encoder as the pipeline wants them: sides of 1/8 and 224."""
        small = Size()
        return replace(
            small,
            vae={"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4},
            image={**small.image, "image_size": 224, "patch_size": 56},
        )

    @staticmethod
    def full() -> Size:
        """The published sizes: SD 1.5, CLIP ViT-L text, CLIP ViT-H image, IP-Adapter-plus."""
        sd15 = {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768}
        vae = {"block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32}
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        image = {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 1024,
            "hidden_act": "gelu",
        }
        control = {"conditioning_embedding_out_channels": [16, 32, 96, 256]}
        unet = {**sd15, "norm_num_groups": 32, "attention_head_dim": 8}
        return Size(unet, control, vae, {**text, "vocab_size": 49408}, image, (768, 4, 16))


def sd_unet(size: Size) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**size.unet)


def control_config(size: Size) -> dict[str, Any]:
    """The UNet's layout without its way up, and the picture's embedding."""
    return {**{key: value for key, value in size.unet.items() if key != "up_block_types"}, **size.control}


def controlnet(size: Size, channels: int) -> ControlNetModel:
    with torch.device("meta"):
        return ControlNetModel(**control_config(size), conditioning_channels=channels)


def autoencoder(size: Size) -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL(
            **size.vae,
            layers_per_block=2,
            down_block_types=["DownEncoderBlock2D"] * len(size.vae["block_out_channels"]),
            up_block_types=["UpDecoderBlock2D"] * len(size.vae["block_out_channels"]),
        )


def shapes_of(module: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def motion_shapes(size: Size) -> Shapes:
    """Two motion modules in each down block, three in each up block, none in the middle (spec.md 1)."""
    widths = size.unet["block_out_channels"]
    blocks = [("down_blocks", place, width, 2) for place, width in enumerate(widths)]
    blocks += [("up_blocks", place, width, 3) for place, width in enumerate(reversed(widths))]
    shapes: Shapes = {}
    for side, place, c, count in blocks:
        for module in range(count):
            base = f"{side}.{place}.motion_modules.{module}.temporal_transformer."
            inner = base + "transformer_blocks.0."
            for name in ("norm.weight", "norm.bias", "proj_in.bias", "proj_out.bias"):
                shapes[base + name] = (c,)
            for name in ("proj_in.weight", "proj_out.weight"):
                shapes[base + name] = (c, c)
            for layer in range(2):
                attention = f"{inner}attention_blocks.{layer}."
                for name in ("to_q", "to_k", "to_v", "to_out.0"):
                    shapes[f"{attention}{name}.weight"] = (c, c)
                shapes[attention + "to_out.0.bias"] = (c,)
                shapes[attention + "pos_encoder.pe"] = (1, 24, c)
                shapes[f"{inner}norms.{layer}.weight"] = (c,)
                shapes[f"{inner}norms.{layer}.bias"] = (c,)
            shapes[inner + "ff.net.0.proj.weight"] = (8 * c, c)
            shapes[inner + "ff.net.0.proj.bias"] = (8 * c,)
            shapes[inner + "ff.net.2.weight"] = (c, 4 * c)
            shapes[inner + "ff.net.2.bias"] = (c,)
            shapes[inner + "ff_norm.weight"] = (c,)
            shapes[inner + "ff_norm.bias"] = (c,)
    return shapes


def adapter_shapes(sd: Shapes) -> Shapes:
    """The Dynamics-Adapter's parameters, one set for each self-attention."""
    shapes: Shapes = {}
    for name, shape in sd.items():
        if name.endswith("attn1.to_q.weight"):
            base = name.removesuffix("to_q.weight")
            shapes[base + "to_q_ff.weight"] = shape
            shapes[base + "to_out_ff.weight"] = shape
            shapes[base + "to_out_ff.bias"] = shape[:1]
    return shapes


def ip_shapes(sd: Shapes) -> Shapes:
    """IP-Adapter's keys and values in the UNet, one pair for each cross-attention."""
    shapes: Shapes = {}
    for name, shape in sd.items():
        if name.endswith("attn2.to_k.weight"):
            base = name.removesuffix("to_k.weight")
            shapes[base + "to_k_ip.weight"] = shapes[base + "to_v_ip.weight"] = shape
    return shapes


def unet_shapes(size: Size) -> Shapes:
    """All of X-Dyna's UNet."""
    sd = shapes_of(sd_unet(size))
    return {**sd, **motion_shapes(size), **adapter_shapes(sd), **ip_shapes(sd)}


def resampler_shapes(size: Size) -> Shapes:
    """image_proj of IP-Adapter-plus (spec.md 2): heads 64 wide, feed-forward four times as wide."""
    dim, layers, tokens = size.resampler
    out, features = size.unet["cross_attention_dim"], size.image["hidden_size"]
    shapes: Shapes = {"latents": (1, tokens, dim), "proj_in.weight": (dim, features), "proj_in.bias": (dim,)}
    shapes |= {"proj_out.weight": (out, dim), "proj_out.bias": (out,)}
    shapes |= {"norm_out.weight": (out,), "norm_out.bias": (out,)}
    for layer in range(layers):
        for name in ("0.norm1", "0.norm2", "1.0"):
            shapes[f"layers.{layer}.{name}.weight"] = shapes[f"layers.{layer}.{name}.bias"] = (dim,)
        shapes[f"layers.{layer}.0.to_q.weight"] = shapes[f"layers.{layer}.0.to_out.weight"] = (dim, dim)
        shapes[f"layers.{layer}.0.to_kv.weight"] = (2 * dim, dim)
        shapes[f"layers.{layer}.1.1.weight"] = (4 * dim, dim)
        shapes[f"layers.{layer}.1.3.weight"] = (dim, 4 * dim)
    return shapes


def text_shapes(size: Size) -> tuple[Shapes, dict[str, Any]]:
    """SD 1.5's text encoder under the names of its file (also with transformers 5), and its config."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(**size.text)
    with torch.device("meta"):
        shapes = shapes_of(CLIPTextModel(config))
    prefix = "text_model."
    named = {prefix + name.removeprefix(prefix): shape for name, shape in shapes.items()}
    return named, {**size.text, "architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}


def image_shapes(size: Size) -> tuple[Shapes, dict[str, Any]]:
    """The image encoder under the names of its file, and its config."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**size.image)
    with torch.device("meta"):
        shapes = shapes_of(CLIPVisionModelWithProjection(config))
    return shapes, {**size.image, "architectures": ["CLIPVisionModelWithProjection"]}


def ip_adapter_order(sd: Shapes) -> list[str]:
    """Cross-attentions in IP-Adapter's order: down, up, middle; its numbers are 1, 3, 5 ..."""
    names = [name.removesuffix("to_k.weight") for name in sd if name.endswith("attn2.to_k.weight")]
    return [name for start in ("down", "up", "mid") for name in names if name.startswith(start)]


class Filler:
    """Makes tensors: random ones, or (`scratch`) zeros that stand on sparse files and need no memory."""

    def __init__(self, seed: int = 0, scratch: Path | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.scratch, self.count = scratch, 0

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        return {name: self._tensor(shape) for name, shape in shapes.items()}

    def _tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self.scratch is None:
            return torch.randn(shape, generator=self.generator) * 0.1
        self.count += 1
        size = torch.Size(shape).numel()
        path = self.scratch / str(self.count)
        with path.open("wb") as file:
            file.truncate(4 * size)
        return torch.from_file(str(path), shared=True, size=size).reshape(shape)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def write_tokenizer(folder: Path) -> None:
    """The files of a CLIP tokenizer as Stable Diffusion 1.5 has them, with a vocabulary of letters."""
    letters = "abcdefghijklmnopqr"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {word: place for place, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")

    def token(text: str) -> dict[str, Any]:
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    special = {"bos_token": token(words[-2]), "eos_token": token(words[-1]), "unk_token": token(words[-1])}
    write_json(folder / "special_tokens_map.json", {**special, "pad_token": words[-1]})
    added = {name: {"__type": "AddedToken", **value} for name, value in special.items()}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    write_json(
        folder / "tokenizer_config.json",
        {**settings, **added, "pad_token": words[-1], "add_prefix_space": False, "errors": "replace"},
    )


def write_tree(
    root: Path,
    *,
    size: Size | None = None,
    scratch: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the whole tree under root/pretrained_weights and return that folder."""
    size = size or Size()
    fill = Filler(scratch=scratch)
    tree = root / "pretrained_weights"
    say = progress or (lambda name: None)

    unet = unet_shapes(size)
    sd = shapes_of(sd_unet(size))
    say("unet")
    # Data-parallel training leaves "module.", Lightning "state_dict".
    wrapped = {f"module.{name}": tensor for name, tensor in fill(unet).items()}
    save(tree / "unet/unet-checkpoint-epoch-5.ckpt", {"state_dict": wrapped, "epoch": 5})
    say("base")
    base = fill({name: shape for name, shape in unet.items() if name not in adapter_shapes(sd)})
    save(tree / SD / "unet/animatediff_v15_v1_ipplus.pth", base)
    write_json(tree / SD / "unet/config.json", {"_class_name": "UNet2DConditionModel", **size.unet})

    for folder, stem, place, channels in (
        ("controlnet", "controlnet-checkpoint-epoch-5", OPENPOSE, 3),
        ("controlnet_face", "controlnet-face-checkpoint-epoch-2", CONTROLNET2, 6),
    ):
        say(folder)
        network = controlnet(size, channels)
        weights = {f"module.{name}": tensor for name, tensor in fill(shapes_of(network)).items()}
        save(tree / folder / f"{stem}.ckpt", weights)
        config = {"_class_name": "ControlNetModel", **control_config(size)}
        # As published: the openpose file has no such entry.
        write_json(
            tree / place / "config.json", config if channels == 3 else {**config, "conditioning_channels": 6}
        )

    say("openpose")
    save(tree / OPENPOSE / "diffusion_pytorch_model.bin", fill(shapes_of(controlnet(size, 3))))

    say("vae")
    vae = autoencoder(size)
    save(tree / SD / "vae/diffusion_pytorch_model.bin", fill(shapes_of(vae)))
    write_json(tree / SD / "vae/config.json", {k: v for k, v in vae.config.items() if not k.startswith("_")})

    say("text encoder")
    shapes, config = text_shapes(size)
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save(tree / SD / "text_encoder/pytorch_model.bin", {**positions, **fill(shapes)})
    write_json(tree / SD / "text_encoder/config.json", config)
    write_tokenizer(tree / SD / "tokenizer")

    say("IP-Adapter")
    pairs: dict[str, torch.Tensor] = {}
    kinds = ip_shapes(sd)
    for place, layer in enumerate(ip_adapter_order(sd)):
        for kind in ("to_k_ip", "to_v_ip"):
            name = f"{2 * place + 1}.{kind}.weight"
            pairs |= fill({name: kinds[f"{layer}{kind}.weight"]})
    image_proj = fill(resampler_shapes(size))
    save(tree / IP / "ip-adapter-plus_sd15.bin", {"image_proj": image_proj, "ip_adapter": pairs})

    say("image encoder")
    shapes, config = image_shapes(size)
    positions = {"vision_model.embeddings.position_ids": torch.arange(257)[None]}
    save(tree / IP / "image_encoder/pytorch_model.bin", {**positions, **fill(shapes)})
    write_json(tree / IP / "image_encoder/config.json", config)
    return tree


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as scratch:
        write_tree(Path(sys.argv[1]), size=Size.full(), scratch=Path(scratch), progress=print)
