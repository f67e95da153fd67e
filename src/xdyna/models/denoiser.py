"""All networks of one denoising step in one module: what training calls, shards and compiles.

Sampling calls the same networks one by one, because it shares ControlNet residuals between windows and runs a
ReferenceNet once for all steps; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, ModelMixin
from torch import Tensor, nn

from xdyna.errors import WeightsError
from xdyna.models.controls import run_controlnet
from xdyna.models.reference_encoder import ReferenceEncoder
from xdyna.models.reference_net import ReferenceNet
from xdyna.models.references import reference_way
from xdyna.models.resampler import Resampler
from xdyna.models.unet import XDynaUNet


class Denoiser(nn.Module):
    """The denoiser, its ControlNets, and the networks that show it the reference.

    Args:
        unet: its `reference` says how the reference enters.
        pose_controlnet: 3 condition channels, or None.
        face_controlnet: 6 condition channels, or None (the ablations `w_landmarks` and `wo_face`).
        reference_net: for `reference="reference-net"`, and only then.
        reference_encoder: makes image tokens from the reference's latent; for models without CLIP.
        image_projector: makes image tokens from CLIP's features; for models with CLIP.

    Raises:
        WeightsError: parts that do not belong together.
    """

    _no_split_modules = ["SpatialTransformer", "LastTransformer", "Resnet", "MotionModule"]
    """What FSDP shards as a unit."""

    def __init__(
        self,
        unet: XDynaUNet,
        *,
        pose_controlnet: ControlNetModel | None = None,
        face_controlnet: ControlNetModel | None = None,
        reference_net: ReferenceNet | None = None,
        reference_encoder: ReferenceEncoder | None = None,
        image_projector: Resampler | None = None,
    ) -> None:
        super().__init__()
        check_reference_parts(unet, reference_net=reference_net, reference_encoder=reference_encoder)
        if reference_encoder is not None and image_projector is not None:
            raise WeightsError(
                "reference_encoder",
                "stands beside an image_projector",
                "Image tokens have one source: leave one out",
            )
        self.unet = unet
        self.pose_controlnet, self.face_controlnet = pose_controlnet, face_controlnet
        self.reference_net, self.reference_encoder = reference_net, reference_encoder
        self.image_projector = image_projector

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        *,
        reference: Tensor,
        pose: Tensor | None = None,
        face: Tensor | None = None,
        reference_pose: Tensor | None = None,
        moved: Tensor | None = None,
        text: Tensor | None = None,
        image_features: Tensor | None = None,
        reference_scale: float | Tensor = 1.0,
        pose_scale: float | Tensor = 1.0,
        face_scale: float | Tensor = 1.0,
        motion: Tensor | float | None = None,
        temporal: bool = True,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict the driven frames.

        Args:
            noisy: (b c f h w) noisy latents, the reference not among them.
            timesteps: (b), or one for all.
            reference: (b c h w) clean latent of the reference.
            pose: (b f 3 H W) pose pictures in [0, 1]; None runs no pose ControlNet.
            face: (b f 6 H W) face pictures, local then global; None runs no S-Face ControlNet.
            reference_pose: (b 3 H W) the reference person's own pose picture, so that frame 0 is told as well which
                part of the body is where; None gives frame 0 no residuals, as published.
            moved: (b c f h w) the reference moved as the person moves, for a denoiser that reads it (`XDynaUNet`).
            text: (b n d) text tokens, for models that read text.
            image_features: (b n e) CLIP's features of the reference, for models with an `image_projector`.
            reference_scale: strength of the reference, or (b) one for each clip: 0 takes it away.
            pose_scale: strength of the pose ControlNet, or (b) one for each clip.
            face_scale: strength of the S-Face ControlNet, likewise.
            motion: motion energy, or (b) one for each clip, for a denoiser that can be told; see `XDynaUNet`.
            temporal: False skips the motion modules.
            residuals: what `residuals` gave for the same call, where it is known already.

        Returns:
            (b c f h w)
        """
        features = None if self.reference_net is None else self.reference_net(reference, text)
        if residuals is None:
            residuals = self.residuals(
                noisy, timesteps, reference=reference, pose=pose, face=face, reference_pose=reference_pose,
                text=text, pose_scale=pose_scale, face_scale=face_scale,
            )  # fmt: skip
        output = self.unet(
            self.unet.with_reference(noisy, reference),
            timesteps,
            self._tokens(reference, text, image_features),
            down_residuals=residuals[:-1] if residuals else None,
            mid_residual=residuals[-1] if residuals else None,
            reference_features=features,
            moved=moved,
            reference_scale=reference_scale,
            temporal=temporal,
            motion=motion,
        )
        return output[:, :, self.unet.reference_frames :]

    def residuals(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        *,
        reference: Tensor,
        pose: Tensor | None = None,
        face: Tensor | None = None,
        reference_pose: Tensor | None = None,
        text: Tensor | None = None,
        pose_scale: float | Tensor = 1.0,
        face_scale: float | Tensor = 1.0,
    ) -> list[Tensor]:
        """What both ControlNets say together; arguments as those of `forward`.

        Returns:
            (b c r+f h w) of each skip, then of the mid block; an empty list where no ControlNet runs.
        """
        sample, lead = self.unet.with_reference(noisy, reference), self.unet.reference_frames
        residuals: list[Tensor] = []
        for network, condition, scale, first in (
            (self.pose_controlnet, pose, pose_scale, reference_pose if lead else None),
            (self.face_controlnet, face, face_scale, None),
        ):
            if network is None or condition is None:
                continue
            if first is not None:
                condition = torch.cat([first[:, None].to(condition.dtype), condition], 1)
                added = run_controlnet(network, sample, timesteps, condition, text=text, scale=scale)
            else:
                added = run_controlnet(network, noisy, timesteps, condition, text=text, scale=scale)
                added = [led_in(value, lead) for value in added]
            residuals = [a + b for a, b in zip(residuals, added, strict=True)] if residuals else added
        return residuals

    def reference_parameters(self) -> dict[str, nn.Parameter]:
        """What the way of the reference adds to Stable Diffusion, by name: what stage 1 trains for it.

        Names are those of `named_parameters()`. To be asked before the module is wrapped by DDP or FSDP.
        """
        learns = reference_way(self.unet.config.reference).learns
        networks = ["reference_net.", "reference_encoder."]
        if self.unet.reads_tokens:
            networks.append("image_projector.")
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith(tuple(networks))
            or (name.startswith("unet.") and any(part in name for part in learns))
        }

    def motion_parameters(self) -> dict[str, nn.Parameter]:
        """The motion modules' parameters, by name."""
        return {name: value for name, value in self.named_parameters() if "motion_modules" in name}

    def enable_gradient_checkpointing(self, function: Callable[..., Any] | None = None) -> None:
        """Switch it on in every network that can; `function` as in diffusers."""
        for network in self.children():
            if isinstance(network, ModelMixin) and network._supports_gradient_checkpointing:
                network.enable_gradient_checkpointing(function)

    def _tokens(self, reference: Tensor, text: Tensor | None, image_features: Tensor | None) -> Tensor | None:
        """Text, then image tokens, as the denoiser reads them."""
        parts = [] if text is None else [text]
        if self.reference_encoder is not None:
            parts.append(self.reference_encoder(reference))
        elif self.image_projector is not None and image_features is not None:
            parts.append(self.image_projector(image_features))
        return torch.cat(parts, dim=1) if parts else None


