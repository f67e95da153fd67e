"""InceptionV3 of npm's nsfwjs 4.3.0, for `fid[nsfw-inception]`: the one Inception that lies in a package.

It is Keras' InceptionV3, trained on to tell drawings from photographs and decent pictures from others, with weights
of 8 bits. Its pooled features are an Inception's, but not those that FID is defined with: never comparable with `fid`.

The package holds the weights as base64 text within JavaScript. No line of that is run: the texts are cut out of files
whose SHA-256 is known, by patterns that fit those files and nothing else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import math
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xdyna.errors import WeightsError
from xdyna.evaluation.networks.inception import FEATURES, BlockE, InceptionV3, Unit
from xdyna.evaluation.published import Layout, adopt, fitted
from xdyna.evaluation.registry import find_weights

CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
"""What the classifier tells apart, in its order."""
PLACE = "dist/models/inception_v3"
"""The folder of the network within the package."""
MANIFEST = "model.min.js"
FILES: dict[str, str] = {
    MANIFEST: "8c2b793b9d277840fc757725bf3b135c96d5a54ec020e2b4ab569fc3df6b3848",
    "group1-shard1of6.min.js": "e9316ac20ff634f990e483062050afe9a4826885c3a212d676ce2cfda93a4884",
    "group1-shard2of6.min.js": "467b33d62b4c470edf8acd3da554e331f2d49f3f93ddd718f944f595c516cd82",
    "group1-shard3of6.min.js": "075300e057ca7e9fd2e282afbc3a6596a0404288c94bf781e9b20658cbeee664",
    "group1-shard4of6.min.js": "b51ee46e062e752e81c28761a56369432671bfb3d59f4f062f5bd4dd58ff5303",
    "group1-shard5of6.min.js": "d4149969b3c61e0d4dde1d4f555f5b00f4fc87f6bab1a4cd4967b24f62725de6",
    "group1-shard6of6.min.js": "b684762a7d7c39b80183d260bdab6f072321349300f9f2ff144a085a382acfc4",
}
"""SHA-256 of every file that is read."""
MOST_PACKED, MOST_UNPACKED, MOST_FILE = 64 << 20, 128 << 20, 8 << 20
"""Bytes: larger archives, contents and files are not read. The published ones have 25, 42 and 6 million."""

_REMEDY = "Get it again: npm pack nsfwjs@4.3.0"
_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:e-?\d+)?"
_TAIL = r"\},\{\}\]\},\{\},\[1\]\)\(1\)\}\);\s*\Z"
_WEIGHT = re.compile(
    rf'\{{name:"([a-z0-9_]+/[a-z_]+)",shape:\[(\d+(?:,\d+)*)\],dtype:"float32",'
    rf'quantization:\{{min:({_NUMBER}),scale:({_NUMBER}),dtype:"uint8"\}}\}}(,|\Z)'
)
_GROUP = re.compile(rf',weightsManifest:\[\{{paths:\[("[^\]]*")\],weights:\[(.*)\]\}}\]\}}{_TAIL}', re.DOTALL)
_TEXT = re.compile(rf'\{{1:\[function\(\w+,\w+,\w+\)\{{\w+\.exports="([A-Za-z0-9+/]+={{0,2}})"{_TAIL}')


class NsfwInception(InceptionV3):
    """Keras' InceptionV3 under our names: its very last block pools with a mean, and its head has five classes.

    Otherwise as FID's: batch norms add 1e-3 to variances (they have no scale), average pools leave padding out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Mixed_7c = BlockE(2048, "average")
        self.fc = nn.Sequential(
            nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, len(CLASSES))
        )

    def scores(self, pictures: Tensor) -> Tensor:
        """(b 3 299 299) in [0, 1], RGB -> (b 5) probabilities of `CLASSES`."""
        return torch.softmax(self.fc(self(pictures)), dim=-1)


def load_nsfw_inception(path: str | Path | None = None, *, device: str = "cpu") -> NsfwInception:
    """The network with its published weights.

    Args:
        path: nsfwjs-4.3.0.tgz, or model.min.js beside its shards in the unpacked package; None for what the
            registry finds.
        device: where it goes.

    Raises:
        MissingWeights: no path, and the file is not here.
        WeightsError: another file than the published one, or it does not fit.
    """
    path = find_weights("nsfw_inception") if path is None else Path(path)
    tensors = read_quantised(read_package(path), subject=path)
    with torch.device("meta"):
        network = NsfwInception()
    state = _state(network, fitted(path, tensors, keras_shapes(network), layout=_LAYOUT))
    adopt(network, state, device=device)
    return network


_LAYOUT = Layout(wrappers=(), prefixes=("",), optional=())


