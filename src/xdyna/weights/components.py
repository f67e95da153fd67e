"""The parts that a model is made of, and the file that lists them.

A model is a folder::

    model_index.json            which parts there are, and the settings the model was made for
    unet/, vae/, ...            config.json and diffusion_pytorch_model.safetensors (or model.safetensors)
    scheduler/                  scheduler_config.json
    tokenizer/, image_processor/

The classes come from `COMPONENTS` below and from nowhere else: whatever a model_index.json or config.json
says, it can make this code import and build nothing but these. Weights are read from safetensors only.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdyna.errors import MissingPackage, WeightsError
from xdyna.model_preset import ModelPreset

INDEX_NAME = "model_index.json"
PIPELINE_CLASS = "XDynaPipeline"


@dataclass(frozen=True)
class Component:
    """One part of a model.

    Attributes:
        name: the attribute in the pipeline, the key in model_index.json and the folder.
        library: "xdyna", "diffusers" or "transformers".
        class_name: the class; "" stands for any diffusers scheduler.
        required: whether a model can do without it.
        purpose: what it is for, in a message about its absence.
        kind: "network" (config and weights), "scheduler" or "processor" (files of settings only).
    """

    name: str
    library: str
    class_name: str
    required: bool
    purpose: str
    kind: str = "network"


COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component("unet", "xdyna", "XDynaUNet", True, "the denoiser"),
        Component("vae", "diffusers", "AutoencoderKL", True, "pixels to latents and back"),
        Component("scheduler", "diffusers", "", True, "the noise schedule", kind="scheduler"),
        Component("pose_controlnet", "diffusers", "ControlNetModel", False, "control by a pose"),
        Component("face_controlnet", "diffusers", "ControlNetModel", False, "control by a face (S-Face)"),
        Component("text_encoder", "transformers", "CLIPTextModel", False, "prompts"),
        Component("tokenizer", "transformers", "CLIPTokenizer", False, "prompts", kind="processor"),
        Component("image_encoder", "transformers", "CLIPVisionModelWithProjection", False, "image tokens"),
        Component(
            "image_processor", "transformers", "CLIPImageProcessor", False, "image tokens", kind="processor"
        ),
        Component("image_projector", "xdyna", "Resampler", False, "image tokens"),
        Component("reference_net", "xdyna", "ReferenceNet", False, "the reference beside self-attention"),
        Component("reference_encoder", "xdyna", "ReferenceEncoder", False, "image tokens without CLIP"),
    )
}
"""Every part that a model may have. Optional ones are null in model_index.json when absent."""


@dataclass(frozen=True)
class ModelIndex:
    """What a model_index.json says.

    Attributes:
        folder: the model's folder.
        parts: the names of the components that the model has.
        scheduler: class name of the scheduler.
        preset: the settings that the model was made for.
        version: the xdyna version that wrote it; "" if unknown.
    """

    folder: Path
    parts: tuple[str, ...]
    scheduler: str
    preset: ModelPreset = field(default_factory=ModelPreset)
    version: str = ""


def read_index(folder: str | Path) -> ModelIndex:
    """Read and check a model's model_index.json.

    Raises:
        WeightsError: it is missing or broken, names a class that is not the table's, lacks a required part.
    """
    folder = Path(folder)
    path = folder / INDEX_NAME
    if not path.is_file():
        raise WeightsError(
            folder,
            f"not an xdyna model: there is no {INDEX_NAME} in it",
            "Give the folder that `xdyna convert` or training wrote; the official pretrained_weights tree "
            "has to be converted first: xdyna convert official SRC -o DIR",
        )
    entries = read_json_object(path)
    if entries.get("_class_name") != PIPELINE_CLASS:
        raise WeightsError(
            path,
            f"a model of class {entries.get('_class_name')!r}, not {PIPELINE_CLASS}",
            "Give an xdyna model; a Stable Diffusion folder alone is none",
        )
    unknown = sorted(name for name in entries if not name.startswith("_") and name not in COMPONENTS)
    if unknown:
        raise WeightsError(path, f"unknown parts: {', '.join(unknown)}", f"Known are {', '.join(COMPONENTS)}")
    parts, scheduler = [], ""
    for component in COMPONENTS.values():
        entry = entries.get(component.name)
        if entry is None or entry == [None, None]:
            if component.required:
                raise WeightsError(
                    path, f"{component.name} is absent ({component.purpose})", "A model cannot do without it"
                )
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(item, str) for item in entry)):
            raise WeightsError(path, f"{component.name} must be [library, class] or null, got {entry!r}")
        if entry[0] != component.library or (component.class_name and entry[1] != component.class_name):
            raise WeightsError(
                path,
                f"{component.name} names {'.'.join(entry)}, which is not allowed",
                f"Only {component.library}.{component.class_name or '<a scheduler>'} is; nothing was loaded",
            )
        parts.append(component.name)
        if component.kind == "scheduler":
            scheduler = entry[1]
            scheduler_class(scheduler, path)
    preset = entries.get("_preset") or {}
    known = {item.name for item in dataclasses.fields(ModelPreset)}
    if not isinstance(preset, dict) or not set(preset) <= known:
        raise WeightsError(
            path,
            f"_preset must be an object of {', '.join(sorted(known))}, got {preset!r}",
            "Mend or remove it",
        )
    return ModelIndex(
        folder, tuple(parts), scheduler, ModelPreset(**preset), str(entries.get("_xdyna_version", ""))
    )


def read_preset(folder: str | Path) -> ModelPreset:
    """The settings that a model was made for; errors as those of `read_index`."""
    return read_index(folder).preset


def component_class(component: Component) -> Any:
    """The class of a component, imported only now.

    Raises:
        MissingPackage: its library is not installed.
    """
    module = {"xdyna": "xdyna.models"}.get(component.library, component.library)
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(component.library, f"for {component.purpose}", component.library) from error
    if component.class_name == "CLIPImageProcessor":
        # The official code resizes with PIL; newer transformers keep that under a name of its own and give
        # the plain name to a torchvision version, whose pixels differ.
        return getattr(library, "CLIPImageProcessorPil", None) or library.CLIPImageProcessor
    return getattr(library, component.class_name)


def scheduler_class(name: str, subject: str | Path) -> Any:
    """The diffusers scheduler of that class name.

    Raises:
        WeightsError: diffusers has none of that name.
    """
    import diffusers

    cls = getattr(diffusers, name, None) if name.isidentifier() and not name.startswith("_") else None
    if (
        not (inspect.isclass(cls) and issubclass(cls, diffusers.SchedulerMixin))
        or cls is diffusers.SchedulerMixin
    ):
        raise WeightsError(subject, f"{name!r} is no scheduler of diffusers", "DDIMScheduler is X-Dyna's own")
    return cls


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        WeightsError: it is missing, unreadable or something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            path, "there is no such file", "Copy or download the model again, whole"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(path, f"not readable as JSON ({error})", "Copy or download it again") from error
    if not isinstance(content, dict):
        raise WeightsError(path, "must hold a JSON object", "Copy or download it again")
    return content
