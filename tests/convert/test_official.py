from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.convert import fake_tree
from tests.convert.fake_tree import CONTROLNET2, IP, OPENPOSE, SD, Size
from tests.convert.spoil import ADAPTER, BASE, VAE, State, edit, only, replace, state_of, without
from tests.convert.test_checkpoint import Bomb
from xdyna.convert import ConversionReport, convert_official
from xdyna.convert.unet import unet_config
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.models import XDynaUNet
from xdyna.weights import describe_models, load_components, read_index

UNET = "unet/unet-checkpoint-epoch-5.ckpt"
POSE = "controlnet/controlnet-checkpoint-epoch-5.ckpt"
FACE = "controlnet_face/controlnet-face-checkpoint-epoch-2.ckpt"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def converted(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConversionReport]:
    folder = tmp_path_factory.mktemp("converted") / "official"
    return folder, convert_official(whole.parent, folder)  # the repository does as well


def check(tree: Path) -> ConversionReport:
    return convert_official(tree, None, check=True)


def fails(tree: Path, *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        check(tree)
    for word in words:
        assert word in str(caught.value)


# ------------------------------------------------------------------------------------- the whole tree


def test_every_parameter_arrives(whole: Path, converted: tuple[Path, ConversionReport]) -> None:
    folder, _ = converted
    for part, source in (("unet", UNET), ("pose_controlnet", POSE), ("face_controlnet", FACE), ("vae", VAE)):
        stored, given = load_file(folder / part / WEIGHTS), state_of(whole / source)
        assert set(stored) == set(given), part
        for name, tensor in given.items():
            assert torch.equal(stored[name], tensor.half()), name
    stored = load_file(folder / "image_projector" / WEIGHTS)
    given = torch.load(whole / ADAPTER, weights_only=True)["image_proj"]
    assert set(stored) == set(given)
    assert all(torch.equal(stored[name], tensor.half()) for name, tensor in given.items())
    for part, source in (("text_encoder", SD), ("image_encoder", IP)):
        stored = load_file(folder / part / "model.safetensors")
        given = without("position_ids")(state_of(whole / source / part / "pytorch_model.bin"))
        assert set(stored) == set(given)
        assert all(torch.equal(stored[name], tensor.half()) for name, tensor in given.items())


def test_the_result_loads_and_computes(converted: tuple[Path, ConversionReport]) -> None:
    folder, _ = converted
    loaded = load_components(folder)
    absent = {name for name, part in loaded.items() if part is None}
    assert absent == {"reference_net", "reference_encoder"}, "the official model has a Dynamics-Adapter"
    assert loaded["unet"].config.image_tokens == loaded["image_projector"].config.num_queries == 4
    assert loaded["pose_controlnet"].config.conditioning_channels == 3
    assert loaded["face_controlnet"].config.conditioning_channels == 6
    with torch.no_grad():
        ids = loaded["tokenizer"]([""], padding="max_length", return_tensors="pt").input_ids
        text = loaded["text_encoder"](ids)[0]
        picture = torch.zeros(50, 40, 3, dtype=torch.uint8).numpy()
        pixels = loaded["image_processor"](picture, return_tensors="pt").pixel_values
        features = loaded["image_encoder"](pixels, output_hidden_states=True).hidden_states[-2]
        tokens = torch.cat([text, loaded["image_projector"](features)], 1)
        assert tokens.shape == (1, 81, 24)
        predicted = loaded["unet"](torch.randn(1, 4, 3, 8, 8), torch.tensor(481), tokens)
    assert predicted.shape == (1, 4, 3, 8, 8)
    assert predicted.isfinite().all()


def test_the_scheduler_is_the_official_one(converted: tuple[Path, ConversionReport]) -> None:
    scheduler = load_components(converted[0], names=["scheduler"])["scheduler"]
    scheduler.set_timesteps(25)
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert scheduler.timesteps[0] == 961
    assert scheduler.timesteps[-1] == 1
    assert abs(float(scheduler.alphas_cumprod[961]) - 0.002478) < 1e-6  # spec.md 6
    assert float(scheduler.final_alpha_cumprod) == 1.0
    assert not scheduler.config.clip_sample


def test_the_report_accounts_for_everything(whole: Path, converted: tuple[Path, ConversionReport]) -> None:
    folder, report = converted
    assert report.output == folder
    assert report.absent == ()
    parts = {part.name: part for part in report.parts}
    assert tuple(parts) != ()
    assert set(parts) == set(read_index(folder).parts)
    assert parts["unet"].origins == {"unet-checkpoint-epoch-5.ckpt": tuple(load_order(folder))}
    assert any("was not needed" in note for note in parts["unet"].notes)
    assert any("position_ids" in note for note in parts["text_encoder"].notes)
    assert report.warnings == []
    text = "\n".join(report.lines())
    for name in ("unet", "controlnet-face-checkpoint-epoch-2.ckpt", "float16", str(folder)):
        assert name in text
    card = (folder / "README.md").read_text()
    assert "unet-checkpoint-epoch-5.ckpt (MIT)" in card
    assert "ip-adapter-plus_sd15.bin (Apache-2.0)" in card


def load_order(folder: Path) -> list[str]:
    return list(load_components(folder, names=["unet"])["unet"].state_dict())


def test_known_models_know_it(whole: Path, converted: tuple[Path, ConversionReport], tmp_path: Path) -> None:
    (tmp_path / "official").symlink_to(converted[0])
    (tmp_path / "pretrained_weights").symlink_to(whole)
    info = next(info for info in describe_models(tmp_path) if info.name == "official")
    assert info.here
    assert len(info.hash) == 64
    assert all(part.here and len(part.hash) == 64 for part in info.parts)


def test_other_types_and_progress(whole: Path, tmp_path: Path) -> None:
    dtype = torch.bfloat16
    seen: dict[str, tuple[int, int]] = {}
    report = convert_official(
        whole,
        tmp_path / "m",
        dtype=dtype,
        progress=lambda name, done, total: seen.update({name: (done, total)}),
    )
    assert set(seen) >= {"unet", "vae", "image_projector"}
    assert all(done == total for done, total in seen.values())
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    given = state_of(whole / UNET)
    assert all(torch.equal(stored[name], tensor.to(dtype)) for name, tensor in given.items())
    assert str(dtype).removeprefix("torch.") in report.lines()[-1]


def test_check_writes_nothing(tree: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    report = convert_official(tree, tmp_path / "m", check=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert report.output is None
    assert "nothing written" in report.lines()[-1]
    assert {part.name for part in report.parts} >= {"unet", "vae", "pose_controlnet", "face_controlnet"}


# --------------------------------------------------------------------------------- partial checkpoints


def test_a_partial_unet_is_completed_from_the_base(tree: Path, tmp_path: Path) -> None:
    edit(tree / UNET, only("to_q_ff", "to_out_ff", "up_blocks.1.motion_modules"))
    own, base = state_of(tree / UNET), state_of(tree / BASE)
    report = convert_official(tree, tmp_path / "m")
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    assert set(stored) == set(fake_tree.unet_shapes(Size()))
    for name, tensor in stored.items():
        assert torch.equal(tensor, (own if name in own else base)[name].half()), name
    origins = report.parts[0].origins
    assert set(origins[UNET.split("/")[1]]) == set(own)
    assert set(origins["animatediff_v15_v1_ipplus.pth"]) == set(stored) - set(own)
    assert report.parts[0].files == (tree / UNET, tree / BASE)


def test_adapter_queries_come_from_the_base_queries(tree: Path, tmp_path: Path) -> None:
    edit(tree / UNET, without("to_q_ff"))
    # even where the base has some of its own (spec.md 11)
    edit(
        tree / BASE,
        lambda state: {**state, **only("to_q_ff")(dict.fromkeys(QUERIES(state), torch.zeros(32, 32)))},
    )
    report = convert_official(tree, tmp_path / "m")
    stored, base = load_file(tmp_path / "m/unet" / WEIGHTS), state_of(tree / BASE)
    queries = [name for name in stored if "to_q_ff" in name]
    assert len(queries) == 6
    for name in queries:
        assert torch.equal(stored[name], base[name.replace("to_q_ff", "to_q")].half())
    assert len(report.parts[0].origins["animatediff_v15_v1_ipplus.pth, copied from attn1.to_q"]) == 6


def QUERIES(state: State) -> list[str]:
    return [
        name.replace("attn1.to_q.", "attn1.to_q_ff.")
        for name in state
        if name.startswith("down_blocks.0") and "attn1.to_q." in name
    ]


def test_missing_adapter_outputs_are_zero_and_loud(tree: Path, tmp_path: Path) -> None:
    edit(tree / UNET, without("to_out_ff"))
    report = convert_official(tree, tmp_path / "m")
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    zeros = [name for name in stored if "to_out_ff" in name]
    assert len(zeros) == 12
    assert not any(stored[name].any() for name in zeros)
    assert len(report.warnings) == 1
    assert "12 parameters" in report.warnings[0]
    assert "zero" in report.warnings[0]


def test_positions_and_image_projections_without_a_base(tree: Path, tmp_path: Path) -> None:
    given = state_of(tree / UNET)
    edit(tree / UNET, without(".pe", "to_k_ip", "to_v_ip"))
    (tree / BASE).unlink()
    convert_official(tree, tmp_path / "m", dtype=torch.float32)
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    assert set(stored) == set(given)
    # positions: as our own network makes them
    shapes = fake_tree.unet_shapes(Size())
    config = unet_config(Size().unet, shapes, image_tokens=4, subject=tree)
    fresh = XDynaUNet.from_config(config).state_dict()
    for name in [name for name in stored if name.endswith(".pe")]:
        assert (stored[name] - fresh[name]).abs().max() < 1e-6
    pairs = torch.load(tree / ADAPTER, weights_only=True)["ip_adapter"]
    first, last = "down_blocks.0.attentions.0", "mid_block.attentions.0"
    for layer, number in ((first, 1), ("up_blocks.1.attentions.0", 5), (last, 11)):
        name = f"{layer}.transformer_blocks.0.attn2.to_v_ip.weight"
        assert torch.equal(stored[name], pairs[f"{number}.to_v_ip.weight"])


def test_a_complete_unet_needs_no_base(tree: Path) -> None:
    (tree / BASE).unlink()
    assert check(tree).parts[0].notes[0] == "the checkpoint is complete"


def test_a_partial_unet_without_a_base_says_where_to_get_it(tree: Path) -> None:
    edit(tree / UNET, without("mid_block"))
    (tree / BASE).unlink()
    fails(tree, "parameters missing", "mid_block", "animatediff_v15_v1_ipplus.pth", "space-xun/i2v_adapter")


def test_a_base_that_does_not_help(tree: Path) -> None:
    edit(tree / UNET, without("mid_block", "motion_modules", "to_q_ff"))
    edit(tree / BASE, without("motion_modules"))
    fails(tree, "parameters missing", "motion_modules", "plain Stable Diffusion 1.5")
    edit(tree / BASE, lambda state: {**state, "stranger": torch.ones(1)})
    fails(tree, "animatediff_v15_v1_ipplus.pth", "not wanted (stranger)")
    edit(tree / BASE, lambda state: {"conv_in.weight": torch.ones(1)})
    fails(tree, "conv_in.weight is 1, not 32x4x3x3")


# --------------------------------------------------------------------------------------- wrong files


@pytest.mark.parametrize(
    ("place", "given", "cause"),
    [
        (UNET, BASE, "This is the base file"),
        (UNET, POSE, "ControlNet"),
        (POSE, FACE, "S-Face ControlNet (6 picture channels) given as the pose one"),
        (FACE, POSE, "pose ControlNet (3 picture channels) given as the S-Face one"),
        (POSE, UNET, "not a ControlNet but a UNet"),
        (VAE, f"{SD}/text_encoder/pytorch_model.bin", "missing"),
        (
            f"{SD}/text_encoder/pytorch_model.bin",
            f"{IP}/image_encoder/pytorch_model.bin",
            "image encoder given as",
        ),
        (
            f"{IP}/image_encoder/pytorch_model.bin",
            f"{SD}/text_encoder/pytorch_model.bin",
            "text encoder given as",
        ),
        (ADAPTER, VAE, "is not IP-Adapter-plus"),
    ],
)
def test_files_in_each_others_place(tree: Path, place: str, given: str, cause: str) -> None:
    (tree / place).unlink()
    os.link(tree / given, tree / place)
    fails(tree, Path(place).name, cause)


def test_keys_missing_extra_and_wrong(tree: Path) -> None:
    def spoil(state: State) -> State:
        del state["conv_in.bias"]
        return {**state, "stranger.weight": torch.ones(2), "conv_in.weight": torch.ones(3, 3)}

    edit(tree / POSE, spoil)
    fails(
        tree,
        "1 missing (conv_in.bias)",
        "1 not wanted (stranger.weight)",
        "conv_in.weight is 3x3, not 32x4x3x3",
    )


def test_an_extra_key_of_the_unet(tree: Path) -> None:
    edit(tree / UNET, lambda state: {**state, "stranger.weight": torch.ones(2)})
    fails(tree, "unet-checkpoint-epoch-5.ckpt", "1 not wanted (stranger.weight)")


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"model.diffusion_model.input_blocks.0.0.weight": (1,)}, "single-file Stable Diffusion"),
        ({"add_embedding.linear_1.weight": (1,)}, "SDXL"),
        ({"down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight": (32, 2048)}, "SDXL"),
        (
            {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (32, 1024)},
            "Stable Diffusion 2",
        ),
        ({"lora_unet_down.weight": (1,)}, "LoRA"),
        ({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (32,)}, "motion modules only"),
    ],
)
def test_other_peoples_unets(tree: Path, keys: dict[str, tuple[int, ...]], cause: str) -> None:
    replace(tree / UNET, {name: torch.ones(shape) for name, shape in keys.items()})
    fails(tree, cause)


