"""The model that training starts from: where each parameter comes from, and that the fresh ones change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.convert import fake_tree
from tests.convert.fake_tree import IP, OPENPOSE, SD, Size
from tests.convert.spoil import ADAPTER, BASE, VAE, State, edit, only, replace, state_of, without
from tests.tiny import dancer, noise_frames
from xdyna.cli import main
from xdyna.convert import ConversionReport, convert_base, convert_official
from xdyna.convert.control import EMBEDDING
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline
from xdyna.runs import Prepared
from xdyna.weights import folder_hash, load_components, read_index

CONTROL = f"{OPENPOSE}/diffusion_pytorch_model.bin"
XDYNA = "unet/unet-checkpoint-epoch-5.ckpt"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def check(tree: Path) -> ConversionReport:
    return convert_base(tree, None, check=True)


def fails(tree: Path, *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        check(tree)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree without anything that X-Dyna trained, of a size that the pipeline runs."""
    tree = fake_tree.write_tree(tmp_path_factory.mktemp("base"), size=Size.for_pipeline())
    for path in (*tree.glob("*/*.ckpt"), *tree.glob("**/controlnet2/config.json")):
        path.unlink()
    return tree


@pytest.fixture(scope="module")
def converted(part: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConversionReport]:
    folder = tmp_path_factory.mktemp("converted") / "base"
    return folder, convert_base(part, folder, dtype=torch.float32)


# ------------------------------------------------------------------------------------------- the sources


def test_the_unet_is_the_base_with_a_fresh_adapter(
    part: Path, converted: tuple[Path, ConversionReport]
) -> None:
    stored, base = load_file(converted[0] / "unet" / WEIGHTS), state_of(part / BASE)
    assert set(stored) == set(fake_tree.unet_shapes(Size.for_pipeline()))
    fresh = set(stored) - set(base)
    assert fresh == {name for name in stored if "to_q_ff" in name or "to_out_ff" in name}
    for name, tensor in base.items():
        assert torch.equal(stored[name], tensor), name
    for name in fresh:
        if "to_q_ff" in name:
            assert torch.equal(stored[name], base[name.replace("to_q_ff", "to_q")])
        else:
            assert not stored[name].any()


def test_both_controlnets_start_from_openpose(part: Path, converted: tuple[Path, ConversionReport]) -> None:
    given = state_of(part / CONTROL)
    pose, face = (load_file(converted[0] / name / WEIGHTS) for name in ("pose_controlnet", "face_controlnet"))
    assert set(pose) == set(face) == set(given)
    for name, tensor in given.items():
        assert torch.equal(pose[name], tensor), name
        if not name.startswith(EMBEDDING):
            assert torch.equal(face[name], tensor), name
    embedding = {name.removeprefix(EMBEDDING): face[name] for name in only(EMBEDDING)(face)}
    assert embedding["conv_in.weight"].shape == (4, 6, 3, 3)
    for name, tensor in embedding.items():
        assert bool(tensor.any()) != name.startswith("conv_out."), name
        assert name.startswith("conv_out.") or not torch.equal(tensor, given.get(EMBEDDING + name))


def test_the_other_parts_are_those_of_the_official_model(whole: Path, tmp_path: Path) -> None:
    convert_official(whole, tmp_path / "official")
    convert_base(whole.parent, tmp_path / "base")
    parts = set(read_index(tmp_path / "base").parts)
    assert parts == set(read_index(tmp_path / "official").parts)
    for name in parts - {"unet", "pose_controlnet", "face_controlnet"}:
        for path in (tmp_path / "official" / name).iterdir():
            assert (tmp_path / "base" / name / path.name).read_bytes() == path.read_bytes()


def test_what_xdyna_trained_is_neither_needed_nor_read(tree: Path, tmp_path: Path) -> None:
    convert_base(tree, tmp_path / "a")
    for path in tree.glob("*/*.ckpt"):
        path.unlink()
        path.write_text("<html>not found</html>")
    torch.manual_seed(7)
    convert_base(tree, tmp_path / "b")
    for path in tree.glob("*/*.ckpt"):
        path.unlink()
    convert_base(tree, tmp_path / "c")
    assert len({folder_hash(tmp_path / name) for name in "abc"}) == 1, "the same files, the same model"


