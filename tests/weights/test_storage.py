from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xdyna.errors import OptionError, OutputError, WeightsError
from xdyna.weights.storage import (
    STORAGES,
    LazyTensor,
    TensorFile,
    dequantise,
    pack,
    quantise,
    write_safetensors,
)


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "small.bias": torch.randn(7, generator=generator),
        "conv.weight": torch.randn(5, 3, 3, 3, generator=generator)
        * torch.logspace(-4, 2, 5)[:, None, None, None],
        "linear.weight": torch.randn(9, 11, generator=generator),
        "position.pe": torch.rand(1, 6, 4, generator=generator),
        "dead.weight": torch.zeros(3, 5),
        "scalar": torch.tensor(0.5),
        "counts": torch.arange(3),
    }


def read(path: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    file = TensorFile(path)
    return dict(file.tensors(list(file.shapes), dtype=dtype))


def test_written_files_are_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(5, dtype=torch.int8),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3, 3).bfloat16(),
        "double": torch.randn(2, 2).double(),
        "flag": torch.tensor([True, False, True]),
        "strided": torch.randn(4, 6).t(),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.5),
    }
    write_safetensors(tmp_path / "a.safetensors", {k: LazyTensor.of(v) for k, v in tensors.items()})
    loaded = load_file(tmp_path / "a.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_same_tensors_give_same_bytes_whatever_their_order(tmp_path: Path) -> None:
    tensors = {name: LazyTensor.of(tensor) for name, tensor in some_tensors().items()}
    write_safetensors(tmp_path / "a", tensors, metadata={"x": "1", "y": "2"})
    write_safetensors(tmp_path / "b", dict(reversed(tensors.items())), metadata={"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def make() -> torch.Tensor:
        nonlocal most
        tensor = torch.ones(1000)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    tensors = {f"t{place}": LazyTensor((1000,), torch.float32, make) for place in range(20)}
    seen: list[tuple[int, int]] = []
    write_safetensors(tmp_path / "a", tensors, progress=lambda done, total: seen.append((done, total)))
    assert most <= 2  # the last one may still be on its way out
    assert seen[-1] == (80_000, 80_000)
    assert len(seen) == 20


def test_nothing_remains_of_a_file_that_failed(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise WeightsError("x", "broken")

    tensors = {"a": LazyTensor.of(torch.ones(3)), "b": LazyTensor((3,), torch.float32, fail)}
    with pytest.raises(WeightsError, match="broken"):
        write_safetensors(tmp_path / "a", tensors)
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="announced"):
        write_safetensors(tmp_path / "a", {"a": LazyTensor((4,), torch.float32, lambda: torch.ones(3))})


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_safetensors(tmp_path / "no" / "a", {"a": LazyTensor.of(torch.ones(3))})


def test_int8_error_is_half_a_scale_per_channel() -> None:
    weight = some_tensors()["conv.weight"]
    values, scale = quantise(weight)
    assert values.dtype == torch.int8
    assert values.shape == weight.shape
    error = (dequantise(values, scale, torch.float32) - weight).abs().flatten(1).amax(1)
    assert (error <= scale / 2 * 1.001).all()
    assert (error > 0).all()
    # one scale for all channels would have lost the small ones
    assert ((error / weight.abs().flatten(1).amax(1)) < 1 / 250).all()


def test_int8_refuses_nan() -> None:
    with pytest.raises(WeightsError, match="NaN"):
        quantise(torch.tensor([[1.0, float("nan")]]))


@pytest.mark.parametrize("storage", list(STORAGES))
def test_round_trip_of_every_storage(tmp_path: Path, storage: str) -> None:
    tensors = some_tensors()
    packed, metadata = pack(tensors, storage)
    write_safetensors(tmp_path / "a", packed, metadata=metadata)
    assert TensorFile(tmp_path / "a").storage == storage
    loaded = read(tmp_path / "a", torch.float32)
    assert set(loaded) == set(tensors)
    bounds = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8, "int8": 1 / 253}
    for name, tensor in tensors.items():
        assert loaded[name].shape == tensor.shape
        if not tensor.is_floating_point():
            assert torch.equal(loaded[name], tensor)
            continue
        peak = tensor.abs().flatten(1).amax(1) if tensor.dim() > 1 else tensor.abs().max()
        error = (loaded[name] - tensor).abs()
        error = error.flatten(1).amax(1) if tensor.dim() > 1 else error.max()
        assert (error <= bounds[storage] * peak + 1e-7).all(), name
    # positions have one channel only: a shared scale would spoil them
    assert (
        (loaded["position.pe"] - tensors["position.pe"]).abs().max() <= 2**-8 if storage == "bf16" else 5e-4
    )


def test_int8_files_are_a_quarter_of_fp32(tmp_path: Path) -> None:
    tensors = {f"layer{place}.weight": torch.randn(64, 640) for place in range(8)}
    sizes = {}
    for storage in ("fp32", "int8"):
        packed, metadata = pack(tensors, storage)
        write_safetensors(tmp_path / storage, packed, metadata=metadata)
        sizes[storage] = (tmp_path / storage).stat().st_size
    assert sizes["int8"] < 0.26 * sizes["fp32"]


def test_dtype_is_the_asked_one_and_memory_is_its_own(tmp_path: Path) -> None:
    packed, metadata = pack(some_tensors(), "fp16")
    write_safetensors(tmp_path / "a", packed, metadata=metadata)
    loaded = read(tmp_path / "a", torch.float16)
    before = loaded["linear.weight"].clone()
    with (tmp_path / "a").open("r+b") as file:  # somebody overwrites the file under us
        file.seek(-900, 2)
        file.write(bytes(900))
    assert torch.equal(loaded["linear.weight"], before)
    assert loaded["counts"].dtype == torch.int64


def test_unknown_storage_and_reserved_names() -> None:
    with pytest.raises(OptionError, match="int4"):
        pack(some_tensors(), "int4")
    with pytest.raises(WeightsError, match=r"end in \.scale"):
        pack({"norm.scale": torch.ones(3)}, "int8")


@pytest.mark.parametrize("cut", [4, 100, -10])
def test_cut_files_are_weights_errors(tmp_path: Path, cut: int) -> None:
    packed, metadata = pack(some_tensors(), "fp32")
    write_safetensors(tmp_path / "a", packed, metadata=metadata)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:cut])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        TensorFile(tmp_path / "a")
    with pytest.raises(WeightsError, match="no such file"):
        TensorFile(tmp_path / "b")