def test_parts_of_different_models(tree: Path) -> None:
    other = Size(text={**Size().text, "hidden_size": 16}, image={**Size().image, "hidden_size": 48})
    shapes, config = fake_tree.image_shapes(other)
    folder = tree / IP / "image_encoder"
    replace(folder / "pytorch_model.bin", fake_tree.Filler()(shapes))
    (folder / "config.json").unlink()
    fake_tree.write_json(folder / "config.json", config)
    fails(tree, "features 48 wide", "takes 32", "sdxl_models")
    shapes, config = fake_tree.text_shapes(other)
    folder = tree / SD / "text_encoder"
    replace(folder / "pytorch_model.bin", fake_tree.Filler()(shapes))
    (folder / "config.json").unlink()
    fake_tree.write_json(folder / "config.json", config)
    fails(tree, "tokens 16 wide, the UNet takes 24")


def test_a_malicious_checkpoint_is_refused(tree: Path, tmp_path: Path) -> None:
    trace = tmp_path / "owned"
    replace(tree / FACE, {"state_dict": {**state_of(tree / FACE), "x": Bomb(trace)}})
    fails(tree, "refused", "safetensors")
    assert not trace.exists()


# ------------------------------------------------------------------------------ missing and other places


def test_missing_files_are_all_named(tree: Path) -> None:
    for path in (UNET, POSE, ADAPTER, f"{SD}/unet/config.json"):
        (tree / path).unlink()
    fails(tree, "4 files are missing", UNET, POSE, "Boese0601/X-Dyna", ADAPTER, f"{SD}/unet/config.json")


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    fails(tmp_path, "files are missing")
    fails(tmp_path / "nowhere", "no such folder", "pretrained_weights")


