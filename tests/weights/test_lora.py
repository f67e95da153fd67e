"""LoRA files of both layouts: every key accounted for, the same weights from each, in and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xdyna.errors import OptionError, WeightsError
from xdyna.models import XDynaUNet
from xdyna.weights import lora as module
from xdyna.weights.compact import hold
from xdyna.weights.lora import LoraChoice, Loras, find_lora
from xdyna.weights.lora_file import read_lora, steps_of, write_lora

MANIFEST = Path(__file__).parents[3] / "shared" / "reference" / "manifest" / "unet.json"
TRAINED = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
"""What diffusers' training script for LCM-LoRAs (train_lcm_distill_lora_sd_wds.py) changes."""
RANK, ALPHA = 4, 2.0


def network(seed: int = 0) -> XDynaUNet:
    """The published denoiser's layers, all of them, at small width."""
    torch.manual_seed(seed)
    return XDynaUNet(
        block_out_channels=(8, 16, 24, 24), attention_head_dim=2, cross_attention_dim=12, norm_num_groups=4,
        motion_heads=2, motion_norm_groups=4, image_tokens=2,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def layers() -> list[str]:
    """Stable Diffusion's layers that a LoRA changes, by the official checkpoint's names."""
    if not MANIFEST.is_file():
        pytest.skip("the manifests of the official checkpoints are not beside this checkout")
    keys = json.loads(MANIFEST.read_text())["keys"]
    names = [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]
    return [name for name in names if name.endswith(TRAINED) and "motion_modules" not in name]


@pytest.fixture(scope="module")
def factors(layers: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) of each layer, as files hold them: convolutions' have four axes."""
    generator = torch.Generator().manual_seed(5)
    shapes = {name: value.shape for name, value in network().named_parameters()}
    made = {}
    for name in layers:
        shape = shapes[f"{name}.weight"]
        down = torch.randn(RANK, *shape[1:], generator=generator)
        up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=generator)
        made[name] = (0.1 * down, 0.1 * up)
    return made


def diffusers(factors: dict[str, tuple[Tensor, Tensor]], words: tuple[str, str]) -> dict[str, Tensor]:
    return {
        f"unet.{name}.{word}.weight": value
        for name, pair in factors.items()
        for word, value in zip(words, pair, strict=True)
    }


def kohya(factors: dict[str, tuple[Tensor, Tensor]], alpha: float = ALPHA) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in factors.items():
        flat = "lora_unet_" + name.replace(".", "_")
        tensors |= {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(alpha),
        }
    return tensors


def merged(path: Path, name: str | None = None) -> dict[str, Tensor]:
    """A fresh network's weights with a file merged."""
    unet = network()
    Loras(unet).use([name or str(path)])
    return {key: value.detach().clone() for key, value in unet.named_parameters()}


def expected(factors: dict[str, tuple[Tensor, Tensor]], scale: float) -> dict[str, Tensor]:
    weights = {key: value.detach().clone() for key, value in network().named_parameters()}
    for name, (down, up) in factors.items():
        weights[f"{name}.weight"] += scale * torch.einsum(
            "or,ri->oi", up.flatten(1), down.flatten(1)
        ).view_as(weights[f"{name}.weight"])
    return weights


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in second.items():
        torch.testing.assert_close(first[key], value, atol=1e-6, rtol=1e-5, msg=key)


def test_all_layers_of_stable_diffusion_are_here(factors: dict[str, Any]) -> None:
    assert len(factors) == 278


