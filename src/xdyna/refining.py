"""A run's second pass: the head made by itself, as a close-up, and put into the picture (`conditions.closeup`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdyna.condition_clips import Progress
from xdyna.conditions.closeup import NOISE
from xdyna.machine import timed
from xdyna.runs import Encoded, Prepared


def refine_face(
    pipeline: Any,
    prepared: Prepared,
    encoded: Encoded,
    *,
    progress: Progress | None,
    timings: dict[str, float],
) -> Tensor | None:
    """Latents of the head's close-up, by noise of its own; None without one."""
    near = prepared.close_up
    if near is None:
        return None

    def tell(part: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress("refining the face", done, total)

    generator = torch.Generator().manual_seed(prepared.options.seed + NOISE)
    with timed(timings, "refine"):
        # texts and picture are the whole run's; only the latent is of the close-up
        own = pipeline.encode(near, generator, tokens=encoded.tokens, negative=encoded.negative)
        if pipeline.hosts.count > 1:
            pipeline.hosts.hand_out((near, own.to("cpu"), generator.get_state()))
        return pipeline.denoise(near, own, generator, progress=tell)


def refined_frames(
    pipeline: Any,
    prepared: Prepared,
    frames: Iterator[np.ndarray],
    near: Tensor | None,
    *,
    timings: dict[str, float],
) -> Iterator[np.ndarray]:
    """Frames (h w 3) uint8 with the close-up's head put into them.

    Args:
        pipeline: the `XDynaPipeline` that decodes.
        prepared: the inputs.
        frames: not yet begun: the close-up is decoded first.
        near: the close-up's latents; None leaves the frames as they are.
        timings: where the seconds are noted.
    """
    if near is None or prepared.conditions.near is None:
        yield from frames
        return
    path, _, kept = prepared.conditions.near
    # first to the disk: both at once would need two decoders of several processes
    for picture in pipeline.decode(near, timings=timings):
        kept.append_result(picture)
    for index, frame in enumerate(frames):
        yield path.put_back(frame, kept.result([index])[0], index)
