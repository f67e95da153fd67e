from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xdyna.errors import WeightsError
from xdyna.evaluation.published import Layout, fill_network, load_published, shapes_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return network().state_dict()


def same(path: Path, state: dict[str, torch.Tensor], layout: Layout | None = None) -> bool:
    loaded = load_published(path, shapes_of(network()), layout=layout)
    return list(loaded) == list(state) and all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "module", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_containers_and_prefixes(
    wrapper: str | None, prefix: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    named: Any = {prefix + name: value for name, value in state.items()}
    path = tmp_path / "network.pth.tar"
    torch.save({"epoch": 3, wrapper: named, "best": 0.5} if wrapper else named, path)
    assert same(path, state)


def test_safetensors_npz_and_pickled_arrays(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "a.safetensors")
    arrays = {name: value.numpy() for name, value in state.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "a.npy", np.array(arrays, dtype=object), allow_pickle=True)
    for suffix in ("safetensors", "npz", "npy"):
        assert same(tmp_path / f"a.{suffix}", state)


def test_torchs_older_format_and_half_precision(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(tmp_path / "old.pth", state)
    halved = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    torch.save(halved, tmp_path / "half.pth")
    loaded = load_published(tmp_path / "half.pth", shapes_of(network()))
    assert loaded["0.weight"].dtype == torch.float32
    assert torch.equal(loaded["0.weight"], halved["0.weight"].float())


def test_counters_that_older_files_lack(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", state)


def test_parts_that_are_not_used(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    whole = {f"model.{name}": value for name, value in state.items()} | {"head.kernel": torch.zeros(4, 10)}
    torch.save({"state_dict": whole}, tmp_path / "a.ckpt")
    layout = Layout(wrappers=("state_dict",), prefixes=("model.",), ignored=("head.",))
    assert same(tmp_path / "a.ckpt", state, layout)
    with pytest.raises(WeightsError, match=r"1 not wanted \(head.kernel\)"):
        load_published(tmp_path / "a.ckpt", shapes_of(network()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"0.bias": None}, r"1 missing \(0.bias\)"),
        ({"1.running_var": None, "2.weight": None}, r"2 missing \(1.running_var, 2.weight\)"),
        ({"3.weight": torch.zeros(2)}, r"1 not wanted \(3.weight\)"),
        ({"0.weight": torch.zeros(4, 3, 3)}, r"0.weight is \(4, 3, 3\), not \(4, 3, 3, 3\)"),
        ({"2.bias": torch.tensor([float("nan"), 0.0])}, "2.bias holds NaN"),
    ],
)
def test_files_that_do_not_fit(
    change: dict[str, torch.Tensor | None], problem: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    merged = {name: value for name, value in {**state, **change}.items() if value is not None}
    torch.save(merged, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=problem):
        load_published(tmp_path / "a.pth", shapes_of(network()))


class Touch:
    """Runs a command when an ordinary unpickler builds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_pickle_does_not_run(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": state, "extra": Touch(marker)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError):
        load_published(tmp_path / "a.pth", shapes_of(network()))
    held = np.array(0, dtype=object)
    held[()] = {"0.weight": Touch(marker)}
    np.save(tmp_path / "a.npy", held, allow_pickle=True)
    with pytest.raises(WeightsError, match="refused"):
        load_published(tmp_path / "a.npy", shapes_of(network()))
    assert not marker.exists()
    pickle.loads(pickle.dumps(Touch(marker)))  # the trap itself works
    assert marker.exists()


def test_objects_of_old_lightning_files_are_left_out(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("lightning_that_is_not_here")
    made = []

    class ModelCheckpoint:
        def __setstate__(self, held: object) -> None:
            made.append(held)

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    callback = ModelCheckpoint()
    callback.best = 0.5  # type: ignore[attr-defined]
    whole = {f"model.{name}": value for name, value in state.items()}
    torch.save({"state_dict": whole, "callbacks": {ModelCheckpoint: callback}}, tmp_path / "a.ckpt")
    assert same(tmp_path / "a.ckpt", state)
    assert made == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pth", b"", "no complete weight file"),
        ("a.pth", b"<!DOCTYPE html><html>", "web page"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{}", "no complete weight file"),
        ("a.npy", b"\x93NUMPY\x01\x00", "no complete weight file"),
        ("a.npz", b"PK\x03\x04", "no complete weight file"),
    ],
)
def test_broken_files(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=problem):
        load_published(tmp_path / name, {"a": (1,)})


def test_what_is_no_file_of_parameters(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_published(tmp_path / "none.pth", {})
    with pytest.raises(WeightsError, match="a folder"):
        load_published(tmp_path, {})
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        load_published(tmp_path / "list.pth", {})
    torch.save({"net": {"a": torch.zeros(1)}}, tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match="only net"):
        load_published(tmp_path / "deep.pth", {"a": (1,)})
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(WeightsError, match="one array"):
        load_published(tmp_path / "array.npy", {})


def test_a_network_without_memory_is_filled_for_evaluation(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "a.pth")
    with torch.device("meta"):
        empty = network()
    filled = fill_network(empty, tmp_path / "a.pth")
    assert not filled.training
    assert not any(parameter.requires_grad for parameter in filled.parameters())
    pictures = torch.ones(1, 3, 6, 6)
    assert torch.equal(filled(pictures), network().eval()(pictures))