@pytest.mark.parametrize("words", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_the_layout_of_diffusers(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path, words: tuple[str, str]
) -> None:
    save_file(diffusers(factors, words), tmp_path / "a.safetensors")
    same(merged(tmp_path / "a.safetensors"), expected(factors, 1.0))


def test_the_older_layout_of_diffusers(factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    chosen = {name: pair for name, pair in factors.items() if name.endswith(("attn1.to_q", "attn2.to_out.0"))}
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in chosen.items():
        block, _, layer = name.removesuffix(".0").rpartition(".")
        key = f"unet.{block}.processor.{layer}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    save_file(tensors, tmp_path / "old.safetensors")
    same(merged(tmp_path / "old.safetensors"), expected(chosen, 1.0))


def test_the_layout_of_kohya(factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    save_file(kohya(factors), tmp_path / "k.safetensors")
    same(merged(tmp_path / "k.safetensors"), expected(factors, ALPHA / RANK))


def test_diffusers_reads_kohyas_files_as_we_do(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    save_file(kohya(factors), tmp_path / "k.safetensors")
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(kohya(factors))
    assert set(alphas.values()) == {ALPHA}
    save_file({key: value.contiguous() for key, value in theirs.items()}, tmp_path / "theirs.safetensors")
    found = read_lora(tmp_path / "theirs.safetensors", network()).changes
    ours = read_lora(tmp_path / "k.safetensors", network()).changes
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name].up, ours[name].up) for name in ours)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"unet.lora_alpha": 8, "unet.r": RANK}, 2.0),
        ({"unet.lora_alpha": 8, "unet.r": RANK, "unet.use_rslora": True}, 4.0),
        ({"unet.lora_alpha": 1, "unet.alpha_pattern": {"conv_shortcut": 12}}, 3.0),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_what_diffusers_says_of_alpha_in_the_metadata(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path, settings: dict[str, object], scale: float
) -> None:
    chosen = {name: pair for name, pair in factors.items() if name.endswith("conv_shortcut")}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    save_file(diffusers(chosen, ("lora_A", "lora_B")), tmp_path / "m.safetensors", metadata=metadata)
    same(merged(tmp_path / "m.safetensors"), expected(chosen, scale))


def test_text_encoder_keys_are_reported_and_skipped(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8)}
    save_file(kohya(factors) | text, tmp_path / "k.safetensors")
    assert read_lora(tmp_path / "k.safetensors", network()).skipped == tuple(text)
    assert "text encoder" in caplog.text
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1" in caplog.text
    save_file(text, tmp_path / "only.safetensors")
    with pytest.raises(WeightsError, match="nothing of the denoiser"):
        read_lora(tmp_path / "only.safetensors", network())


LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = "lora_unet_" + LAYER.replace(".", "_")