def read_package(path: Path, *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The texts of the network's files, from the package as npm packs it or out of its unpacked folder.

    Args:
        path: the .tgz, or the folder's model.min.js.
        known: SHA-256 of every file wanted; None for the published ones (`FILES`).

    Returns:
        texts by file name, in the order of `known`.

    Raises:
        WeightsError: no such file, one that is missing in it, too large, or another one than the published.
    """
    known = FILES if known is None else known
    found = _unpacked(path, known) if path.name.endswith(".tgz") else _beside(path, known)
    texts: dict[str, str] = {}
    for name, sha256 in known.items():
        content = found.get(name)
        if content is None:
            raise WeightsError(path, f"lacks {PLACE}/{name}", _REMEDY)
        got = hashlib.sha256(content).hexdigest()
        if got != sha256:
            raise WeightsError(
                path, f"{name} has the sha256 {got[:12]}..., the published one {sha256[:12]}...", _REMEDY
            )
        texts[name] = content.decode("ascii", errors="replace")
    return texts


def _unpacked(path: Path, known: Mapping[str, str]) -> dict[str, bytes]:
    """The wanted members of the archive; it is unpacked in memory, to a limit, and nothing is written."""
    try:
        if path.stat().st_size > MOST_PACKED:
            raise WeightsError(path, f"is larger than {MOST_PACKED >> 20} MiB", _REMEDY)
        with gzip.open(path) as packed:
            content = packed.read(MOST_UNPACKED + 1)
        if len(content) > MOST_UNPACKED:
            raise WeightsError(path, f"unpacks to more than {MOST_UNPACKED >> 20} MiB", _REMEDY)
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                if folder != f"package/{PLACE}" or name not in known:
                    continue
                file = archive.extractfile(member) if member.isreg() else None
                if file is None or member.size > MOST_FILE or name in found:
                    raise WeightsError(path, f"{member.name} is no file of its size, or there twice", _REMEDY)
                found[name] = file.read()
        return found
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise WeightsError(path, f"is no archive of npm ({error})", _REMEDY) from error


def _beside(path: Path, known: Mapping[str, str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in known:
        file = path.with_name(name)
        try:
            if not file.is_file():
                continue
            if file.stat().st_size > MOST_FILE:
                raise WeightsError(file, f"is larger than {MOST_FILE >> 20} MiB", _REMEDY)
            found[name] = file.read_bytes()
        except OSError as error:
            raise WeightsError(file, f"cannot be read ({error.strerror})", _REMEDY) from error
    return found


def read_quantised(texts: Mapping[str, str], *, subject: str | Path) -> dict[str, Tensor]:
    """The tensors of a TensorFlow.js model that nsfwjs bundles, dequantised as TensorFlow.js does.

    Args:
        texts: model.min.js and every shard that its manifest names, by file name.
        subject: for messages.

    Returns:
        float32 tensors under their names and in their axes of Keras: value * scale + min of each byte.

    Raises:
        WeightsError: texts of another build.
    """
    group = _GROUP.search(texts.get(MANIFEST, ""))
    if group is None:
        raise WeightsError(subject, f"{MANIFEST} holds no manifest of weights in the known form", _REMEDY)
    content = b"".join(
        _shard(texts, name, subject) for name in (quoted.strip('"') for quoted in group[1].split(","))
    )
    tensors: dict[str, Tensor] = {}
    place = 0
    for name, shape, least, scale in _weights(group[2], subject):
        count = math.prod(shape)
        if name in tensors or place + count > len(content):
            raise WeightsError(subject, f"{name} is listed twice, or the shards end within it", _REMEDY)
        values = np.frombuffer(content, np.uint8, count, place).astype(np.float64) * scale + least
        tensors[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
        place += count
    if place != len(content):
        raise WeightsError(subject, f"the shards hold {len(content)} weights, its manifest {place}", _REMEDY)
    return tensors


def _weights(text: str, subject: str | Path) -> Iterator[tuple[str, tuple[int, ...], float, float]]:
    """Name, shape, least value and scale of every entry of the manifest; the entries must fill it."""
    place = 0
    while place < len(text):
        entry = _WEIGHT.match(text, place)
        if entry is None:
            raise WeightsError(
                subject, f"{MANIFEST} has an unknown entry: {text[place : place + 60]!r}", _REMEDY
            )
        yield entry[1], tuple(map(int, entry[2].split(","))), float(entry[3]), float(entry[4])
        place = entry.end()


def _shard(texts: Mapping[str, str], name: str, subject: str | Path) -> bytes:
    found = _TEXT.search(texts.get(f"{name}.min.js", ""))
    if found is None:
        raise WeightsError(subject, f"{name}.min.js is missing, or not in the known form", _REMEDY)
    try:
        return base64.b64decode(found[1], validate=True)
    except ValueError as error:
        raise WeightsError(subject, f"{name}.min.js holds no base64 ({error})", _REMEDY) from error


def keras_shapes(network: NsfwInception) -> dict[str, tuple[int, ...]]:
    """Keras' names and shapes of the parameters; layers are numbered in the order in which they are made."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, unit in enumerate(_units(network), 1):
        outputs, inputs, height, width = unit.conv.weight.shape
        shapes[f"conv2d_{number}/kernel"] = (height, width, inputs, outputs)
        for name in _NORMS:
            shapes[f"batch_normalization_{number}/{name}"] = (outputs,)
    for number, dense in enumerate(_dense(network), 1):
        outputs, inputs = dense.weight.shape
        shapes[f"dense_{number}/kernel"], shapes[f"dense_{number}/bias"] = (inputs, outputs), (outputs,)
    return shapes


_NORMS = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
"""Keras' names of a batch norm's parameters -> torch's."""


def _state(network: NsfwInception, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keras' tensors under our names, in torch's axes."""
    places = {id(module): name for name, module in network.named_modules()}
    state: dict[str, Tensor] = {}
    for number, unit in enumerate(_units(network), 1):
        name = places[id(unit)]
        state[f"{name}.conv.weight"] = tensors[f"conv2d_{number}/kernel"].permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bn.weight"] = torch.ones(unit.bn.num_features)
        state[f"{name}.bn.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
        for theirs, ours in _NORMS.items():
            state[f"{name}.bn.{ours}"] = tensors[f"batch_normalization_{number}/{theirs}"]
    for number, dense in enumerate(_dense(network), 1):
        name = places[id(dense)]
        state[f"{name}.weight"] = tensors[f"dense_{number}/kernel"].T.contiguous()
        state[f"{name}.bias"] = tensors[f"dense_{number}/bias"]
    return state


def _units(network: NsfwInception) -> list[Unit]:
    # our modules are made in the order of Keras' layers
    return [module for module in network.modules() if isinstance(module, Unit)]


def _dense(network: NsfwInception) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]
