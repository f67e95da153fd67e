from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.clip_folders import moving, write_frames
from tests.evaluation.pictures_for_tests import network_file, noise, person
from xdyna.errors import WeightsError
from xdyna.evaluation.networks import nsfw_inception
from xdyna.evaluation.networks.nsfw_inception import (
    CLASSES,
    FILES,
    MANIFEST,
    PLACE,
    NsfwInception,
    keras_shapes,
    load_nsfw_inception,
    read_package,
    read_quantised,
)
from xdyna.evaluation.options import EvaluateOptions
from xdyna.evaluation.preparing import pictures_for_nsfwjs
from xdyna.evaluation.run import evaluate
from xdyna.evaluation.set_features import nsfw_inception_features

_HEAD = "!function(a){module.exports=a()}(function(){return function a(n,i,e){}("


def bundled(
    *, entries: str | None = None, bytes_of: tuple[bytes, ...] = (b"\x00\x01\x02", b"\xff\x07")
) -> dict[str, str]:
    """A model of two tensors in as many shards as given, bundled as nsfwjs bundles its own."""
    paths = [f"group1-shard{n}of{len(bytes_of)}" for n in range(1, len(bytes_of) + 1)]
    entries = entries or ",".join(
        f'{{name:"{name}",shape:[{shape}],dtype:"float32",quantization:{{min:{least},scale:{scale},dtype:"uint8"}}}}'
        for name, shape, least, scale in (
            ("conv2d_1/kernel", "2,1,2", "-.5", ".25"),
            ("conv2d_1/beta", "1", "2", "1e-3"),
        )
    )
    listed = ",".join(f'"{path}"' for path in paths)
    model = (
        _HEAD + '{1:[function(a,n,i){n.exports={modelTopology:{note:"weights:[1]"},weightsManifest:[{paths:['
        f"{listed}],weights:[{entries}]}}]}}}},{{}}]}},{{}},[1])(1)}});"
    )
    texts = {MANIFEST: model}
    for path, content in zip(paths, bytes_of, strict=True):
        text = base64.b64encode(content).decode()
        texts[f"{path}.min.js"] = (
            f'{_HEAD}{{1:[function(a,n,i){{n.exports="{text}"}},{{}}]}},{{}},[1])(1)}});\n'
        )
    return texts


