"""How PyTorch takes memory from a GPU: in segments that grow, so that little of it lies between what is in use."""

from __future__ import annotations

import os
import sys

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""The environment variables that configure PyTorch's allocator."""
EXPANDABLE = "expandable_segments:True"


def expand_segments() -> None:
    """Ask PyTorch for expandable segments on GPUs, by the environment, which later processes inherit.

    To be called before torch is imported. Nothing happens where the user has configured the allocator by any of its
    variables, nor on systems other than Linux, which have no such segments; a CPU does not notice.

    Both names are set, since no one of them will do: PyTorch up to 2.8 reads PYTORCH_CUDA_ALLOC_CONF only; 2.9 to 2.11
    warn that it is deprecated unless PYTORCH_ALLOC_CONF is there as well, but read expandable_segments for CUDA from
    nowhere else (pytorch issue 183387); later ones read either without a warning.
    """
    if sys.platform != "linux" or any(name in os.environ for name in NAMES):
        return
    for name in NAMES[:2]:
        os.environ[name] = EXPANDABLE