def test_s_face_may_be_absent(tree: Path, tmp_path: Path) -> None:
    (tree / FACE).unlink()
    report = convert_official(tree, tmp_path / "m")
    assert report.absent == ("face_controlnet",)
    assert "face_controlnet" in "\n".join(report.lines())
    assert load_components(tmp_path / "m", names=["face_controlnet"]) == {"face_controlnet": None}


def test_other_places_and_formats(tree: Path, tmp_path: Path) -> None:
    # as downloaded: checkpoints at the root; SD and IP-Adapter folders straight in their places
    for path in (UNET, POSE, FACE):
        (tree / path).rename(tree / Path(path).name)
    (tree / SD).rename(tree / "stable-diffusion-v1-5")
    (tree / IP).rename(tree / "models")
    state = state_of(tree / Path(UNET).name)
    assert check(tree).parts[0].files == (tree / Path(UNET).name,)
    save_file(state, tree / "unet-checkpoint-epoch-5.safetensors")
    report = convert_official(tree, tmp_path / "m")
    assert report.parts[0].files[0].suffix == ".safetensors"
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    assert all(torch.equal(stored[name], tensor.half()) for name, tensor in state.items())


def test_safetensors_everywhere(tree: Path) -> None:
    for path in (VAE, f"{SD}/text_encoder/pytorch_model.bin", f"{IP}/image_encoder/pytorch_model.bin"):
        name = "model.safetensors" if "encoder" in path else WEIGHTS
        save_file(state_of(tree / path), (tree / path).with_name(name))
        (tree / path).unlink()
    adapter = torch.load(tree / ADAPTER, weights_only=True)
    flat = {f"{group}.{name}": tensor for group, state in adapter.items() for name, tensor in state.items()}
    save_file(flat, (tree / ADAPTER).with_suffix(".safetensors"))
    (tree / ADAPTER).unlink()
    report = check(tree)
    assert {path.suffix for part in report.parts[1:] for path in part.files} == {
        ".safetensors",
        ".ckpt",
        ".json",
        ".txt",
    }


