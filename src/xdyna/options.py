"""Every setting of a run, once: the command line, the Python API and sidecar files all read these classes.

A field's metadata carries its help text, the group it is shown under and its allowed values; `check` refuses
what is not allowed, naming the command line's flag.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xdyna.errors import OptionError

ALIGN_MODES = ("retarget", "rigid", "none")
DETECTORS = ("mediapipe", "dwpose", "given")
FACE_MODES = ("tracked", "official")
LOOPS = ("closed", "open")
PRESETS = ("fast",)
DTYPES = ("auto", "float32", "float16", "bfloat16", "fp32", "fp16", "bf16")
FUSINGS = ("auto", "never", "half", "always")
WEIGHTS = ("full", "int8", "fp8")


def option(
    default: Any,
    text: str,
    *,
    group: str,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    metavar: str | tuple[str, ...] | None = None,
    repeat: bool = False,
) -> Any:
    """A dataclass field that is also a command-line flag; with `repeat`, one that may be given several times."""
    return field(
        default=default,
        metadata={
            "help": text,
            "group": group,
            "choices": choices,
            "minimum": minimum,
            "maximum": maximum,
            "metavar": metavar,
            "repeat": repeat,
        },
    )


FRAMES, SAMPLING, CONTROL, MACHINE, RESULT = "driving video", "sampling", "control", "machine", "result"


@dataclass(frozen=True)
class AnimateOptions:
    """Settings of `xdyna animate` and of calling an `XDynaPipeline`. None means "the model's own"."""

    model: str = option(
        "embedded",
        "embedded (ships with the package), a folder made by `xdyna convert`, or a hub id",
        group=MACHINE,
        metavar="NAME",
    )

    frames: int | None = option(
        None, "number of frames to make (default: all of the driving video)", group=FRAMES, minimum=1
    )
    start: int = option(0, "first driving frame to use, counted from 0", group=FRAMES, minimum=0)
    stride: int = option(
        1, "use every Nth driving frame; the result's frame rate falls with it", group=FRAMES, minimum=1
    )
    fps: float | None = option(
        None,
        "frame rate of the result; the driving video is sampled at it, so speed stays true. With --stride "
        "above 1 the frames stay as the stride picks them and only play at this rate, without sound",
        group=FRAMES,
        minimum=0.1,
        maximum=240,
    )
    size: str | None = option(
        None,
        "WIDTHxHEIGHT of the result, or one number N for the reference's aspect at an area of N x N "
        "(default: the reference's aspect at the model's native area)",
        group=FRAMES,
        metavar="WxH",
    )

    preset: str | None = option(
        None,
        "fast: 4 to 8 steps, one guidance half. The embedded model needs nothing more; published weights need an "
        "LCM-LoRA named by --lora. Fills only options that are not given",
        group=SAMPLING,
        choices=PRESETS,
    )
    steps: int | None = option(None, "denoising steps", group=SAMPLING, minimum=1, maximum=1000)
    guidance: float | None = option(
        None, "classifier-free guidance; 1 runs one half only and is twice as fast", group=SAMPLING, minimum=0
    )
    scheduler: str | None = option(
        None,
        "any diffusers scheduler by name: ddim, dpmsolver++, euler, unipc, lcm, ... or its class name",
        group=SAMPLING,
        metavar="NAME",
    )
    lora: tuple[str, ...] = option(
        (),
        "a LoRA file (safetensors, diffusers' or kohya's layout) or hub id, with its strength after a colon; may be "
        "given several times. 'fast' is the model's own for few steps, if it has one",
        group=SAMPLING,
        metavar="PATH[:SCALE]",
        repeat=True,
    )
    cache: int = option(
        1,
        "run the whole denoiser in every Nth step only and reuse its deep features in between (DeepCache): faster, "
        "not quite the same result; 1 is exact",
        group=SAMPLING,
        minimum=1,
        maximum=10,
    )
    guidance_interval: tuple[float, float] | None = option(
        None,
        "guide only between these shares of the noise schedule (0 = clean, 1 = pure noise); outside, one half runs",
        group=SAMPLING,
        minimum=0,
        maximum=1,
        metavar=("LO", "HI"),
    )
    seed: int = option(0, "same seed, same bytes on the same machine", group=SAMPLING, minimum=0)
    prompt: str = option("", "text prompt, for models with a text encoder", group=SAMPLING)
    negative_prompt: str = option("", "text to guide away from", group=SAMPLING)
    window: int = option(16, "frames that the motion modules see at a time", group=SAMPLING, minimum=1)
    overlap: int = option(4, "frames shared by neighbouring windows", group=SAMPLING, minimum=0)
    loop: str = option(
        "closed",
        "closed: the clip is a ring, as in the official code; open: windows stay inside the clip",
        group=SAMPLING,
        choices=LOOPS,
    )

    pose_scale: float = option(
        1.0, "strength of the pose ControlNet; 0 turns it off", group=CONTROL, minimum=0
    )
    face_scale: float = option(
        1.0, "strength of the S-Face ControlNet; 0 turns it off", group=CONTROL, minimum=0
    )
    reference_scale: float = option(
        1.0, "strength of the reference picture; 0 leaves it out", group=CONTROL, minimum=0
    )
    refine_face: bool | None = option(
        None,
        "make a small head a second time, as a close-up, and put it into the picture: clear faces of people who stand "
        "far away, for at most twice the time (default: the model's own choice; the embedded model does)",
        group=CONTROL,
    )
    hold_still: bool | None = option(
        None,
        "what stands still in the clip takes the picture's own place, so that walls do not shimmer "
        "(default: the model's own choice; the embedded model does)",
        group=CONTROL,
    )
    motion: float | None = option(
        None,
        "how lively the scene is: 0 still, 1 as such scenes usually are, 2 wild (default: the model's own choice)",
        group=CONTROL,
        minimum=0,
        maximum=2,
    )
    align: str = option(
        "retarget",
        "retarget: the driver's motion on the reference's limbs and place; rigid: one shift and scale for "
        "the clip; none: as the official code, no alignment",
        group=CONTROL,
        choices=ALIGN_MODES,
    )
    detector: str = option("mediapipe", "how keypoints are found", group=CONTROL, choices=DETECTORS)
    keypoints: str | None = option(
        None,
        "ready keypoints of the driving video instead of detection: OpenPose JSON (file or folder), "
        "a keypoints.npz of ours, or a pose video as the official repository uses",
        group=CONTROL,
        metavar="PATH",
    )
    reference_keypoints: str | None = option(
        None,
        "ready keypoints of the reference picture (keypoints.npz of ours)",
        group=CONTROL,
        metavar="PATH",
    )
    dwpose: str | None = option(
        None,
        "folder with the two ONNX files of DWPose, for --detector dwpose",
        group=CONTROL,
        metavar="DIR",
    )
    person: int | None = option(
        None, "which person drives, counted from 1, the largest first", group=CONTROL, minimum=1
    )
    min_score: float = option(
        0.3, "keypoints below this confidence are dropped", group=CONTROL, minimum=0, maximum=1
    )
    smooth: bool = option(True, "smooth keypoints over time", group=CONTROL)
    face_mode: str = option(
        "tracked",
        "tracked: a lost face is held for a few frames; official: blank at once, as the official code",
        group=CONTROL,
        choices=FACE_MODES,
    )

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group=MACHINE, metavar="NAME")
    dtype: str = option(
        "auto", "number format of the networks; auto: float16 on a GPU, float32 on a CPU", group=MACHINE,
        choices=DTYPES,
    )  # fmt: skip
    offload: bool = option(
        False, "keep each network on the GPU only while it runs: slower, less memory", group=MACHINE
    )
    weights: str = option(
        "full", "how the large networks are held: int8 and fp8 take half the memory of float16 and round the weights",
        group=MACHINE, choices=WEIGHTS,
    )  # fmt: skip
    fusing: str = option(
        "auto", "fused kernels on a GPU with Triton: never, half (where the networks are float16 or bfloat16), always",
        group=MACHINE, choices=FUSINGS,
    )  # fmt: skip
    graphs: bool | None = option(
        None,
        "record the networks' calls as CUDA graphs, so that a fast GPU need not wait for the host, in a little more "
        "memory (default: on a GPU, without --offload, where the run is long enough for it to pay and 6 GiB are free)",
        group=MACHINE,
    )

    compare: bool = option(
        False, "also write a video of reference, driving, pose, face and result side by side", group=RESULT
    )
    overwrite: bool = option(False, "replace files that exist", group=RESULT)

    def __post_init__(self) -> None:
        check(self)
        if self.detector == "dwpose" and self.keypoints is None and self.dwpose is None:
            raise OptionError(
                "--detector dwpose", "needs its two ONNX files", "Name their folder with --dwpose DIR"
            )
        if self.detector == "given" and self.keypoints is None:
            raise OptionError("--detector given", "needs ready keypoints", "Name them with --keypoints PATH")
        if self.overlap >= self.window:
            raise OptionError(
                "--overlap", f"got {self.overlap}, it must be less than --window, which is {self.window}"
            )
        if self.size is not None:
            parse_size(self.size)
        if self.guidance_interval is not None and self.guidance_interval[0] > self.guidance_interval[1]:
            raise OptionError(
                "--guidance-interval", f"got {self.guidance_interval}, LO is above HI", "Swap them"
            )


def parse_size(text: str) -> tuple[int, int] | int:
    """ "512x896" (width x height) -> (896, 512); "256" -> 256.

    Raises:
        OptionError: neither form, or a side below 64 or above 4096.
    """
    try:
        sides = [int(part) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise OptionError("--size", f"got {text!r}, allowed are WIDTHxHEIGHT such as 512x896, or one number")
    if any(not 64 <= side <= 4096 for side in sides):
        raise OptionError("--size", f"got {text!r}, each side must be from 64 to 4096 pixels")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])


def flag_of(name: str) -> str:
    """The command line's flag for a field."""
    return "--" + name.replace("_", "-")