def test_the_report_says_what_is_fresh(converted: tuple[Path, ConversionReport]) -> None:
    folder, report = converted
    parts = {item.name: item for item in report.parts}
    assert set(parts) == set(read_index(folder).parts)
    assert report.output == folder
    assert report.absent == ()
    assert report.warnings == []
    for name in ("unet", "face_controlnet"):
        names = [key for keys in parts[name].origins.values() for key in keys]
        assert sorted(names) == sorted(load_file(folder / name / WEIGHTS)), "every name exactly once"
    assert {origin: len(names) for origin, names in parts["unet"].origins.items()} == {
        "animatediff_v15_v1_ipplus.pth": len(load_file(folder / "unet" / WEIGHTS)) - 18,
        "animatediff_v15_v1_ipplus.pth, copied from attn1.to_q": 6,
        "zeros (fresh)": 12,
    }
    origins = parts["face_controlnet"].origins
    assert origins["zeros (fresh)"] == (f"{EMBEDDING}conv_out.weight", f"{EMBEDDING}conv_out.bias")
    assert all(name.startswith(EMBEDDING) for name in origins["fresh random numbers (seed 0)"])
    assert not any(name.startswith(EMBEDDING) for name in origins["diffusion_pytorch_model.bin"])
    assert any("--face-scale 0" in note for note in parts["face_controlnet"].notes)
    card = (folder / "README.md").read_text()
    assert "xdyna convert base" in card
    assert "unet: animatediff_v15_v1_ipplus.pth (Apache-2.0)" in card
    assert "face_controlnet: diffusion_pytorch_model.bin (OpenRAIL)" in card


def test_positions_and_image_projections_that_the_base_lacks(tree: Path, tmp_path: Path) -> None:
    edit(tree / BASE, without(".pe", "to_k_ip", "to_v_ip"))
    report = convert_base(tree, tmp_path / "m", dtype=torch.float32)
    origins = report.parts[0].origins
    assert len(origins["ip-adapter-plus_sd15.bin"]) == 12
    assert all(name.endswith(".pe") for name in origins["the formula (a sinusoid)"])
    assert tree / ADAPTER in report.parts[0].files
    stored = load_file(tmp_path / "m/unet" / WEIGHTS)
    pairs = torch.load(tree / ADAPTER, weights_only=True)["ip_adapter"]
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k_ip.weight"
    assert torch.equal(stored[name], pairs["11.to_k_ip.weight"])


def test_a_layout_for_want_of_the_controlnets_own(tree: Path) -> None:
    # The fake ControlNet's embedding is narrower than diffusers' default, so only its own config describes it.
    (tree / OPENPOSE / "config.json").unlink()
    fails(tree, "diffusion_pytorch_model.bin", EMBEDDING)
    config = {**Size().unet, **Size().control}
    (tree / SD / "unet/config.json").unlink()
    fake_tree.write_json(tree / SD / "unet/config.json", config)
    notes = next(item.notes for item in check(tree).parts if item.name == "pose_controlnet")
    assert "its config.json is not there: the layout of the UNet was taken" in notes


# --------------------------------------------------------------------------------------------- it runs


