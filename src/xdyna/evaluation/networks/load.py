"""Networks of the set metrics with the parameters of their published files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from xdyna.errors import WeightsError
from xdyna.evaluation.networks.i3d import I3D
from xdyna.evaluation.networks.inception import InceptionV3
from xdyna.evaluation.networks.resnet3d import ResNet3D50
from xdyna.evaluation.networks.videomae import VideoMAE, depth_of
from xdyna.evaluation.published import adopt, fill_network, fitted, read_published, shapes_of
from xdyna.evaluation.registry import find_weights, network_named

N = TypeVar("N", bound=nn.Module)


def load_inception(path: str | Path | None = None, *, device: str = "cpu") -> InceptionV3:
    """FID's InceptionV3.

    Args:
        path: its file; None for the one that the registry finds.
        device: where it goes.

    Raises:
        MissingWeights: no path, and the file is not here.
        WeightsError: the file does not fit.
    """
    return _filled(InceptionV3, "fid_inception_v3", path, device)


def load_i3d(
    path: str | Path | None = None, *, eps: float = 1e-3, pool_frames: int = 1, device: str = "cpu"
) -> I3D:
    """I3D with 400 Kinetics classes; `eps` and `pool_frames` as those of `I3D`, the rest as `load_inception`."""
    return _filled(lambda: I3D(400, eps=eps, pool_frames=pool_frames), "i3d_kinetics400", path, device)


def load_dti3d(path: str | Path | None = None, *, length: int = 16, device: str = "cpu") -> I3D:
    """The network of dynamic textures for clips of 16 or 32 frames; the rest as `load_inception`.

    Raises:
        WeightsError: another length, besides what `load_inception` raises.
    """
    if length not in (16, 32):
        raise WeightsError("DTFVD", f"there is no network for {length} frames", "Published are 16 and 32")
    return _filled(lambda: I3D(18, eps=1e-5, pool_frames=length // 8), f"dti3d_{length}", path, device)


def load_resnet3d(path: str | Path | None = None, *, device: str = "cpu") -> ResNet3D50:
    """FID-VID's ResNet3D-50; as `load_inception`."""
    return _filled(ResNet3D50, "resnet3d50_kinetics", path, device)


def load_videomae(path: str | Path | None = None, *, depth: int | None = 40, device: str = "cpu") -> VideoMAE:
    """cd-FVD's VideoMAE-v2.

    Args:
        path, device: as for `load_inception`.
        depth: blocks that the file must hold: 40 in the published one; None for what it holds (tests).

    Raises:
        MissingWeights: no path, and the file is not here.
        WeightsError: the file does not fit.
    """
    path = find_weights("videomae_vitg") if path is None else Path(path)
    layout = network_named("videomae_vitg").layout
    tensors = read_published(path, layout=layout)
    if depth is None:
        depth = depth_of(tensors)
    with torch.device("meta"):
        network = VideoMAE(depth)
    state = fitted(path, tensors, shapes_of(network), layout=layout)
    del tensors
    adopt(network, state, device=device)
    return network


def _filled(build: Callable[[], N], name: str, path: str | Path | None, device: str) -> N:
    path = find_weights(name) if path is None else Path(path)
    with torch.device("meta"):  # every parameter comes from the file, so none is made before
        network = build()
    fill_network(network, path, layout=network_named(name).layout, device=device)
    return network