def value_type(options: type, name: str) -> type:
    """The plain type of a field: `X | None` stripped to X, `tuple[X, ...]` to tuple."""
    hint = typing.get_type_hints(options)[name]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.cast(type, typing.get_origin(hint) or hint)


def item_types(options: type, name: str) -> tuple[Any, ...]:
    """What a tuple field holds: (str, ...) for any number of strings, (float, float) for two numbers."""
    hint = typing.get_type_hints(options)[name]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.get_args(hint)


def _check_items(flag: str, value: tuple[Any, ...], kinds: tuple[Any, ...]) -> None:
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        raise OptionError(flag, f"got {len(value)} values, it takes {len(kinds)}")
    for one in value:
        number = kinds[0] is float and isinstance(one, int) and not isinstance(one, bool)
        if not number and not isinstance(one, kinds[0]):
            raise OptionError(flag, f"got {one!r}, it must be of type {kinds[0].__name__}")
        if one != one:
            raise OptionError(flag, "got nan, it must be a number")


def check(options: Any) -> None:
    """Refuse values of a wrong type or outside what a field's metadata allows.

    Raises:
        OptionError: names the flag, what was got and what is allowed.
    """
    for entry in dataclasses.fields(options):
        value, rules, flag = getattr(options, entry.name), entry.metadata, flag_of(entry.name)
        if value is None:
            if entry.default is not None:
                raise OptionError(flag, "must have a value")
            continue
        expected = value_type(type(options), entry.name)
        number = expected is float and isinstance(value, int) and not isinstance(value, bool)
        if not number and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
            raise OptionError(flag, f"got {value!r}, it must be of type {expected.__name__}")
        if expected is tuple:
            _check_items(flag, value, item_types(type(options), entry.name))
        if expected is float and value != value:
            raise OptionError(flag, "got nan, it must be a number")
        choices, low, high = rules.get("choices"), rules.get("minimum"), rules.get("maximum")
        wrong = [one for one in (value if expected is tuple else (value,)) if choices and one not in choices]
        if choices and wrong:
            raise OptionError(flag, f"got {wrong[0]!r}, allowed are {', '.join(choices)}")
        for one in value if expected is tuple else (value,):
            if low is not None and one < low:
                raise OptionError(flag, f"got {one}, it must be at least {low}")
            if high is not None and one > high:
                raise OptionError(flag, f"got {one}, it must be at most {high}")


def from_mapping(options: type, values: Mapping[str, Any], *, source: str) -> Any:
    """Options from a sidecar or config file.

    Raises:
        OptionError: a key that is no option, or a value that is not allowed.
    """
    known = {entry.name for entry in dataclasses.fields(options)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise OptionError(source, f"unknown option {unknown[0]!r}", f"Known are: {', '.join(sorted(known))}")
    # JSON and TOML have lists only
    tuples = {name for name in values if value_type(options, name) is tuple}
    given = {
        name: tuple(value) if name in tuples and isinstance(value, list) else value
        for name, value in values.items()
    }
    return options(**given)
