"""Generating many clips at a time with a loaded pipeline, from conditions that are in memory already.

What `XDynaPipeline.animate` does with files, step for step: the same draws in the same order (a case alone gives the
clip that `xdyna animate --seed` would give), decoded to 8 bits as it does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xdyna.driving import canvas_size
from xdyna.models.warping import moved_reference
from xdyna.options import AnimateOptions
from xdyna.pipeline import XDynaPipeline
from xdyna.runs import Encoded, Prepared
from xdyna.sampling import (
    Controls,
    Networks,
    Shortcuts,
    Tokens,
    WindowPlan,
    decode_latents,
    denoise,
    find_still,
    make_scheduler,
    set_timesteps,
    start_latents,
)
from xdyna.synthbench.cases import Job, from_bytes, to_bytes
from xdyna.synthbench.closer import closer

DECODE_BATCH = 16
"""Frames that the autoencoder sees at a time."""


@dataclass(frozen=True)
class Strengths:
    """How strongly the parts of a model act, as of `xdyna animate`: 1 as trained, 0 leaves a part out.

    Attributes:
        pose, face: of the two ControlNets.
        reference: of the reference picture's way in (the Dynamics-Adapter, in the embedded model).
    """

    pose: float = 1.0
    face: float = 1.0
    reference: float = 1.0


AS_TRAINED = Strengths()


class Animator:
    """A model that turns jobs into clips.

    Args:
        pipeline: the loaded model.
        steps: sampling steps; None takes the model's own.
        seed: added to the cases' own seeds.
        preset, lora, cache, refine_face, hold_still: as the options of `xdyna animate`.

    Attributes:
        clips, seconds: how many clips it made, and how long that took.
    """

    def __init__(
        self,
        pipeline: XDynaPipeline,
        *,
        steps: int | None = None,
        seed: int = 0,
        preset: str | None = None,
        lora: tuple[str, ...] = (),
        cache: int = 1,
        refine_face: bool | None = None,
        hold_still: bool | None = None,
    ) -> None:
        self.pipeline, self.seed = pipeline, seed
        self.options = pipeline.fill(
            AnimateOptions(
                model=pipeline.name,
                steps=steps,
                preset=preset,
                lora=lora,
                cache=cache,
                refine_face=refine_face,
                hold_still=hold_still,
            )
        )
        assert self.options.steps is not None
        assert self.options.guidance is not None
        self.steps, self.guidance = self.options.steps, self.options.guidance
        self.clips, self.seconds = 0, 0.0

    @torch.inference_mode()
    def __call__(
        self,
        job: Job,
        *,
        energy: torch.Tensor | float | None = None,
        motion: float | None = None,
        strengths: Strengths = AS_TRAINED,
    ) -> torch.Tensor:
        """The clips of a job.

        Args:
            job: for n cases of f frames.
            energy: motion energy that the scenes are to have, one for all or (n,); None tells nothing.
            motion: what `--motion` would be; it sets energy and start noise.
            strengths: of the model's parts.

        Returns:
            (n f 3 h w) in [0, 1], of 8 bits.
        """
        begin, preset = time.perf_counter(), self.pipeline.preset
        told = preset.energy(motion) if motion is not None else energy
        video = self._made(job, told, motion, strengths, bool(self.options.hold_still))
        if self.options.refine_face and strengths.pose:
            near = closer(job, side=canvas_size((1, 1), None, preset)[0], landmarks=preset.landmarks)
            if near is not None:
                video = near.put_back(video, self._made(near.job, None, None, strengths, False))
        self.clips += len(video)
        self.seconds += time.perf_counter() - begin
        return video

    def _made(
        self,
        job: Job,
        energy: torch.Tensor | float | None,
        motion: float | None,
        strengths: Strengths,
        still: bool,
    ) -> torch.Tensor:
        """One pass of a job."""
        pipeline, options = self.pipeline, self.options
        frames = job.pose.shape[1]
        pipeline.loras.use(options.lora)
        scheduler = make_scheduler(options.scheduler, pipeline.scheduler)
        set_timesteps(scheduler, self.steps, pipeline.device)
        encoded, starts = [], []
        for picture, own in zip(to_bytes(job.reference), job.seeds, strict=True):
            # A case's noise is its own, whoever it is generated together with.
            generator = torch.Generator().manual_seed(self.seed + own)
            # Of what is prepared, the encoders read the pictures and the prompts only.
            prepared = Prepared(picture, picture, None, None, options)  # type: ignore[arg-type]
            found = pipeline.encode(prepared, generator)
            encoded.append(found)
            starts.append(
                start_latents(
                    found.reference, frames, scheduler,
                    generator=generator, shared_noise=pipeline.preset.noise_share(motion),
                )
            )  # fmt: skip
        joined = _joined(encoded)
        if isinstance(energy, torch.Tensor) and self.guidance != 1 and joined.negative is not None:
            energy = torch.cat([energy, energy])  # both guidance halves
        draws = torch.Generator().manual_seed(self.seed)
        pose, face = self._conditions(job.pose), self._conditions(job.face)
        own_pose = job.reference_pose if pipeline.preset.reference_pose else None
        moved = None
        if pipeline.unet.moves_reference and job.body is not None and job.reference_body is not None:
            points, size = job.body, (job.pose.shape[-2], job.pose.shape[-1])
            if not strengths.pose:  # who is not driven stays
                points = points * points.new_tensor([1.0, 1, 0])
            moved = moved_reference(joined.reference, job.reference_body, points, size=size)
        latents = denoise(
            Networks(pipeline.unet, pipeline.pose_controlnet, pipeline.face_controlnet),
            scheduler,
            reference=joined.reference,
            latents=torch.cat(starts),
            reference_features=joined.features,
            tokens=joined.tokens,
            negative=joined.negative,
            controls=Controls(
                pose=lambda picks: pose[:, list(picks)],
                face=lambda picks: face[:, list(picks)],
                pose_scale=strengths.pose,
                face_scale=strengths.face,
                reference_pose=own_pose,
                moved=moved,
            ),
            guidance=self.guidance,
            reference_scale=strengths.reference,
            motion=energy,
            plan=WindowPlan(options.window, options.overlap, options.loop),
            offsets=torch.randint(0, options.window, (self.steps,), generator=draws).tolist(),
            generator=draws,
            shortcuts=Shortcuts(options.cache),
        )
        if still and job.body is not None:
            return torch.stack(
                [self._held(job, row, latents, joined.reference) for row in range(len(latents))]
            )
        return torch.stack([self.decoded(clip.transpose(0, 1)) for clip in latents])

    def _held(self, job: Job, row: int, latents: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """A case's clip (f 3 h w), what stands still held still."""
        assert job.body is not None
        own = None if job.reference_body is None else job.reference_body[row]
        size = (job.pose.shape[-2], job.pose.shape[-1])
        chosen = slice(row, row + 1)
        still = find_still(latents[chosen], reference[chosen], job.body[row], own, size=size)
        frames = to_bytes(self.decoded(still.hold(latents[chosen])[0].transpose(0, 1)))
        plate = decode_latents(self.pipeline.vae, still.plate[None])[0]
        background = still.background(to_bytes(job.reference[chosen])[0], plate)
        put = [still.put_into(frame, background, index) for index, frame in enumerate(frames)]
        return from_bytes(np.stack(put)).to(latents.device)

    @torch.inference_mode()
    def rebuilt(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (n f 3 h w) in [0, 1] through the autoencoder and back."""
        vae = self.pipeline.vae
        dtype, config = next(vae.parameters()).dtype, vae.config
        latents = torch.cat(
            [
                vae.encode((part * 2 - 1).to(dtype)).latent_dist.mean.float()
                for part in frames.flatten(0, 1).split(DECODE_BATCH)
            ]
        )
        scaled = (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
        return self.decoded(scaled).unflatten(0, frames.shape[:2])

    def decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (f c h w) to pictures (f 3 8h 8w) in [0, 1], of 8 bits."""
        parts = [from_bytes(decode_latents(self.pipeline.vae, part)) for part in latents.split(DECODE_BATCH)]
        return torch.cat(parts).to(latents.device)

    def _conditions(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n f c h w), stretched by each clip's extremes for a model that was trained so, three channels at a time."""
        if not self.pipeline.preset.stretch_conditions:
            return pictures
        parts = []
        for part in pictures.split(3, 2):
            low, high = part.amin((1, 2, 3, 4), keepdim=True), part.amax((1, 2, 3, 4), keepdim=True)
            parts.append(torch.where(high > low, (part - low) / (high - low).clamp(min=1e-6), 0.0))
        return torch.cat(parts, 2)


def _joined(encoded: list[Encoded]) -> Encoded:
    """References of single cases as one of all of them."""
    features = None
    if encoded[0].features is not None:
        features = tuple(
            torch.cat(layer) for layer in zip(*(one.features or () for one in encoded), strict=True)
        )
    negative = None if encoded[0].negative is None else _tokens([one.negative for one in encoded])
    return Encoded(
        torch.cat([one.reference for one in encoded]),
        _tokens([one.tokens for one in encoded]),
        negative,
        features,
    )


def _tokens(several: list[Any]) -> Tokens:
    parts = {name: [getattr(one, name) for one in several] for name in ("text", "image")}
    return Tokens(**{name: None if part[0] is None else torch.cat(part) for name, part in parts.items()})