def led_in(residual: Tensor, frames: int) -> Tensor:
    """(b c f h w) -> with so many frames of zeros before it.

    Padded with the channels last, as ControlNets on a GPU give them: `F.pad` turns other layouts into the plain one.
    """
    return F.pad(residual.permute(0, 2, 3, 4, 1), (0, 0) * 3 + (frames, 0)).permute(0, 4, 1, 2, 3)


def check_reference_parts(
    unet: XDynaUNet, *, reference_net: ReferenceNet | None, reference_encoder: ReferenceEncoder | None
) -> None:
    """Insist that the networks which show the reference are those that the denoiser reads.

    Raises:
        WeightsError: a ReferenceNet is missing or read by nobody, or gives another number of features or tokens.
    """
    if unet.reads_features != (reference_net is not None):
        raise WeightsError(
            "reference_net",
            "is missing: the denoiser reads what a ReferenceNet saw"
            if unet.reads_features
            else f"is there, but the denoiser is one with reference {unet.config.reference!r}, which reads none",
            "Take both from the same model",
        )
    if reference_encoder is not None and reference_encoder.config.num_queries != unet.config.image_tokens:
        raise WeightsError(
            "reference_encoder",
            f"gives {reference_encoder.config.num_queries} image tokens, the denoiser reads {unet.config.image_tokens}",
            "Take both from the same model",
        )
