from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from tests.weights import models
from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.weights import describe_models, file_hash, folder_hash, models_dir, resolve, save_model
from xdyna.weights.components import INDEX_NAME
from xdyna.weights.folder import embedded_dir
from xdyna.weights.official_files import OFFICIAL_FILES, find_official


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {
        "unet": models.tiny_unet(),
        "vae": models.tiny_vae(),
        "scheduler": models.tiny_scheduler(),
    }


@pytest.fixture(scope="module")
def saved(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, parts, card="# A tiny model\n")
    return folder


@pytest.fixture(autouse=True)
def no_models_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDYNA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "models"


# ------------------------------------------------------------------------------------------------- saving


def test_a_saved_model_is_a_diffusers_style_folder(saved: Path) -> None:
    index = json.loads((saved / INDEX_NAME).read_text())
    assert index["_class_name"] == "XDynaPipeline"
    assert index["_xdyna_version"]
    assert index["unet"] == ["xdyna", "XDynaUNet"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert index["face_controlnet"] is None
    assert index["_preset"]["height"] == 896
    assert (saved / "README.md").read_text() == "# A tiny model\n"
    assert (saved / "scheduler/scheduler_config.json").is_file()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


def test_an_existing_folder_is_kept_unless_told_otherwise(
    saved: Path, parts: dict[str, Any], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(saved, tmp_path / "m"))
    (target / "mine.txt").write_text("x")
    before = folder_hash(target)
    with pytest.raises(OutputError, match="exists and is not empty"):
        save_model(target, parts)
    assert (target / "mine.txt").is_file()
    save_model(target, parts, storage="fp32", overwrite=True)
    assert not (target / "mine.txt").exists()
    assert folder_hash(target) != before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_nothing_stands_there_when_saving_fails(parts: dict[str, Any], tmp_path: Path) -> None:
    broken = models.tiny_vae()
    with torch.no_grad():
        broken.encoder.conv_in.weight[0] = float("nan")
    with pytest.raises(WeightsError, match="NaN"):
        save_model(tmp_path / "out/m", {**parts, "vae": broken}, storage="int8")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_places(parts: dict[str, Any], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        save_model(tmp_path / "m", parts)


def test_a_file_in_the_way(parts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        save_model(tmp_path / "m", parts)
    with pytest.raises(OutputError, match="cannot be made"):
        save_model(tmp_path / "m/deeper/m", parts)


def test_components_that_do_not_make_a_model(parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot do without vae"):
        save_model(tmp_path / "m", {"unet": parts["unet"], "scheduler": parts["scheduler"], "vae": None})
    with pytest.raises(OptionError, match="unknown: nose"):
        save_model(tmp_path / "m", {**parts, "nose": parts["vae"]})
    with pytest.raises(OptionError, match="is a AutoencoderKL, not a XDynaUNet"):
        save_model(tmp_path / "m", {**parts, "unet": parts["vae"]})
    with pytest.raises(OptionError, match="int3"):
        save_model(tmp_path / "m", parts, storage="int3")
    assert not (tmp_path / "m").exists()


# ------------------------------------------------------------------------------------------------- hashes


def test_the_hash_is_of_names_and_contents(saved: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "elsewhere"))
    assert folder_hash(copy) == folder_hash(saved)
    assert len(folder_hash(copy)) == 64
    (copy / "README.md").write_text("another card")
    assert folder_hash(copy) == folder_hash(saved)
    weights = copy / "vae/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert folder_hash(copy) != folder_hash(saved)


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(WeightsError, match="cannot be read"):
        file_hash(tmp_path / "b")


# -------------------------------------------------------------------------------------------- finding one


def test_folders_and_names_are_found(saved: Path, no_models_here: Path) -> None:
    assert resolve(str(saved)) == saved
    assert resolve(saved) == saved
    assert models_dir() == no_models_here
    shutil.copytree(saved, no_models_here / "mine")
    assert resolve("mine") == no_models_here / "mine"


def test_what_is_no_model_says_what_to_do(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such model.*xdyna models"):
        resolve("nothing-of-that-name")
    with pytest.raises(WeightsError, match=r"this is a file"):
        resolve(saved / INDEX_NAME)
    with pytest.raises(WeightsError, match="xdyna convert official"):
        resolve(tmp_path)
    with pytest.raises(WeightsError, match=r"no such model"):
        resolve("../../etc/passwd@x/y")


def test_a_hub_id_that_cannot_be_fetched(no_models_here: Path) -> None:
    for name in ("someone/some-model", "someone/some-model@v1.0"):
        with pytest.raises(WeightsError, match=r"someone/some-model.*cannot be fetched") as caught:
            resolve(name)
        assert "give the folder" in str(caught.value)


def test_embedded(saved: Path) -> None:
    if (embedded_dir() / INDEX_NAME).is_file():
        assert resolve("embedded") == embedded_dir()
    else:
        with pytest.raises(WeightsError, match="carries no model"):
            resolve("embedded")


# ----------------------------------------------------------------------------------------- known models


def test_known_models_without_any(no_models_here: Path) -> None:
    infos = {info.name: info for info in describe_models()}
    assert list(infos) == ["embedded", "official"]
    official = infos["official"]
    assert not official.here
    assert official.hash == ""
    assert "xdyna convert official" in official.remedy
    assert [part.name for part in official.parts] == [file.name for file in OFFICIAL_FILES]
    for part in official.parts:
        assert not part.here
        assert part.source.startswith("https://huggingface.co/")
        assert part.licence
        assert part.file


def test_known_models_that_are_here(saved: Path, no_models_here: Path) -> None:
    shutil.copytree(saved, no_models_here / "mine")
    shutil.copytree(saved, no_models_here / "official")
    tree = no_models_here / "pretrained_weights"
    (tree / "unet").mkdir(parents=True)
    (tree / "unet/unet-checkpoint-epoch-5.ckpt").write_bytes(b"abc")
    shutil.copytree(saved, no_models_here / "broken")
    (no_models_here / "broken/vae/diffusion_pytorch_model.safetensors").unlink()
    infos = {info.name: info for info in describe_models(no_models_here)}
    assert list(infos) == ["embedded", "official", "broken", "mine"]
    assert infos["mine"].here
    assert infos["mine"].hash == folder_hash(saved)
    assert {part.name for part in infos["mine"].parts} == {"unet", "vae", "scheduler"}
    assert infos["mine"].parts[0].size > 0
    assert infos["official"].here
    parts = {part.name: part for part in infos["official"].parts}
    assert parts["unet"].here
    assert parts["unet"].hash.startswith("ba7816bf")
    assert not parts["base"].here
    assert not infos["broken"].here
    assert "vae" in infos["broken"].problem
    quick = {info.name: info for info in describe_models(no_models_here, hashes=False)}
    assert quick["mine"].here
    assert quick["mine"].hash == ""


def test_official_files_are_found_where_users_have_them(tmp_path: Path) -> None:
    def touch(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")

    # as the hub repository has them: at the root
    touch("unet-checkpoint-epoch-5.ckpt", "controlnet-checkpoint-epoch-5.ckpt")
    touch("controlnet-face-checkpoint-epoch-2.ckpt", "README.md")
    found = {name: path.relative_to(tmp_path).as_posix() for name, path in find_official(tmp_path).items()}
    assert found == {
        "unet": "unet-checkpoint-epoch-5.ckpt",
        "pose_controlnet": "controlnet-checkpoint-epoch-5.ckpt",
        "face_controlnet": "controlnet-face-checkpoint-epoch-2.ckpt",
    }
    # later epochs win, safetensors win over pickles, other folders' files and configs do not count
    touch("unet/unet-checkpoint-epoch-9.ckpt", "unet/unet-checkpoint-epoch-10.ckpt")
    touch("unet/unet-checkpoint-epoch-10.safetensors", "unet/config.json", "unet/Put unet here.txt")
    touch("a/sdxl_models/image_encoder/model.safetensors", "a/models/image_encoder/pytorch_model.bin")
    touch("a/models/ip-adapter-plus_sd15.bin", "a/models/ip-adapter-plus-face_sd15.bin")
    touch("elsewhere/animatediff_v15_v1_ipplus.pth")
    found = {name: path.relative_to(tmp_path).as_posix() for name, path in find_official(tmp_path).items()}
    assert found["unet"] == "unet/unet-checkpoint-epoch-10.safetensors"
    assert found["image_encoder"] == "a/models/image_encoder/pytorch_model.bin"
    assert found["ip_adapter"] == "a/models/ip-adapter-plus_sd15.bin"
    assert found["base"] == "elsewhere/animatediff_v15_v1_ipplus.pth"
    with pytest.raises(WeightsError, match="no such folder"):
        find_official(tmp_path / "missing")


def test_fp16_is_the_default_storage(saved: Path) -> None:
    dtypes = {
        tensor.dtype for tensor in load_file(saved / "vae/diffusion_pytorch_model.safetensors").values()
    }
    assert dtypes == {torch.float16}