def test_control_configs_without_channels(tree: Path) -> None:
    assert "conditioning_channels" not in json.loads((tree / OPENPOSE / "config.json").read_text())
    path = tree / CONTROLNET2 / "config.json"
    config = json.loads(path.read_text())
    del config["conditioning_channels"]
    path.unlink()
    path.write_text(json.dumps(config))
    check(tree)


def test_old_attention_names_of_the_autoencoder(tree: Path, tmp_path: Path) -> None:
    given = state_of(tree / VAE)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(state: State) -> State:
        renamed = {}
        for name, tensor in state.items():
            for new, before in old.items():
                name = name.replace(f".{new}.", f".{before}.") if ".attentions." in name else name
            renamed[name] = tensor
        return renamed

    edit(tree / VAE, rename)
    assert any(".proj_attn." in name for name in state_of(tree / VAE))
    report = convert_official(tree, tmp_path / "m", dtype=torch.float32)
    stored = load_file(tmp_path / "m/vae" / WEIGHTS)
    assert all(torch.equal(stored[name], tensor) for name, tensor in given.items())
    assert any("16 attention names" in note for part in report.parts for note in part.notes)


def test_sd_vae_ft_mse_is_taken_with_a_warning(tree: Path) -> None:
    (tree / SD / "vae").rename(tree / "sd-vae-ft-mse")
    assert "sd-vae-ft-mse" in check(tree).warnings[0]


