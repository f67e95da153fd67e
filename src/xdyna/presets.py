"""What a run's options become for a model: `--preset fast`, then the model's own where nothing is said."""

from __future__ import annotations

from dataclasses import replace

from xdyna.errors import OptionError
from xdyna.model_preset import ModelPreset
from xdyna.options import AnimateOptions
from xdyna.weights.lora import OWN, LoraChoice, Loras
from xdyna.weights.lora_file import steps_of

FEW_STEPS = 4
"""Steps of a model that was made for few (at most `MADE_FOR_FEW`) and has no LoRA of its own for fewer."""
MADE_FOR_FEW = 8
LCM_STEPS, LCM_SCHEDULER = 6, "lcm"
"""Steps and scheduler for a LoRA that does not say what it is for: a published LCM-LoRA."""
PUBLISHED_LCM = "latent-consistency/lcm-lora-sdv1-5"


def fill_options(
    options: AnimateOptions, *, model: ModelPreset, scheduler: str, loras: Loras
) -> AnimateOptions:
    """Every None that means "the model's own" replaced.

    Args:
        options: as given.
        model: what suits the model.
        scheduler: class name of the model's own.
        loras: of the model's denoiser.

    Raises:
        OptionError: an option that the model does not know, or a preset that it cannot follow.
    """
    model.energy(options.motion)  # speak before any work is done
    options = fill_preset(options, model=model, loras=loras)
    return replace(
        options,
        steps=options.steps or model.steps,
        guidance=model.guidance if options.guidance is None else options.guidance,
        scheduler=options.scheduler or scheduler,
        refine_face=model.refine_face if options.refine_face is None else options.refine_face,
        hold_still=model.hold_still if options.hold_still is None else options.hold_still,
    )


def fill_preset(options: AnimateOptions, *, model: ModelPreset, loras: Loras) -> AnimateOptions:
    """What a preset fills in: steps, guidance, scheduler and LoRA, where they are not given.

    - A model with a LoRA of its own, or a LoRA that says how many steps it is for: so many, by the model's scheduler.
    - Any other LoRA that the user names is taken for an LCM-LoRA.
    - A model made for few steps by itself: half of them.

    Raises:
        OptionError: the model needs a LoRA for few steps, and none is named.
    """
    if options.preset is None:
        return options
    lora = options.lora
    if not lora and loras.own() is not None:
        lora = (OWN,)
    told = max((steps_of(loras.find(LoraChoice.parse(name).name)) for name in lora), default=0)
    scheduler = None
    if told:
        steps = told
    elif lora:
        steps, scheduler = LCM_STEPS, LCM_SCHEDULER
    elif model.steps <= MADE_FOR_FEW and model.guidance == 1:
        steps = min(FEW_STEPS, model.steps)
    else:
        raise OptionError(
            "--preset fast",
            f"this model takes {model.steps} steps and has no LoRA for fewer",
            f"Name an LCM-LoRA, such as --lora {PUBLISHED_LCM} or its file",
        )
    return replace(
        options,
        lora=lora,
        steps=options.steps or steps,
        guidance=1.0 if options.guidance is None else options.guidance,
        scheduler=options.scheduler or scheduler,
    )
