"""Networks that are published only as compiled TorchScript files: clean-fid's Inception and StyleGAN-V's I3D.

Such a file is a program, not a table of numbers: torch interprets whatever it holds, file access included. So it
runs only where the caller says that it trusts the file, and only its own two published interfaces are called.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdyna.errors import WeightsError
from xdyna.evaluation.registry import file_hash, find_weights


class CleanInception(nn.Module):
    """clean-fid's own network: the layers of the compiled file, behind its resizing by Pillow."""

    def __init__(self, compiled: Any) -> None:
        super().__init__()
        self.compiled = compiled

    def forward(self, pictures: Tensor) -> Tensor:
        """(b 3 299 299) in [-1, 1], that is (x - 128) / 128 -> (b 2048)."""
        return self.compiled.layers.forward(pictures).flatten(1)


class StyleGanVI3D(nn.Module):
    """StyleGAN-V's I3D, which scales and resizes by itself."""

    def __init__(self, compiled: Any) -> None:
        super().__init__()
        self.compiled = compiled

    def forward(self, clips: Tensor) -> Tensor:
        """(b 3 t h w) in [0, 255] -> (b 400)."""
        return self.compiled(clips, rescale=True, resize=True, return_features=True)


def load_clean_inception(
    path: str | Path | None = None, *, trusted: bool = False, device: str = "cpu"
) -> CleanInception:
    """clean-fid's compiled Inception.

    Args:
        path: its file; None for the one that the registry finds.
        trusted: the file is the published one and may run.
        device: where it goes.

    Raises:
        MissingWeights: no path, and the file is not here.
        WeightsError: not trusted, or no compiled network with the published interface.
    """
    compiled, path = _compiled("clean_inception", path, trusted, device)
    if not hasattr(compiled, "layers"):
        raise WeightsError(path, "a compiled network without `layers`, so not clean-fid's Inception")
    return CleanInception(compiled).eval()


def load_styleganv_i3d(
    path: str | Path | None = None, *, trusted: bool = False, device: str = "cpu"
) -> StyleGanVI3D:
    """StyleGAN-V's compiled I3D; arguments and errors as `load_clean_inception`."""
    compiled, path = _compiled("styleganv_i3d", path, trusted, device)
    arguments = {argument.name for argument in compiled.forward.schema.arguments}
    missing = {"rescale", "resize", "return_features"} - arguments
    if missing:
        raise WeightsError(
            path, f"a compiled network without {', '.join(sorted(missing))}, so not StyleGAN-V's I3D"
        )
    return StyleGanVI3D(compiled).eval()


def _compiled(name: str, path: str | Path | None, trusted: bool, device: str) -> tuple[Any, Path]:
    path = find_weights(name) if path is None else Path(path)
    if not path.is_file():
        raise WeightsError(path, "there is no such file")
    if not trusted:
        raise WeightsError(
            path,
            f"a compiled file (sha256 {file_hash(path)}), which is a program and was not run",
            "If you trust where it is from, say so with trusted=True",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every load
            return torch.jit.load(str(path), map_location=device), path
    except Exception as error:  # the C++ reader raises several kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise WeightsError(path, f"no compiled network ({reason})", "Download it again") from error
