from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.weights import models
from xdyna.errors import WeightsError
from xdyna.model_preset import ModelPreset
from xdyna.weights import COMPONENTS, load_components, read_index, read_preset, save_component, save_model
from xdyna.weights.components import INDEX_NAME

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {
        "unet": models.tiny_unet(),
        "vae": models.tiny_vae(),
        "scheduler": models.tiny_scheduler(),
        "pose_controlnet": models.tiny_controlnet(3),
        "face_controlnet": models.tiny_controlnet(6),
        "text_encoder": models.tiny_text_encoder(),
        "image_encoder": models.tiny_image_encoder(),
        "image_projector": models.tiny_image_projector(),
    }


@pytest.fixture(scope="module")
def saved(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, parts, storage="fp32", preset=ModelPreset(height=256, width=192, steps=8))
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_all_parts_come_back_exactly(saved: Path, parts: dict[str, Any]) -> None:
    loaded = load_components(saved)
    assert list(loaded) == list(COMPONENTS)
    assert loaded["tokenizer"] is None
    assert loaded["image_processor"] is None
    for name, part in parts.items():
        assert type(loaded[name]) is type(part)
        if not isinstance(part, torch.nn.Module):
            assert loaded[name].config.beta_start == 0.00085
            continue
        assert not loaded[name].training
        state = loaded[name].state_dict()
        for key, tensor in part.state_dict().items():
            assert torch.equal(state[key], tensor), (name, key)
        assert not any(value.is_meta for _, value in loaded[name].named_buffers())


def test_loaded_networks_compute_the_same(saved: Path, parts: dict[str, Any]) -> None:
    loaded = load_components(saved, names=["vae", "text_encoder", "image_encoder", "image_projector"])
    ids, pixels = torch.arange(6)[None], torch.rand(1, 3, 28, 28)
    inputs = {
        "vae": pixels,
        "text_encoder": ids,
        "image_encoder": pixels,
        "image_projector": torch.rand(1, 5, 16),
    }
    for name, value in inputs.items():
        with torch.no_grad():
            got, wanted = loaded[name](value), parts[name].eval()(value)
        got, wanted = (x if isinstance(x, torch.Tensor) else x[0] for x in (got, wanted))
        assert torch.equal(got, wanted), name


def test_names_dtype_and_preset(saved: Path) -> None:
    loaded = load_components(saved, names=["vae", "unet"], dtype=torch.bfloat16)
    assert list(loaded) == ["vae", "unet"]
    assert {tensor.dtype for tensor in loaded["unet"].state_dict().values()} == {torch.bfloat16}
    assert read_preset(saved) == ModelPreset(height=256, width=192, steps=8)
    with pytest.raises(WeightsError, match="no such part"):
        load_components(saved, names=["nose"])


def test_int8_model_loads_in_the_asked_type(parts: dict[str, Any], tmp_path: Path) -> None:
    save_model(tmp_path / "m", parts, storage={"unet": "int8"})
    loaded = load_components(tmp_path / "m", names=["unet", "vae"])
    dtypes = [tensor.dtype for tensor in load_file(tmp_path / "m" / UNET_FILE).values()]
    assert dtypes.count(torch.int8) > 200
    assert torch.float32 in dtypes  # the scales
    for name, bound in (("unet", 1 / 250), ("vae", 2**-10)):
        state = loaded[name].state_dict()
        for key, tensor in parts[name].state_dict().items():
            assert state[key].dtype == torch.float32
            assert (state[key] - tensor).abs().max() <= bound * tensor.abs().max() + 1e-6, key


