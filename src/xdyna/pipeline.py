"""From a picture and a driving video to a clip: prepare, encode, denoise, decode."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from xdyna import media, weights
from xdyna.condition_clips import Progress, make_conditions
from xdyna.driving import as_picture, canvas_size, open_driving
from xdyna.encoding import encode_inputs
from xdyna.errors import OptionError
from xdyna.holding import held_frames, hold_still
from xdyna.machine import Lent, LentNetwork, choose_device, choose_dtype, memory_advice, return_memory, timed
from xdyna.model_preset import ModelPreset
from xdyna.models import check_reference_parts
from xdyna.options import AnimateOptions
from xdyna.presets import fill_options
from xdyna.refining import refine_face, refined_frames
from xdyna.runs import Animation, AnimationOutput, Encoded, Prepared
from xdyna.sampling import (
    ALONE,
    Hosts,
    Networks,
    Shortcuts,
    Tokens,
    WindowPlan,
    decode_latents,
    decode_stream,
    denoise,
    make_scheduler,
    record_networks,
    recording_pays,
    set_timesteps,
    start_latents,
)
from xdyna.weights.lora import Loras

logger = logging.getLogger(__name__)

DECODE_PIXELS = {"cpu": 256 * 256, "cuda": 2 * 896 * 512}
"""Pixels decoded in one go: bounds the memory of decoding whatever the clip's length."""