def pair(down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"unet.nowhere.lora_A.weight": torch.zeros(4, 8)}, r"unet\.nowhere\.lora_A\.weight"),
        ({"unet.up_blocks.9.x.to_q.lora_B.weight": torch.zeros(8, 4)}, r"up_blocks\.9"),
        ({"lora_unet_input_blocks_1_1_proj_in.lora_down.weight": torch.zeros(4, 8)}, "SDXL"),
        ({f"{FLAT}.hada_w1_a": torch.zeros(8, 4)}, "LoHa"),
        ({f"unet.{LAYER}.lora_magnitude_vector": torch.zeros(8)}, "DoRA"),
        ({f"{FLAT}.lora_mid.weight": torch.zeros(4, 4)}, "lora_mid"),
        ({f"unet.{LAYER}.lora_B.bias": torch.zeros(8)}, r"lora_B\.bias"),
        ({f"{FLAT}.lora_down.weight": torch.zeros(4, 8), f"{FLAT}.alpha": torch.tensor(1.0)}, "no up factor"),
        (pair(torch.zeros(4, 8), torch.zeros(8, 3)), "do not"),
        (pair(torch.zeros(4, 9), torch.zeros(8, 4)), "widths"),
        (pair(torch.zeros(4), torch.zeros(8, 4)), "do not"),
        (pair(torch.full((4, 8), torch.nan), torch.zeros(8, 4)), "NaN"),
        ({f"unet.{LAYER}.lora_A.weight": torch.zeros(4, 8), f"{FLAT}.lora_down.weight": torch.zeros(4, 8)}, "belong"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(tensors: dict[str, Tensor], words: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "bad.safetensors")
    unet = network()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    with pytest.raises(WeightsError, match=words):
        Loras(unet).use([str(tmp_path / "bad.safetensors")])
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(WeightsError, match="safetensors"):
        read_lora(tmp_path / "cut.safetensors", network())
    (tmp_path / "lora.bin").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="pickled"):
        find_lora(str(tmp_path / "lora.bin"))
    with pytest.raises(WeightsError, match="hub id"):
        find_lora(str(tmp_path / "absent.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"holds no \.safetensors"):
        find_lora(str(tmp_path / "empty"))
    for name in ("a", "b"):
        (tmp_path / "empty" / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"a\.safetensors, b\.safetensors"):
        find_lora(str(tmp_path / "empty"))
    (tmp_path / "empty" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    assert find_lora(str(tmp_path / "empty")).name == "pytorch_lora_weights.safetensors"


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    asked = []

    def fetch(name: str, files: list[str]) -> Path:
        asked.append(name)
        return tmp_path

    monkeypatch.setattr(module, "fetch", fetch)
    assert find_lora("org/lora").parent == tmp_path
    assert asked == ["org/lora"]


@pytest.mark.parametrize(
    ("text", "name", "scale"),
    [("a.safetensors", "a.safetensors", 1.0), ("a:0.5", "a", 0.5), ("org/x:-1", "org/x", -1.0),
     (r"C:\lora.safetensors", r"C:\lora.safetensors", 1.0)],
)  # fmt: skip
def test_a_scale_stands_after_a_colon(text: str, name: str, scale: float) -> None:
    assert LoraChoice.parse(text) == LoraChoice(name, scale)


@pytest.mark.parametrize("text", ["", ":1", "a:nan", "a:inf"])
def test_a_scale_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(OptionError, match="--lora"):
        LoraChoice.parse(text)


def test_weights_come_back_bit_for_bit_whatever_was_merged(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file(kohya(factors), one)
    save_file(diffusers(dict(list(factors.items())[:40]), ("lora_A", "lora_B")), two)
    unet = network().half().to(memory_format=torch.channels_last)
    loras = Loras(unet)
    plain = {key: value.clone() for key, value in unet.state_dict().items()}
    strides = {key: value.stride() for key, value in unet.state_dict().items()}

    def weights() -> dict[str, Tensor]:
        return {key: value.clone() for key, value in unet.state_dict().items()}

    loras.use([f"{one}:0.7"])
    first = weights()
    loras.use([str(two), f"{one}:-0.3"])
    assert [entry["scale"] for entry in loras.describe()] == [1.0, -0.3]
    assert any(not torch.equal(value, first[key]) for key, value in weights().items())
    loras.use([f"{one}:0.7"])
    assert all(torch.equal(value, first[key]) for key, value in weights().items())
    loras.use([])
    assert loras.describe() == []
    assert all(torch.equal(value, plain[key]) for key, value in weights().items())
    assert {key: value.stride() for key, value in unet.state_dict().items()} == strides


def test_what_is_kept_acts_beside_what_a_run_names(
    factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    path = tmp_path / "one.safetensors"
    save_file(kohya(factors), path)
    loras = Loras(network())
    loras.keep(str(path), scale=0.5)
    loras.use([str(path)])
    assert [entry["scale"] for entry in loras.describe()] == [0.5, 1.0]
    loras.keep(str(path), scale=2.0)
    assert [entry["scale"] for entry in loras.describe()] == [2.0]
    with pytest.raises(WeightsError):
        loras.keep(str(tmp_path / "absent.safetensors"))
    loras.use([])
    assert [entry["scale"] for entry in loras.describe()] == [2.0]
    loras.keep(str(path), scale=0)
    assert loras.describe() == []


def test_a_models_own_is_of_its_own_weights(tmp_path: Path) -> None:
    unet = network()
    with pytest.raises(WeightsError, match="no LoRA of its own"):
        Loras(unet, folder=tmp_path, model_hash="a").use(["fast"])
    down, up = torch.ones(2, 8), torch.ones(8, 2)
    changes = {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}
    write_lora(tmp_path / "fast.safetensors", changes, steps=4, base="a")
    assert steps_of(tmp_path / "fast.safetensors") == 4
    before = unet.get_parameter(f"{LAYER}.weight").detach().clone()
    Loras(unet, folder=tmp_path, model_hash="a").use(["fast:0.5"])
    torch.testing.assert_close(unet.get_parameter(f"{LAYER}.weight").detach(), before + 1.0)
    with pytest.raises(WeightsError, match="other weights"):
        Loras(unet, folder=tmp_path, model_hash="b").use(["fast"])


def test_weights_held_in_8_bits_take_none(factors: dict[str, tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    save_file(kohya(factors), tmp_path / "k.safetensors")
    unet = network().requires_grad_(False)
    hold(unet, "int8")
    with pytest.raises(OptionError, match="8 bits"):
        Loras(unet).use([str(tmp_path / "k.safetensors")])
    Loras(unet).use([])
