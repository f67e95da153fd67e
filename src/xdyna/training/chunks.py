"""Where training clips come from: chunks by number, of the synthetic world or of prepared videos.

A chunk's content follows from its number alone, which is what makes a resumed run equal to one that never stopped.
"""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from xdyna.data.prepared.dataset import ClipDataset, SampleOptions
from xdyna.data.prepared.manifest import read_manifest
from xdyna.data.prepared.order import MixedOrder
from xdyna.data.reenact import folder_gallery, load_source
from xdyna.data.synthetic import HELD_OUT_SEED, make_batch
from xdyna.training.config import TrainConfig

Chunk = dict[str, torch.Tensor]

CHUNKS = 50_000
"""Chunks of one process; the seeds of the next one begin after them."""
WORLD = 4
"""Version of the synthetic world: cached pools of another version are rendered again."""


class SyntheticChunks(Dataset[Chunk]):
    """Chunks of the synthetic world.

    Args:
        config: of the run.
        frames: how many beside the reference.
        scatter: at random moments, or consecutive.
        humans_only: no scenes without a person.
        rank: which process this is; each has chunks of its own.
        device: where to render.
    """

    def __init__(
        self,
        config: TrainConfig,
        frames: int,
        *,
        scatter: bool,
        humans_only: bool = False,
        rank: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.data, self.frames, self.scatter = config.data, frames, scatter
        self.human_share = 1.0 if humans_only else config.data.human_share
        self.landmarks = config.model.face == "landmarks"
        self.device = device or torch.device("cpu")
        # Seeds of one run: a range of ten million of its own, well below the held-out ones.
        self.base = 10_000_000 * (1 + config.seed % 70) + (5_000_000 if scatter else 0) + CHUNKS * rank
        assert self.base + CHUNKS <= HELD_OUT_SEED

    def __len__(self) -> int:
        return CHUNKS

    def on(self, device: torch.device) -> SyntheticChunks:
        """The same chunks, rendered elsewhere."""
        other = object.__new__(SyntheticChunks)
        other.__dict__ = {**self.__dict__, "device": device}
        return other

    def fingerprint(self) -> str:
        """All that a chunk depends on but its number."""
        parts = (WORLD, self.data, self.frames, self.scatter, self.human_share, self.landmarks, self.base)
        return repr(parts)

    @torch.no_grad()
    def __getitem__(self, chunk: int) -> Chunk:
        """What a pool keeps of the chunk's clips, see `Pool`."""
        data = self.data
        batch = make_batch(
            self.base + chunk,
            data.chunk,
            frames=self.frames,
            size=data.size,
            device=self.device,
            human_share=self.human_share,
            still_share=data.still_share,
            moving_camera_share=data.moving_camera_share,
            company_share=data.company_share,
            frozen_share=data.frozen_share,
            modelled_share=data.modelled_share,
            captured_share=data.captured_share,
            scatter=self.scatter,
            landmarks=self.landmarks,
        )
        made = {
            "frames": _bytes(batch.frames),
            "conditions": _bytes(torch.cat([batch.pose, batch.face_local, batch.face_global], 2)),
            "mask": _bytes(batch.mask),
            "body": batch.body.float(),
            "hands": torch.cat([batch.left_hand, batch.right_hand], 2).float(),
            "head": batch.head.float(),
            "expression": batch.expression.float(),
            "human": batch.human,
            "energy": torch.full_like(batch.motion_energy, torch.nan)
            if self.scatter
            else batch.motion_energy,
        }
        # only what draws them anew needs them
        return {**made, "face": batch.face.float()} if self.landmarks else made


class PreparedChunks(Dataset[Chunk]):
    """Chunks of manifests' clips, human and scene mixed.

    Args:
        config: of the run.
        frames: how many beside the reference.
        scatter: at random moments, or evenly spaced.
        humans_only: no scenes.
        rank, count: which of how many processes this is.

    Raises:
        InputError: manifests that cannot be read, or have no clip long enough.
        OptionError: a share of scenes where there are none.
    """

    def __init__(
        self,
        config: TrainConfig,
        frames: int,
        *,
        scatter: bool,
        humans_only: bool = False,
        rank: int = 0,
        count: int = 1,
    ) -> None:
        data = config.data
        rows = [row for path in data.manifests for row in read_manifest(path)]
        options = SampleOptions(
            size=data.size,
            frames=frames,
            stride=data.stride,
            scatter=scatter,
            zoom=data.zoom,
            close_up=data.close_up,
            close_up_zoom=data.close_up_zoom,
            scene_reference=data.scene_reference,
            landmarks=config.model.face == "landmarks",
        )
        gallery = folder_gallery(data.face_gallery) if data.face_gallery else None
        source = load_source(data.faces, gallery=gallery) if config.model.face == "s-face" else None
        self.clips = ClipDataset(rows, options, seed=config.seed, face_source=source)
        scenes = 0.0 if humans_only else 1 - data.human_share
        self.order = MixedOrder(self.clips.rows, scene_share=scenes, seed=config.seed)
        self.size, self.rank, self.count = data.chunk, rank, count
        self._about = repr(
            (data, frames, scatter, humans_only, config.seed, rank, count, [r.hash for r in rows])
        )

    def __len__(self) -> int:
        return CHUNKS

    def on(self, device: torch.device) -> PreparedChunks:
        """These chunks: videos are read on the CPU, whatever the device."""
        return self

    def fingerprint(self) -> str:
        """All that a chunk depends on but its number."""
        return self._about

    def __getitem__(self, chunk: int) -> Chunk:
        """What a pool keeps of the chunk's clips, see `Pool`."""
        places = range(chunk * self.size, (chunk + 1) * self.size)
        samples = [self.clips[self.order[place * self.count + self.rank]] for place in places]
        names = ("frames", "conditions", "mask", "body", "hands", "head", "expression", "human")
        return {name: torch.stack([sample[name] for sample in samples]) for name in names}


Chunks = SyntheticChunks | PreparedChunks


def make_chunks(
    config: TrainConfig, frames: int, *, scatter: bool, humans_only: bool, rank: int, count: int
) -> Chunks:
    """The chunks that the config asks for."""
    if config.data.source == "prepared":
        return PreparedChunks(
            config, frames, scatter=scatter, humans_only=humans_only, rank=rank, count=count
        )
    return SyntheticChunks(config, frames, scatter=scatter, humans_only=humans_only, rank=rank)


def _bytes(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as uint8."""
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
