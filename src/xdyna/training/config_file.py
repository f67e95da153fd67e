"""Config files: strict TOML (or a run's config.json) -> the dataclasses of `config.py`.

A file may begin with `base = "other.toml"`, a path beside it, and then says only what differs. A key that is no field
is an error that names it and lists the keys allowed at that place. `--set section.key=value`
overrides one value; the value is read as TOML, and as a plain string where it is none.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xdyna.errors import InputError, OptionError
from xdyna.training.config import CHOICES, STAGE_NAMES, TrainConfig


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a config.

    Args:
        path: a TOML file, or the `config.json` that a run writes into its folder.
        overrides: `section.key=value` strings, applied in order.

    Raises:
        InputError: no such file, or no TOML.
        OptionError: an unknown key, or a value of the wrong kind or outside its range.
    """
    values = _read(Path(path))
    for override in overrides:
        _set(values, override)
    return build_config(values, source=str(path))


def _read(path: Path, *, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's values, over those of the file that it names as its base."""
    try:
        text = path.read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(
            path,
            f"cannot be read ({error.strerror})",
            "Give a training config, such as configs/train/smoke.toml",
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(path, f"is no valid TOML ({error})", "Mend the line that is named") from None
    base = values.pop("base", None)
    if base is None:
        return values
    below = (path.parent / str(base)).resolve()
    if below in above:
        raise OptionError(path, f"base {base!r} leads back to itself", "Break the circle")
    return _over(_read(below, above=(*above, path.resolve())), values)


def _over(below: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one file over those of another, table by table."""
    merged = dict(below)
    for key, value in values.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def build_config(values: Mapping[str, Any], *, source: str) -> TrainConfig:
    """A config from nested plain values; errors speak of `source`."""
    config = _build(TrainConfig, values, source, "")
    assert isinstance(config, TrainConfig)
    _check(config, source)
    return config


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values, ready for JSON; `load_config` reads it back."""
    return dataclasses.asdict(config)


def _set(values: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c` to the nested dictionary `values`."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise OptionError(
            "--set", f"got {override!r}", "Write it as section.key=value, such as image.batch=4"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, key = name.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise OptionError(f"--set {name}", f"{section} is no section")
    values[key] = value


def _build(kind: type, values: Mapping[str, Any], source: str, where: str) -> Any:
    """A dataclass of `kind` from a table; nested tables become nested dataclasses."""
    if not isinstance(values, Mapping):
        raise OptionError(
            source,
            f"{where.rstrip('.')} must be a table, got {values!r}",
            f"Write it as [{where.rstrip('.')}]",
        )
    types = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            raise OptionError(source, f"unknown key {where + key!r}", f"Allowed here: {', '.join(names)}")
    built = {key: _value(types[key], value, source, where + key) for key, value in values.items()}
    return kind(**built)


def _value(kind: Any, value: Any, source: str, name: str) -> Any:
    """One value, checked against the type of its field."""
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return _build(kind, value, source, name + ".")
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        length = None if parts[-1] is Ellipsis else len(parts)
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            wanted = f"a list of {length}" if length else "a list"
            raise OptionError(source, f"{name} must be {wanted}, got {value!r}")
        return tuple(_value(parts[0], item, source, name) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(source, f"{name} must be of kind {kind.__name__}, got {value!r}")
    return value


def _check(config: TrainConfig, source: str) -> None:
    """What types alone do not say.

    Raises:
        OptionError: names the key, what was got and what is allowed.
    """

    def demand(true: bool, problem: str, remedy: str) -> None:
        if not true:
            raise OptionError(source, problem, remedy)

    for where, allowed in CHOICES.items():
        value: Any = config
        for part in where.split("."):
            value = getattr(value, part)
        demand(value in allowed, f"{where} is {value!r}", f"Allowed are {', '.join(map(repr, allowed))}")
    for name in config.stages:
        demand(name in STAGE_NAMES, f"unknown stage {name!r}", f"Stages are {', '.join(STAGE_NAMES)}")
        _check_stage(config, name, demand)
    demand(
        config.model.face == "s-face" or "stage2" not in config.stages,
        f"stage2 trains the S-Face ControlNet, but model.face is {config.model.face!r}",
        "Leave stage2 out",
    )
    _check_model(config, demand)
    if "distill" in config.stages:
        _check_student(config, demand)
    for where, share in (
        ("data.human_share", config.data.human_share),
        ("data.still_share", config.data.still_share),
        ("data.close_up", config.data.close_up),
        ("noise.shared", config.noise.shared),
    ):
        demand(0 <= share <= 1, f"{where} must lie in 0..1, got {share}", "Change it")
    for where, rate in (("data.vary", config.data.vary), ("loss.temporal", config.loss.temporal)):
        demand(rate >= 0, f"{where} must be 0 or above, got {rate}", "0 turns it off")
    made = config.data.source == "synthetic"
    demand(
        not (made and config.data.close_up) or config.data.vary > 0,
        "data.close_up of synthetic clips needs data.vary",
        "Set data.vary above 0, or data.close_up to 0",
    )
    shift = config.noise.timestep_shift
    demand(shift > 0, f"noise.timestep_shift must be above 0, got {shift}", "1 draws timesteps evenly")
    demand(
        not config.noise.zero_snr or config.noise.prediction == "v_prediction",
        "noise.zero_snr needs noise.prediction = 'v_prediction'",
        "At pure noise, the noise itself tells nothing (Lin et al. 2023)",
    )
    demand(
        made or bool(config.data.manifests),
        "data.source is 'prepared', but data.manifests names none",
        "Name manifests that `xdyna prepare` or `xdyna synth` wrote",
    )


def _check_stage(config: TrainConfig, name: str, demand: Any) -> None:
    stage = config.stage(name)
    demand(stage.minutes > 0 or stage.steps > 0, f"{name} has neither minutes nor steps", "Give it an end")
    for key in ("batch", "frames", "accumulate"):
        demand(getattr(stage, key) > 0, f"{name}.{key} must be above 0", "Give at least 1")
    demand(
        stage.learning_rate > 0,
        f"{name}.learning_rate must be above 0, got {stage.learning_rate}",
        "Change it",
    )
    demand(
        stage.rendered == 0 or stage.rendered >= stage.frames,
        f"{name}: rendered ({stage.rendered}) is below frames ({stage.frames})",
        "Raise rendered",
    )
    demand(
        stage.schedule in ("cosine", "constant"),
        f"{name}.schedule is {stage.schedule!r}",
        "Allowed are 'cosine', 'constant'",
    )


def _check_student(config: TrainConfig, demand: Any) -> None:
    student = config.student
    for key in ("steps", "substeps", "rank"):
        demand(
            getattr(student, key) > 0,
            f"student.{key} must be above 0, got {getattr(student, key)}",
            "Change it",
        )
    demand(
        student.steps * student.substeps <= 1000,
        f"student.steps x student.substeps is {student.steps * student.substeps}, the schedule has 1000 timesteps",
        "Lower one of them",
    )
    demand(
        config.noise.zero_snr,
        "stage distill needs noise.zero_snr",
        "A student must begin at pure noise; other models take published LCM-LoRAs (docs/guides/fewer-steps.md)",
    )
    demand(
        config.stages[0] != "distill" or bool(config.initial),
        "stage distill comes first, but initial names no teacher",
        "Set initial to a model folder, or to embedded",
    )
    for key in ("compile", "checkpoint_gradients"):
        demand(
            not getattr(config.runtime, key),
            f"stage distill does not go with runtime.{key}",
            "Set it to false",
        )


def _check_model(config: TrainConfig, demand: Any) -> None:
    unet, autoencoder = config.model.unet, config.model.autoencoder
    levels = len(unet.channels)
    demand(
        len(unet.attention) == levels and len(unet.heads) == levels,
        f"model.unet: channels has {levels} levels, attention {len(unet.attention)}, heads {len(unet.heads)}",
        "Give one entry a level",
    )
    demand(
        len(config.model.condition_channels) == len(autoencoder.channels),
        "model.condition_channels and model.autoencoder.channels differ in length",
        "Both must bring a picture down to the latents' size",
    )
    unit = config.model.unit
    for where, size in (("model.size", config.model.size), ("data.size", config.data.size)):
        demand(
            all(side % unit == 0 for side in size), f"{where} {size} is no multiple of {unit}", "Change it"
        )