def packed(path: Path, texts: dict[str, str], *, kind: bytes = tarfile.REGTYPE) -> Path:
    """As npm packs it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {
            "package/LICENSE": "MIT",
            **{f"package/{PLACE}/{n}": t for n, t in texts.items()},
        }.items():
            member = tarfile.TarInfo(name)
            member.type = kind
            member.size = len(text) if kind == tarfile.REGTYPE else 0
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(member, io.BytesIO(text.encode()) if member.size else None)
    return path


def hashes(texts: dict[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def test_weights_are_cut_out_and_dequantised() -> None:
    found = read_quantised(bundled(), subject="x")
    assert list(found) == ["conv2d_1/kernel", "conv2d_1/beta"]
    assert found["conv2d_1/kernel"].tolist() == [[[-0.5, -0.25]], [[0.0, 63.25]]], (
        "it runs on over two shards"
    )
    assert found["conv2d_1/beta"].numpy() == np.float32(2.007)
    assert found["conv2d_1/beta"].dtype == torch.float32


def test_the_archive_and_its_unpacked_folder_give_the_same(tmp_path: Path) -> None:
    texts = bundled()
    archive = packed(tmp_path / "nsfwjs-4.3.0.tgz", texts)
    folder = tmp_path / "node_modules" / "nsfwjs" / PLACE
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    assert read_package(archive, known=hashes(texts)) == texts
    assert read_package(folder / MANIFEST, known=hashes(texts)) == texts
    with pytest.raises(WeightsError, match=r"model\.min\.js has the sha256 .* npm pack nsfwjs@4\.3\.0"):
        read_package(archive, known=hashes(texts) | {MANIFEST: "0" * 64})
    with pytest.raises(WeightsError, match="lacks dist/models/inception_v3/more"):
        read_package(archive, known=hashes(texts) | {"more": "0" * 64})


def test_archives_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = bundled()
    for name, content in (
        ("text.tgz", b"<html>not found"),
        ("empty.tgz", b""),
        ("no-tar.tgz", gzip.compress(b"x" * 3000)),
        ("cut.tgz", packed(tmp_path / "whole.tgz", texts).read_bytes()[:-40]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=r"is no archive of npm|lacks"):
            read_package(tmp_path / name, known=hashes(texts))
    with pytest.raises(WeightsError, match="is no archive"):
        read_package(tmp_path / "nowhere.tgz")
    with pytest.raises(WeightsError, match="is no file of its size"):
        read_package(packed(tmp_path / "links.tgz", texts, kind=tarfile.SYMTYPE), known=hashes(texts))
    bomb = tmp_path / "bomb.tgz"
    bomb.write_bytes(gzip.compress(bytes(200_000)))
    monkeypatch.setattr(nsfw_inception, "MOST_UNPACKED", 100_000)
    with pytest.raises(WeightsError, match="unpacks to more than"):
        read_package(bomb)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({MANIFEST: "console.log(1)"}, "no manifest of weights"),
        (bundled() | {"group1-shard2of2.min.js": "alert(1)"}, "not in the known form"),
        (bundled(bytes_of=(b"\x00\x01",)), "the shards end within"),
        (bundled(bytes_of=(b"\x00\x01\x02\x03\x04\x05",)), "the shards hold 6 weights, its manifest 5"),
        (bundled(entries='{name:"a/b",shape:[1],dtype:"float32"}'), "unknown entry"),
        (bundled(entries='{name:"a/b",shape:[-1],dtype:"float32",quantization:{min:0,scale:1,dtype:"uint8"}}'),
         "unknown entry"),
    ],
)  # fmt: skip
def test_other_builds_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_quantised(texts, subject="nsfwjs-4.3.0.tgz")


def test_another_network_in_the_known_form_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = bundled()
    monkeypatch.setattr(nsfw_inception, "FILES", hashes(texts))
    monkeypatch.setenv("XDYNA_WEIGHTS", str(tmp_path))
    packed(tmp_path / "nsfwjs-4.3.0.tgz", texts)
    with pytest.raises(WeightsError, match=r"381 missing .*1 not wanted \(conv2d_1/beta.*1 of another shape"):
        load_nsfw_inception()


def test_layers_of_keras_get_to_their_places() -> None:
    """As Keras counts them: the stem has 5 convolutions, the blocks 7, 7, 7, 4, 10, 10, 10, 10, 6, 9 and 9."""
    with torch.device("meta"):
        network = NsfwInception()
    shapes = keras_shapes(network)
    assert len(shapes) == 94 * 4 + 6
    rule = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(shape, generator=rule) for name, shape in shapes.items()}
    state = nsfw_inception._state(network, tensors)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        name: tuple(t.shape) for name, t in network.state_dict().items()
    }
    for name, number in (("Conv2d_4a_3x3", 5), ("Mixed_5b.branch5x5_2", 8), ("Mixed_6a.branch3x3", 27),
                         ("Mixed_6b.branch7x7_2", 33), ("Mixed_7a.branch7x7x3_4", 76),
                         ("Mixed_7b.branch3x3_2b", 80), ("Mixed_7c.branch_pool", 94)):  # fmt: skip
        kernel = tensors[f"conv2d_{number}/kernel"]
        assert torch.equal(state[f"{name}.conv.weight"][3, 2], kernel[:, :, 2, 3]), name
        assert torch.equal(
            state[f"{name}.bn.running_mean"], tensors[f"batch_normalization_{number}/moving_mean"]
        )
    assert torch.equal(state["fc.4.weight"][4], tensors["dense_3/kernel"][:, 4])


def test_pictures_are_prepared_as_nsfwjs_does() -> None:
    frames = np.zeros((1, 40, 60, 3), np.uint8)
    frames[0, -1, -1] = (255, 128, 0)
    found = pictures_for_nsfwjs(frames)
    assert found.shape == (1, 3, 299, 299)
    assert found[0, :, -1, -1].tolist() == pytest.approx([1, 128 / 255, 0]), "corners stay corners"


@pytest.mark.weights
def test_the_published_network_knows_a_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = network_file("nsfw_inception")
    network = load_nsfw_inception(file)
    assert list(read_package(file)) == list(FILES)
    drawn = person()
    with torch.inference_mode():
        scores = network.scores(pictures_for_nsfwjs(drawn[None]))[0]
    assert CLASSES[int(scores.argmax())] == "Drawing"
    assert float(scores.max()) == pytest.approx(0.632, abs=0.005)
    near, far = (
        nsfw_inception_features(np.stack([drawn, other]), network)
        for other in (np.roll(drawn, 3, axis=1), noise(*drawn.shape[:2]))
    )
    assert near.shape == (2, 2048)
    assert np.corrcoef(near)[0, 1] > np.corrcoef(far)[0, 1]
    for number in range(2):
        clip = moving(number, frames=4, size=(64, 64))
        write_frames(tmp_path / "truth" / str(number), clip)
        write_frames(tmp_path / "same" / str(number), clip)
        write_frames(tmp_path / "grey" / str(number), clip // 4 + 96)
    monkeypatch.setenv("XDYNA_WEIGHTS", str(file.parent))
    same, grey = (
        evaluate(
            tmp_path / pred, tmp_path / f"{pred}-out", truth=tmp_path / "truth",
            options=EvaluateOptions(suite="set", workers=1, device="cpu"),
        ).metrics["fid[nsfw-inception]"]
        for pred in ("same", "grey")
    )  # fmt: skip
    assert (same["samples"], same["dimensions"], same["covariance"]) == ([8, 8], 2048, "unbiased")
    assert "not comparable with FID" in same["protocol"]
    assert same["value"] == pytest.approx(0, abs=1e-6)
    assert grey["value"] > 0.01
