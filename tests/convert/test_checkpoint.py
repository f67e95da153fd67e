from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xdyna.convert.checkpoint import Checkpoint
from xdyna.errors import WeightsError

STATE = {"a.weight": torch.randn(3, 4), "b.bias": torch.randn(5)}


class Bomb:
    """Runs a command when unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def assert_same(checkpoint: Checkpoint) -> None:
    assert checkpoint.shapes == {"a.weight": (3, 4), "b.bias": (5,)}
    for name, tensor in STATE.items():
        assert torch.equal(checkpoint.tensor(name), tensor)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"module." + name: tensor for name, tensor in STATE.items()},
        {"state_dict": {"module." + name: tensor for name, tensor in STATE.items()}},
        {"a": {"weight": STATE["a.weight"]}, "b": {"bias": STATE["b.bias"]}},
        {"a.module.weight": STATE["a.weight"], "module.module.b.bias": STATE["b.bias"]},
    ],
    ids=["plain", "lightning", "parallel", "both", "nested", "inside"],
)
def test_wrappers_and_prefixes_are_taken_off(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    assert_same(Checkpoint(tmp_path / "x.ckpt"))


def test_other_formats(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(Checkpoint(tmp_path / "old.pth"))
    save_file({"module." + name: tensor for name, tensor in STATE.items()}, tmp_path / "x.safetensors")
    assert_same(Checkpoint(tmp_path / "x.safetensors"))


def test_closing_and_renaming(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.ckpt")
    checkpoint = Checkpoint(tmp_path / "x.ckpt")
    checkpoint.rename({"a.weight": "c.weight"})
    assert set(checkpoint.shapes) == {"c.weight", "b.bias"}
    for _ in range(2):
        assert torch.equal(checkpoint.tensor("c.weight"), STATE["a.weight"])
        checkpoint.close()
    assert checkpoint.part("c.") == {"weight": (3, 4)}


def test_types(tmp_path: Path) -> None:
    torch.save(
        {"big": torch.tensor([1e6]), "bad": torch.tensor([float("nan")]), "good": torch.ones(2)},
        tmp_path / "x",
    )
    checkpoint = Checkpoint(tmp_path / "x")
    assert checkpoint.lazy("good", torch.float16).load().dtype == torch.float16
    assert checkpoint.lazy("big", torch.bfloat16).load().isfinite().all()
    with pytest.raises(WeightsError, match=r"big does not fit into torch.float16.*--dtype"):
        checkpoint.lazy("big", torch.float16).load()
    with pytest.raises(WeightsError, match="bad holds NaN"):
        checkpoint.lazy("bad", torch.float16).load()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "x.ckpt", tmp_path / "owned"
    torch.save({**STATE, "bomb": Bomb(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"needs more than tensors.*refused") as caught:
        Checkpoint(path)
    assert "system" in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the bomb is a real one
    assert trace.exists()


def test_a_bare_malicious_pickle_is_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "x.pth", tmp_path / "owned"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(WeightsError):
        Checkpoint(path)
    assert not trace.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(WeightsError, match="no such file"):
        Checkpoint(path)
    for content, remedy in (
        (b"", "Download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (bytes(range(100)), "Download it again"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=remedy):
            Checkpoint(path)
    torch.save({"a": torch.randn(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(WeightsError, match=r"no complete checkpoint|no checkpoint"):
        Checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds a list"):
        Checkpoint(path)
    torch.save({"a": torch.ones(2), "epoch": 3}, path)
    with pytest.raises(WeightsError, match=r"1 entries are no tensors \(epoch\)"):
        Checkpoint(path)
    torch.save({"a": torch.ones(2), "module.a": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="twice"):
        Checkpoint(path)