@pytest.fixture(scope="module")
def pipeline(converted: tuple[Path, ConversionReport]) -> XDynaPipeline:
    return XDynaPipeline.from_pretrained(converted[0], device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prepared(pipeline: XDynaPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    path = tmp_path_factory.mktemp("k") / "k.npz"
    dancer(3).save(path)
    options = AnimateOptions(keypoints=str(path), align="none", size="64x96", steps=2)
    ready = pipeline.prepare(noise_frames(1, (120, 80), seed=2)[0], noise_frames(3), options)
    yield ready
    ready.conditions.close()


def test_the_fresh_adapter_changes_nothing(pipeline: XDynaPipeline, prepared: Prepared) -> None:
    def run(reference_scale: float) -> torch.Tensor:
        options = dataclasses.replace(prepared.options, reference_scale=reference_scale)
        given = dataclasses.replace(prepared, options=options)
        generator = torch.Generator().manual_seed(1)
        return pipeline.denoise(given, pipeline.encode(given, generator), generator)

    with_it, without_it = run(1.0), run(0.0)
    assert with_it.isfinite().all()
    assert torch.equal(with_it, without_it)
    output = pipeline.unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn1.to_out_ff.weight")
    with torch.no_grad():
        torch.nn.init.normal_(output, generator=torch.Generator().manual_seed(0))
    try:
        assert not torch.equal(run(1.0), without_it), "only its zeros keep the reference out"
    finally:
        torch.nn.init.zeros_(output)


def test_faces_have_no_effect_yet_and_poses_have(converted: tuple[Path, ConversionReport]) -> None:
    networks = load_components(converted[0], names=["pose_controlnet", "face_controlnet"])
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 77, 24, generator=generator)
    effect = {}
    for name, network in networks.items():
        channels = network.config.conditioning_channels
        pictures = torch.rand(2, 1, channels, 64, 64, generator=generator)
        with torch.no_grad():
            first, second = (
                network(latents, torch.tensor(481), text, picture).mid_block_res_sample
                for picture in pictures
            )
        assert first.abs().max() > 0
        effect[name] = not torch.equal(first, second)
    assert effect == {"pose_controlnet": True, "face_controlnet": False}


# ---------------------------------------------------------------------------------------------- refusals


def test_a_base_with_missing_extra_or_wrong_parameters(tree: Path) -> None:
    given = state_of(tree / BASE)
    cases = (
        (without("mid_block"), ("parameters missing", "mid_block", "cut short")),
        (without("motion_modules"), ("parameters missing", "motion_modules", "plain Stable Diffusion 1.5")),
        (lambda state: {**state, "stranger": torch.ones(1)}, ("1 not wanted (stranger)",)),
        (lambda state: {**state, "conv_in.bias": torch.ones(3)}, ("conv_in.bias is 3, not 32",)),
    )
    for change, words in cases:
        replace(tree / BASE, change(given))
        fails(tree, "animatediff_v15_v1_ipplus.pth", *words)


def test_xdynas_own_unet_is_no_base(tree: Path) -> None:
    trained = state_of(tree / XDYNA)
    replace(tree / BASE, trained)
    fails(tree, "animatediff_v15_v1_ipplus.pth", "18 parameters of a Dynamics-Adapter", "convert official")
    replace(tree / BASE, without("to_q_ff")(trained))
    fails(tree, "12 parameters of a Dynamics-Adapter", "to_out_ff")


def test_a_controlnet_with_missing_or_extra_parameters(tree: Path) -> None:
    def spoil(state: State) -> State:
        del state["conv_in.bias"]
        return {**state, "stranger.weight": torch.ones(2)}

    edit(tree / CONTROL, spoil)
    fails(tree, CONTROL, "1 missing (conv_in.bias)", "1 not wanted (stranger.weight)")
    face = fake_tree.Filler()(fake_tree.shapes_of(fake_tree.controlnet(Size(), 6)))
    replace(tree / CONTROL, face)
    fails(tree, CONTROL, "S-Face ControlNet (6 picture channels) given as the pose one")


def test_missing_files_are_all_named(tree: Path) -> None:
    for path in (CONTROL, BASE, ADAPTER):
        (tree / path).unlink()
    fails(tree, "3 files are missing", BASE, "space-xun/i2v_adapter", ADAPTER)
    fails(tree, "control_v11p_sd15_openpose", "lllyasviel/control_v11p_sd15_openpose")


def test_parts_of_different_models(tree: Path) -> None:
    shapes, config = fake_tree.image_shapes(Size(image={**Size().image, "hidden_size": 48}))
    folder = tree / IP / "image_encoder"
    replace(folder / "pytorch_model.bin", fake_tree.Filler()(shapes))
    (folder / "config.json").unlink()
    fake_tree.write_json(folder / "config.json", config)
    fails(tree, "features 48 wide", "takes 32")


def test_nothing_stands_there_when_it_fails_midway(tree: Path, tmp_path: Path) -> None:
    def spoil(state: State) -> State:
        state["decoder.conv_out.bias"] = torch.full((3,), float("nan"))
        return state

    edit(tree / VAE, spoil)
    check(tree)  # values are only seen when they are read
    with pytest.raises(WeightsError, match=r"decoder.conv_out.bias holds NaN"):
        convert_base(tree, tmp_path / "out/m")
    assert not list((tmp_path / "out").iterdir())


def test_options_that_make_no_sense(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--dtype"):
        convert_base(whole, tmp_path / "m", dtype=torch.int8)
    with pytest.raises(OptionError, match="-o"):
        convert_base(whole, None)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/mine.txt").write_text("x")
    with pytest.raises(OutputError, match="exists and is not empty"):
        convert_base(whole, tmp_path / "m")


# --------------------------------------------------------------------------------------------- the command


def test_the_command(part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "base", str(part), "--check", "-q"]) == 0
    assert "checked, nothing written" in capsys.readouterr().out
    assert main(["convert", "base", str(part), "-o", str(tmp_path / "m"), "--dtype", "bfloat16", "-q"]) == 0
    said = capsys.readouterr().out
    assert "12 from zeros (fresh)" in said
    assert f"as bfloat16, written to {tmp_path / 'm'}" in said
    stored = load_file(tmp_path / "m/face_controlnet" / WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert main(["convert", "base", str(part / "unet"), "-o", str(tmp_path / "n"), "-q"]) == 2
    assert "files are missing" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
