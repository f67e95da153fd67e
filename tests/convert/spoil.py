"""Reading and spoiling the files of a fake tree that is a copy of hard links: files are replaced, not written into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tests.convert import fake_tree
from tests.convert.fake_tree import IP, SD

State = dict[str, torch.Tensor]
BASE = f"{SD}/unet/animatediff_v15_v1_ipplus.pth"
VAE = f"{SD}/vae/diffusion_pytorch_model.bin"
ADAPTER = f"{IP}/ip-adapter-plus_sd15.bin"


def state_of(path: Path) -> State:
    content = torch.load(path, weights_only=True)
    content = content.get("state_dict", content)
    return {name.replace("module.", ""): tensor for name, tensor in content.items()}


def replace(path: Path, content: object) -> None:
    path.unlink(missing_ok=True)
    fake_tree.save(path, content)


def edit(path: Path, change: Callable[[State], State]) -> None:
    replace(path, change(state_of(path)))


def without(*marks: str) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in state.items() if not any(mark in n for mark in marks)}


def only(*marks: str) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in state.items() if any(mark in n for mark in marks)}