def test_parts_load_with_their_own_libraries_too(saved: Path, parts: dict[str, Any]) -> None:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    for cls, name in ((AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder"), (type(parts["unet"]), "unet")):
        loaded = cls.from_pretrained(str(saved / name)).state_dict()
        for key, tensor in parts[name].state_dict().items():
            assert torch.equal(loaded[key], tensor), key


def test_text_encoder_files_keep_their_published_names(saved: Path) -> None:
    names = load_file(saved / "text_encoder/model.safetensors")
    assert all(name.startswith("text_model.") for name in names)


def test_tokenizer_and_image_processor(saved: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(saved, tmp_path / "m"))
    models.write_tokenizer(model / "tokenizer")
    (model / "image_processor").mkdir()
    (model / "image_processor/preprocessor_config.json").write_text('{"crop_size": 28, "size": 28}')
    edit_json(
        model / INDEX_NAME,
        tokenizer=["transformers", "CLIPTokenizer"],
        image_processor=["transformers", "CLIPImageProcessor"],
    )
    loaded = load_components(model, names=["tokenizer", "image_processor"])
    assert loaded["tokenizer"](["ab"], padding="max_length", max_length=5)["input_ids"] == [
        [36, 0, 19, 37, 37]
    ]
    picture = torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()
    assert loaded["image_processor"](picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 28, 28)


# ---------------------------------------------------------------------------------------------- strictness


def test_missing_extra_and_wrong_shapes_are_listed(model: Path) -> None:
    state = load_file(model / UNET_FILE)
    gone, bent = "conv_in.weight", "conv_out.bias"
    state["stranger"] = state.pop(gone)
    state[bent] = torch.zeros(9)
    save_file(state, model / UNET_FILE)
    with pytest.raises(WeightsError) as caught:
        load_components(model, names=["unet"])
    message = str(caught.value)
    assert "1 missing (conv_in.weight)" in message
    assert "1 not wanted (stranger)" in message
    assert "conv_out.bias is 9, not 4" in message


def test_the_likely_cause_is_said(model: Path) -> None:
    shutil.copy(model / "pose_controlnet/diffusion_pytorch_model.safetensors", model / UNET_FILE)
    with pytest.raises(WeightsError, match="This is a ControlNet"):
        load_components(model, names=["unet"])
    shutil.copy(
        model / "face_controlnet/diffusion_pytorch_model.safetensors",
        model / "pose_controlnet/diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(WeightsError, match="S-Face ControlNet"):
        load_components(model, names=["pose_controlnet"])


def test_shards_are_joined_and_stay_in_their_folder(model: Path, parts: dict[str, Any]) -> None:
    state = load_file(model / UNET_FILE)
    names = sorted(state)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, keys in halves.items():
        save_file({key: state[key] for key in keys}, model / "unet" / shard)
    (model / UNET_FILE).unlink()
    listing = model / (UNET_FILE + ".index.json")
    weight_map = {key: shard for shard, keys in halves.items() for key in keys}
    listing.write_text(json.dumps({"weight_map": weight_map}))
    loaded = load_components(model, names=["unet"])["unet"].state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in parts["unet"].state_dict().items())
    (model / "unet/b.safetensors").unlink()
    with pytest.raises(WeightsError, match="shard is missing"):
        load_components(model, names=["unet"])
    listing.write_text(json.dumps({"weight_map": {"x": "../vae/diffusion_pytorch_model.safetensors"}}))
    with pytest.raises(WeightsError, match="outside its folder"):
        load_components(model, names=["unet"])


def test_missing_files_are_named(model: Path) -> None:
    (model / UNET_FILE).unlink()
    with pytest.raises(WeightsError, match=r"none of diffusion_pytorch_model.safetensors"):
        load_components(model, names=["unet"])
    (model / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(WeightsError, match="Only safetensors"):
        load_components(model, names=["unet"])
    (model / "vae/config.json").unlink()
    with pytest.raises(WeightsError, match=r"vae/config.json"):
        load_components(model, names=["vae"])
    shutil.rmtree(model / "pose_controlnet")
    with pytest.raises(WeightsError, match="lists pose_controlnet"):
        load_components(model, names=["pose_controlnet"])


def test_configs_that_do_not_fit(model: Path) -> None:
    edit_json(model / "unet/config.json", wings=2)
    with pytest.raises(WeightsError, match="does not have: wings"):
        load_components(model, names=["unet"])
    edit_json(model / "vae/config.json", norm_num_groups=7)
    with pytest.raises(WeightsError, match="does not describe a AutoencoderKL"):
        load_components(model, names=["vae"])
    (model / "pose_controlnet/config.json").write_text("{")
    with pytest.raises(WeightsError, match="JSON"):
        load_components(model, names=["pose_controlnet"])


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no model_index.json"):
        read_index(tmp_path)
    (tmp_path / INDEX_NAME).write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(WeightsError, match="StableDiffusionPipeline"):
        read_index(tmp_path)


# ------------------------------------------------------------------------------------------------ security


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("vae", ["os", "system"]),
        ("vae", ["diffusers", "UNet2DConditionModel"]),
        ("vae", "subprocess.run"),
        ("unet", ["evil_module", "XDynaUNet"]),
        ("scheduler", ["diffusers", "DiffusionPipeline"]),
        ("scheduler", ["diffusers", "SchedulerMixin"]),
        ("scheduler", ["diffusers", "utils.import_utils"]),
        ("scheduler", ["diffusers", "__loader__"]),
        ("scheduler", ["evil_module", "DDIMScheduler"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
    ],
)
def test_an_index_cannot_name_other_classes(
    model: Path, part: str, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = model / "evil_module.py"
    evil.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(model))
    edit_json(model / INDEX_NAME, **{part: entry})
    with pytest.raises(WeightsError, match=part if part != "scheduler" else "scheduler"):
        load_components(model)
    assert "evil_module" not in sys.modules


def test_an_index_cannot_add_parts(model: Path) -> None:
    edit_json(model / INDEX_NAME, safety=["diffusers", "AutoencoderKL"])
    with pytest.raises(WeightsError, match="unknown parts: safety"):
        load_components(model)
    edit_json(model / INDEX_NAME, safety=None, vae=None)
    with pytest.raises(WeightsError, match="unknown parts"):
        load_components(model)


def test_a_config_cannot_name_code(model: Path) -> None:
    (model / "modeling_evil.py").write_text("raise SystemExit('imported')")
    edit_json(
        model / "text_encoder/config.json",
        auto_map={"AutoModel": "modeling_evil.Evil"},
        attn_implementation="someone/evil-kernel",
        _attn_implementation="someone/evil-kernel",
        quantization_config={"quant_method": "evil"},
    )
    edit_json(
        model / "vae/config.json", _class_name="os.system", auto_map={"AutoModel": "modeling_evil.Evil"}
    )
    loaded = load_components(model, names=["text_encoder", "vae"])
    assert type(loaded["text_encoder"]).__name__ == "CLIPTextModel"
    assert loaded["text_encoder"].config._attn_implementation in ("sdpa", "eager")
    assert type(loaded["vae"]).__name__ == "AutoencoderKL"
    assert "modeling_evil" not in sys.modules


def test_a_preset_of_unknown_settings_is_refused(model: Path) -> None:
    edit_json(model / INDEX_NAME, _preset={"height": 64, "speed": 3})
    with pytest.raises(WeightsError, match="speed"):
        read_preset(model)


def test_heavy_libraries_are_not_imported_without_need() -> None:
    heavy = {"transformers", "diffusers", "accelerate", "huggingface_hub"}
    code = f"import sys, xdyna.weights, xdyna.convert; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_save_component_needs_no_model(tmp_path: Path, parts: dict[str, Any]) -> None:
    save_component(parts["unet"], tmp_path / "unet", storage="bf16")
    config = json.loads((tmp_path / "unet/config.json").read_text())
    assert config["_class_name"] == "XDynaUNet"
    assert config["block_out_channels"] == [8, 8, 16, 16]
    assert load_file(tmp_path / UNET_FILE)["conv_in.weight"].dtype == torch.bfloat16