class XDynaPipeline:
    """X-Dyna, whole: the networks and the way from picture and video to frames.

    Args:
        unet: `XDynaUNet`.
        vae: `AutoencoderKL`.
        scheduler: a diffusers scheduler.
        pose_controlnet: `ControlNetModel` with 3 condition channels, or None.
        face_controlnet: `ControlNetModel` with 6 condition channels (eye and mouth patches, face box), or None.
        text_encoder, tokenizer: CLIP's, for models that read text.
        image_encoder, image_processor, image_projector: CLIP's vision tower and the Resampler, for models
            that read image tokens.
        reference_net: `ReferenceNet`, for a UNet with `reference="reference-net"`.
        reference_encoder: `ReferenceEncoder`, image tokens for a model without CLIP.
        preset: what suits the model.
        name: how messages and sidecars call the model.
        hash: SHA-256 over the model's files, when they came from files.

    `hosts` may be set: the processes that share denoising and decoding (`xdyna.ranks`), by default this one alone.

    Raises:
        WeightsError: parts that do not belong together.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        scheduler: Any,
        pose_controlnet: Any = None,
        face_controlnet: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        image_encoder: Any = None,
        image_processor: Any = None,
        image_projector: Any = None,
        reference_net: Any = None,
        reference_encoder: Any = None,
        preset: ModelPreset | None = None,
        name: str = "custom",
        hash: str | None = None,
    ) -> None:
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        self.pose_controlnet, self.face_controlnet = pose_controlnet, face_controlnet
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.image_encoder, self.image_processor = image_encoder, image_processor
        self.image_projector = image_projector
        check_reference_parts(unet, reference_net=reference_net, reference_encoder=reference_encoder)
        self.reference_net, self.reference_encoder = reference_net, reference_encoder
        self.preset, self.name, self.hash = preset or ModelPreset(), name, hash
        self.device = next(unet.parameters()).device
        self.graphs: bool | None = False
        self.loras = Loras(unet)
        self.hosts: Hosts = ALONE
        self.lent: frozenset[str] = frozenset()
        """Parts that lie in main memory and are lent to the device for their work."""

    # ------------------------------------------------------------------------------------ loading

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        offload: bool = False,
        fusing: str = "auto",
        weights_as: str = "full",
        graphs: bool | None = None,
    ) -> XDynaPipeline:
        """Load a model.

        Args:
            name: "embedded", a folder with a model_index.json, or a hub id.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            dtype: "auto", "float32", "float16" or "bfloat16" (or fp32, fp16, bf16).
            offload: keep networks in main memory, each on the device only while it runs.
            fusing: on CUDA, where Triton is installed: "half" and "auto" run networks of half precision with fused
                kernels and channels_last, "always" those of float32 too, "never" neither; they differ by rounding.
            weights_as: "full", or "int8" or "fp8": the denoiser's and the ControlNets' weights in half the memory,
                rounded (`weights.compact`).
            graphs: on CUDA, record the denoiser and the ControlNets as CUDA graphs at their first calls: quicker where
                the GPU waits for the host, for some memory; not with `offload`. None: in runs long enough for it.

        Raises:
            WeightsError: nothing there, or files that are not what they should be.
            OptionError, ResourceError: a device or number format that this machine does not have.
        """
        target = choose_device(device)
        number_format = choose_dtype(dtype, target)
        if graphs and offload:
            raise OptionError("--graphs", "recordings need networks that stay on the GPU", "Drop --offload")
        folder = weights.resolve(str(name))
        components = weights.load_placed(
            folder,
            dtype=number_format,
            device=target,
            offload=offload,
            fusing=fusing,
            weights_as=weights_as,
        )
        preset = weights.read_preset(folder)
        pipeline = cls(**components, preset=preset, name=str(name), hash=weights.folder_hash(folder))
        pipeline.device, pipeline.graphs = target, graphs if target.type == "cuda" and not offload else False
        pipeline.lent = weights.lent_parts(target, offload=offload)
        pipeline.loras = Loras(pipeline.unet, folder=folder, model_hash=pipeline.hash)
        return pipeline

    def load_lora(self, path: str | Path, *, scale: float = 1.0) -> None:
        """Let a LoRA act in every run from now on, so strongly; 0 takes it out. See `weights.lora.Loras.keep`."""
        self.loras.keep(str(path), scale=scale)

    # ------------------------------------------------------------------------------------ running

    def __call__(
        self,
        image: str | Path | np.ndarray | Any,
        driving: str | Path | np.ndarray | media.Clip,
        *,
        options: AnimateOptions | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> AnimationOutput:
        """Animate a picture.

        Args:
            image: a path, a Pillow image, or (h w 3) uint8.
            driving: a path, a clip, or (f h w 3) uint8 frames.
            options: all settings.
            progress: called with (part, done, total or None).
            settings: single options by name, over `options`: `steps=8, seed=1`. Unknown names are an error.

        Returns:
            The frames, in memory. For long clips use `animate`, which decodes while you read.
        """
        options = replace(options or AnimateOptions(model=self.name), **settings)
        animation = self.animate(image, driving, options=options, progress=progress)
        try:
            frames = np.stack(list(animation.frames))
        finally:
            animation.close()
        return AnimationOutput(frames, animation.fps, animation.prepared.options)

    def animate(
        self,
        image: str | Path | np.ndarray | Any,
        driving: str | Path | np.ndarray | media.Clip,
        *,
        options: AnimateOptions,
        progress: Progress | None = None,
        tokens: Tokens | None = None,
        negative: Tokens | None = None,
    ) -> Animation:
        """Prepare, encode and denoise now; decode as the frames are read.

        Args:
            image, driving, progress: as in calling the pipeline.
            options: all settings.
            tokens, negative: ready cross-attention tokens in place of the encoders' (then `prompt` and
                `negative_prompt` are not read).
        """
        timings: dict[str, float] = {}
        generator = torch.Generator().manual_seed(options.seed)
        with timed(timings, "prepare"):
            prepared = self.prepare(image, driving, options, progress=progress)
            return_memory()  # what detectors took
        try:
            with memory_advice(self.device):
                with timed(timings, "encode"):
                    encoded = self.encode(prepared, generator, tokens=tokens, negative=negative)
                with timed(timings, "denoise"):
                    if self.hosts.count > 1:
                        self.hosts.hand_out((prepared, encoded.to("cpu"), generator.get_state()))
                    latents = self.denoise(prepared, encoded, generator, progress=progress)
                latents, still = hold_still(prepared, latents, encoded.reference)
                near = refine_face(self, prepared, encoded, progress=progress, timings=timings)
        except BaseException:
            prepared.conditions.close()
            raise
        frames = self.decode(latents, progress=progress, timings=timings)
        frames = held_frames(self, prepared, frames, still)
        frames = refined_frames(self, prepared, frames, near, timings=timings)
        return Animation(frames, latents.shape[2], prepared.driving.fps, prepared, timings)

    def take_part(self) -> None:
        """This process's share of one run, while the first of `hosts` calls `animate` and reads its frames."""
        made = [self._share()]
        if made[0][0].close_up is not None:
            made.append(self._share())
        for _, latents in reversed(made):
            deque(self.decode(latents), maxlen=0)

    def _share(self) -> tuple[Prepared, Tensor]:
        prepared, encoded, state = self.hosts.hand_out(None)
        generator = torch.Generator().set_state(state)
        with memory_advice(self.device):
            encoded = encoded.to(self.device)
            latents = self.denoise(prepared, encoded, generator)
        return prepared, hold_still(prepared, latents, encoded.reference)[0]

    def prepare(
        self,
        image: str | Path | np.ndarray | Any,
        driving: str | Path | np.ndarray | media.Clip,
        options: AnimateOptions,
        *,
        progress: Progress | None = None,
    ) -> Prepared:
        """Read the inputs, settle the size, make the conditions. No network of ours runs here."""
        options = self.fill(options)
        picture = as_picture(image)
        canvas = canvas_size(picture.shape[:2], options.size, self.preset)
        name = str(image) if isinstance(image, (str, Path)) else "reference picture"
        reference = media.crop_to(picture, canvas)
        video = open_driving(driving, options)
        told_own = self.preset.reference_pose or self.unet.moves_reference or bool(options.hold_still)
        # who is not driven has no head to follow
        close_up = (
            canvas_size((1, 1), None, self.preset)[0] if options.refine_face and options.pose_scale else 0
        )
        conditions = make_conditions(
            video, reference, options=options, canvas=canvas, landmarks=self.preset.landmarks,
            reference_pose=told_own, picture=picture, close_up=close_up, reference_name=name, progress=progress,
        )  # fmt: skip
        return Prepared(picture, reference, video, conditions, options)

    def fill(self, options: AnimateOptions) -> AnimateOptions:
        """Every None that means "the model's own" replaced by the model's preset."""
        maximum = getattr(self.unet.config, "motion_max_length", 24)
        if options.window > maximum:
            told = f"got {options.window}, this model's motion modules see {maximum} at most"
            raise OptionError("--window", told)
        own = type(self.scheduler).__name__
        return fill_options(options, model=self.preset, scheduler=own, loras=self.loras)

    @torch.inference_mode()
    def encode(
        self,
        prepared: Prepared,
        generator: torch.Generator,
        *,
        tokens: Tokens | None = None,
        negative: Tokens | None = None,
    ) -> Encoded:
        """The reference as the networks read it: latent, tokens of both guidance halves, features."""
        return encode_inputs(self, prepared, generator, tokens=tokens, negative=negative)

    @torch.inference_mode()
    def denoise(
        self,
        prepared: Prepared,
        encoded: Encoded,
        generator: torch.Generator,
        *,
        progress: Progress | None = None,
    ) -> Tensor:
        """Start noise and denoising loop: (1 c f h w) clean latents."""
        options = prepared.options
        assert options.steps is not None
        assert options.guidance is not None
        self.loras.use(options.lora)
        scheduler = make_scheduler(options.scheduler, self.scheduler)
        set_timesteps(scheduler, options.steps, self.device)
        latents = start_latents(
            encoded.reference, prepared.conditions.frames, scheduler,
            generator=generator, shared_noise=self.preset.noise_share(options.motion),
        )  # fmt: skip

        def on_window(done: int, total: int) -> None:
            if progress is not None:
                progress("denoising", done, total)

        plan = WindowPlan(options.window, options.overlap, options.loop)
        calls = len(scheduler.timesteps) * plan.windows(latents.shape[2]) / self.hosts.count
        with self._networks(calls) as networks:
            return denoise(
                networks,
                scheduler,
                reference=encoded.reference, latents=latents, reference_features=encoded.features,
                tokens=encoded.tokens, negative=encoded.negative,
                controls=prepared.controls(self.preset, self.device, encoded.moving(self.unet)),
                guidance=options.guidance, reference_scale=options.reference_scale,
                motion=self.preset.energy(options.motion),
                plan=plan, generator=generator, hosts=self.hosts,
                shortcuts=Shortcuts(options.cache, options.guidance_interval),
                on_window=on_window,
            )  # fmt: skip

    def decode(
        self, latents: Tensor, *, progress: Progress | None = None, timings: dict[str, float] | None = None
    ) -> Iterator[np.ndarray]:
        """Pictures of (1 c f h w) latents, a few at a time: yields (h w 3) uint8, to the first of `hosts`."""
        timings = {} if timings is None else timings
        rows = rearrange(latents, "1 c f h w -> f c h w")
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        pixels = DECODE_PIXELS.get(self.device.type, DECODE_PIXELS["cpu"])
        parts = rows.split(max(1, pixels // (rows.shape[2] * rows.shape[3] * factor**2)))
        done = 0
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what recordings held is of no use to others before
        with self.loaded("vae"):
            if self.hosts.count == 1:
                stream = decode_stream(self.vae, parts)
            else:
                stream = self.hosts.in_order(parts, lambda part: decode_latents(self.vae, part))
            while True:
                with timed(timings, "decode"), memory_advice(self.device):
                    pictures = next(stream, None)
                if pictures is None:
                    return
                for picture in pictures:
                    done += 1
                    yield picture
                    if progress is not None:
                        progress("decoding", done, len(rows))

    # ------------------------------------------------------------------------------------ helpers

    def loaded(self, *names: str) -> contextlib.AbstractContextManager[Any]:
        """The named networks on the device inside the block."""
        networks = [getattr(self, name) for name in names if name in self.lent]
        return Lent(self.device).holding(network for network in networks if network is not None)

    @contextlib.contextmanager
    def _networks(self, calls: float) -> Iterator[Networks]:
        """What so many window steps run: as they are, recorded, or each fetched when it is called."""
        parts: list[Any] = [self.unet, self.pose_controlnet, self.face_controlnet]
        with Lent(self.device).holding([]) as lent:
            if "unet" in self.lent:
                parts = [*(part and LentNetwork(part, lent) for part in parts), torch.device("cpu")]
            graphs = recording_pays(calls, self.device) if self.graphs is None else self.graphs
            yield record_networks(*parts) if graphs else Networks(*parts)