# ------------------------------------------------------------------------------------------- the result


def test_an_output_that_exists(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/mine.txt").write_text("x")
    with pytest.raises(OutputError, match="exists and is not empty"):
        convert_official(whole, tmp_path / "m")
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "mine.txt"]


def test_nothing_stands_there_when_it_fails_midway(tree: Path, tmp_path: Path) -> None:
    def spoil(state: State) -> State:
        state["decoder.conv_out.bias"] = torch.full((3,), float("inf"))
        return state

    edit(tree / VAE, spoil)
    check(tree)  # values are only seen when they are read
    with pytest.raises(WeightsError, match=r"decoder.conv_out.bias holds NaN or infinity"):
        convert_official(tree, tmp_path / "out/m")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_seen_before_writing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(OutputError, match="free"):
        convert_official(whole, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_options_that_make_no_sense(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--dtype"):
        convert_official(whole, tmp_path / "m", dtype=torch.int8)
    with pytest.raises(OptionError, match="-o"):
        convert_official(whole, None)


def test_resampler_heads(tree: Path) -> None:
    adapter: dict[str, Any] = torch.load(tree / ADAPTER, weights_only=True)
    narrow = fake_tree.Filler()(fake_tree.resampler_shapes(Size(resampler=(32, 2, 4))))
    replace(tree / ADAPTER, {**adapter, "image_proj": narrow})
    assert "heads were assumed" in check(tree).warnings[0]
    del narrow["layers.1.0.to_kv.weight"]
    replace(tree / ADAPTER, {**adapter, "image_proj": narrow})
    fails(tree, "1 missing (layers.1.0.to_kv.weight)")
    replace(tree / ADAPTER, {**adapter, "stranger": {"x": torch.ones(1)}})
    fails(tree, "is not IP-Adapter-plus")
    replace(tree / ADAPTER, {"image_proj": {"proj.weight": torch.ones(4, 4)}, "ip_adapter": {}})
    fails(tree, "plain IP-Adapter")
