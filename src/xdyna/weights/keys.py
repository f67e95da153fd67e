"""Comparing what a network needs with what a file holds, and guessing why they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from xdyna.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]
"""Parameter names and their shapes."""

_SHOWN = 4
_CONTROL_INPUT = "controlnet_cond_embedding.conv_in.weight"
_TEXT_KEY = "attn2.to_k.weight"


def check_keys(subject: str | Path, expected: Shapes, found: Shapes, *, component: str = "") -> None:
    """Insist that a file holds exactly what a network needs.

    Args:
        subject: the file, for the message.
        expected: the network's names and shapes.
        found: the file's.
        component: the component's name, which makes the guess at the cause better.

    Raises:
        WeightsError: with the first missing, extra and wrongly shaped names and the likely cause.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {_shape(found[name])}, not {_shape(expected[name])}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    if not (missing or extra or wrong):
        return
    parts = [
        f"{len(names)} {label} ({first_of(names)})"
        for label, names in (("missing", missing), ("not wanted", extra), ("of another shape", wrong))
        if names
    ]
    raise WeightsError(
        subject,
        "its parameters do not fit the network: " + "; ".join(parts),
        likely_cause(component, expected, found) or "Compare its config.json with the one it was made with",
    )


def first_of(names: Iterable[str]) -> str:
    """The first names of a list for a message, and that there are more."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def likely_cause(component: str, expected: Shapes, found: Shapes) -> str:
    """Guess what a file really is that does not fit.

    Args:
        component: what it should have been: a name of `xdyna.weights.COMPONENTS`, "base" for the file that
            X-Dyna's UNet is completed from, or "" for unknown.
        expected: the network's names and shapes.
        found: the file's names and shapes.

    Returns:
        one sentence, or "" when nothing tells.
    """
    if not found:
        return "The file holds no tensors at all: it may be cut short or be a placeholder (git lfs pull)"
    if any(
        name.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model."))
        for name in found
    ):
        return "This is a single-file Stable Diffusion checkpoint; give the diffusers folder of it"
    if any("lora" in name.lower() for name in found):
        return "This is a LoRA file, not a whole network"
    if any(name.startswith("add_embedding.") for name in found):
        return "This is an SDXL checkpoint; X-Dyna is built on Stable Diffusion 1.5"
    widths = {shape[1] for name, shape in found.items() if name.endswith(_TEXT_KEY) and len(shape) == 2}
    wanted = {shape[1] for name, shape in expected.items() if name.endswith(_TEXT_KEY) and len(shape) == 2}
    if widths and wanted and not widths & wanted:
        families = {2048: "an SDXL", 1024: "a Stable Diffusion 2"}
        family = families.get(min(widths), f"a {min(widths)}-wide")
        return f"This is {family} checkpoint (text width {min(widths)}, here {min(wanted)})"
    return (
        _likely_control(expected, found) or _likely_unet(component, found) or _likely_clip(component, found)
    )


def _likely_control(expected: Shapes, found: Shapes) -> str:
    if _CONTROL_INPUT in found and _CONTROL_INPUT not in expected:
        return "This is a ControlNet, not the network asked for"
    if _CONTROL_INPUT in expected and _CONTROL_INPUT not in found:
        return "This is not a ControlNet" + (" but a UNet" if "conv_norm_out.weight" in found else "")
    if _CONTROL_INPUT in expected and _CONTROL_INPUT in found:
        got, wanted = found[_CONTROL_INPUT][1], expected[_CONTROL_INPUT][1]
        if (got, wanted) == (6, 3):
            return "This is the S-Face ControlNet (6 picture channels) given as the pose one (3)"
        if (got, wanted) == (3, 6):
            return "This is a pose ControlNet (3 picture channels) given as the S-Face one (6)"
    return ""


def _likely_unet(component: str, found: Shapes) -> str:
    if component not in ("unet", "base"):
        if any(".motion_modules." in name for name in found):
            return "This is a UNet with motion modules, not the network asked for"
        return ""
    has_motion = any("motion_modules." in name for name in found)
    has_adapter = any(".to_q_ff." in name for name in found)
    has_attention = any(".attn1." in name for name in found)
    if has_motion and not has_attention:
        return "This is a file of AnimateDiff motion modules only"
    if has_attention and not has_motion and not has_adapter:
        return "This is a UNet without motion modules: plain Stable Diffusion 1.5, not X-Dyna's"
    if component == "unet" and has_motion and not has_adapter:
        return "This is the base file (animatediff_v15_v1_ipplus.pth), not X-Dyna's own UNet"
    return ""


def _likely_clip(component: str, found: Shapes) -> str:
    has_text = any("text_model." in name or "token_embedding" in name for name in found)
    has_vision = any("vision_model." in name for name in found)
    if has_text and has_vision and component in ("text_encoder", "image_encoder"):
        return "This is a whole CLIP model; give the folder of the encoder alone"
    if component == "text_encoder" and has_vision:
        return "This is an image encoder given as the text encoder"
    if component == "image_encoder" and has_text:
        return "This is a text encoder given as the image encoder"
    if component == "image_projector" and any(name.startswith("proj.") for name in found):
        return "This is plain IP-Adapter; X-Dyna needs ip-adapter-plus_sd15"
    if component == "vae" and any(name.startswith(("encoder.layers", "decoder.layers")) for name in found):
        return "This is AutoencoderTiny; an AutoencoderKL is needed"
    return ""


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "a number"
