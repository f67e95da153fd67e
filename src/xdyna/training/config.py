"""Training configs: strict TOML -> frozen dataclasses.

Every key of a config file is a field of a dataclass below, where its default and its meaning stand. A key that is
no field is an error that names it and lists the keys allowed at that place. `--set section.key=value` overrides
one value; the value is read as TOML, and as a plain string where it is none.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdyna.errors import InputError, OptionError

STAGE_NAMES = ("autoencoder", "judge", "image", "clips")
"""The stages there are, in the order they usually run; `stages.py` says what each trains."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Widths of the AutoencoderKL: one level per entry of `channels`, each but the last halves the size."""

    channels: tuple[int, ...] = (32, 64, 96, 128)
    layers: int = 1
    latent_channels: int = 16
    groups: int = 8


@dataclass(frozen=True)
class UNetConfig:
    """Widths of the denoiser; the two ControlNets copy its encoder."""

    channels: tuple[int, ...] = (96, 160, 224)
    layers: int = 1
    attention: tuple[bool, ...] = (True, True, True)
    """For each level, whether it has spatial transformers (and with them the Dynamics-Adapter)."""
    heads: tuple[int, ...] = (3, 5, 7)
    """Attention heads of each level."""
    groups: int = 16
    motion_heads: int = 4
    position_gain: float = 2.5
    """First gain of the position code that a model trained from scratch needs in its attention."""
    motion_energy: float = 0.0
    """What `--motion 1` stands for: the median motion energy of the moving scenes trained on. 0 = the denoiser cannot
    be told how lively the scene is."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks of one model. `size` (height, width) is its native size in pixels."""

    size: tuple[int, int] = (256, 256)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    condition_channels: tuple[int, ...] = (16, 32, 64, 96)
    """Widths of the ControlNets' condition embedding; one entry per level of the autoencoder."""


@dataclass(frozen=True)
class DataConfig:
    """What is rendered. Sizes in pixels; the shares are of all clips."""

    size: tuple[int, int] = (256, 256)
    human_share: float = 0.8
    """Clips with a person; the others are scenes alone, with blank conditions (harmonic data fusion)."""
    still_share: float = 0.35
    chunk: int = 8
    """Clips rendered by one call; the unit in which pools are filled and refreshed."""


@dataclass(frozen=True)
class StageConfig:
    """One stage. It ends when `minutes` of training or `steps` are used up, whichever is first; 0 = no limit."""

    minutes: float = 0.0
    steps: int = 0
    batch: int = 8
    frames: int = 4
    """Frames of a clip besides the reference; scattered or consecutive as the stage's row says."""
    rendered: int = 0
    """Frames rendered of each clip, of which `frames` are picked at random; 0 = `frames`."""
    pool: int = 64
    """Clips held ready, rendered and encoded."""
    refresh: float = 0.0
    """Fresh clips rendered per clip trained on; 0 keeps the pool as it is."""
    learning_rate: float = 6e-4
    matrix_rate: float = 0.0
    """Learning rate of weight matrices under Muon; 0 = AdamW for everything (see `optimiser.py`)."""
    final_learning_rate: float = 0.04
    """Share of the learning rates at the end of the cosine."""
    decay_from: float = 0.5
    """Share of the stage's budget after which the cosine begins."""
    warmup: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    crop: int = 0
    """Autoencoder: train on random square crops of this many pixels; 0 = whole frames."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    gradient: float = 0.6
    multiscale: float = 0.5
    kl: float = 1e-4
    latent_noise: float = 0.08
    """Noise added to the latents that the decoder is trained on, as a share of their spread."""
    person: float = 0.5
    face: float = 2.0
    hand: float = 1.0
    """Extra weight of pixels on the person, in the head's disc, around the hands; 0 = none."""
    min_snr: float = 0.0
    """Gamma of min-SNR weighting (Hang et al. 2023); 0 = off, as zero terminal SNR wants it."""
    drop_reference: float = 0.05
    drop_pose: float = 0.05
    drop_face: float = 0.05
    """Chance that a condition is taken away from a clip."""
    drop_motion: float = 0.5
    """Chance that a clip's motion energy is not told, where the denoiser can be told."""
    shared_noise: float = 0.0
    """Share of the noise's variance that all frames of a clip have in common (see `sampling.mix_noise`)."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How it runs. None of these changes what is learned, apart from rounding."""

    threads: int = 0
    """CPU threads; 0 = as torch finds it."""
    bfloat16: bool = True
    """bf16 autocast on CUDA; a CPU always trains in float32, since most lack fast bf16."""
    channels_last: bool = True
    fused_norms: bool = True
    """On CUDA: norms of few passes over memory (see `fused.py`)."""
    compile: bool = False
    """torch.compile the networks that learn: minutes at first, faster steps after."""
    workers: int = 0
    """Processes that render fresh clips beside the training, on CPU cores; 0 renders them between two steps."""
    save_pools: bool = True
    """Keep rendered clips in the run's folder, so that a resumed run need not render them again."""
    log_seconds: float = 20.0
    save_seconds: float = 300.0


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    seed: int = 1
    stages: tuple[str, ...] = STAGE_NAMES
    """Stages to run, in order."""
    judge_width: int = 64
    initial: str = ""
    """A model folder, or "embedded", whose weights a fresh run starts from, such as a shipped model that is to be
    trained further; its widths must be those of `model`. The judge is not part of a model and starts anew."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    autoencoder: StageConfig = field(default_factory=StageConfig)
    judge: StageConfig = field(default_factory=StageConfig)
    image: StageConfig = field(default_factory=StageConfig)
    clips: StageConfig = field(default_factory=StageConfig)

    def stage(self, name: str) -> StageConfig:
        """The settings of the stage called `name`."""
        settings = getattr(self, name)
        assert isinstance(settings, StageConfig)
        return settings


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a config.

    Args:
        path: a TOML file, or the `config.json` that a run writes into its folder.
        overrides: `section.key=value` strings, applied in order.

    Raises:
        InputError: no such file, or no TOML.
        OptionError: an unknown key, or a value of the wrong kind or outside its range.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(
            path,
            f"cannot be read ({error.strerror})",
            "Give a training config, such as configs/train/smoke.toml",
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(path, f"is no valid TOML ({error})", "Mend the line that is named") from None
    for override in overrides:
        _set(values, override)
    return build_config(values, source=str(path))


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
    """What types alone do not say."""

    def demand(true: bool, problem: str, remedy: str) -> None:
        if not true:
            raise OptionError(source, problem, remedy)

    for name in config.stages:
        demand(name in STAGE_NAMES, f"unknown stage {name!r}", f"Stages are {', '.join(STAGE_NAMES)}")
        stage = config.stage(name)
        demand(
            stage.minutes > 0 or stage.steps > 0, f"{name} has neither minutes nor steps", "Give it an end"
        )
        demand(
            stage.batch > 0 and stage.frames > 0,
            f"{name}: batch and frames must be above 0",
            "Give at least 1",
        )
        demand(
            stage.rendered == 0 or stage.rendered >= stage.frames,
            f"{name}: rendered ({stage.rendered}) is below frames ({stage.frames})", "Raise rendered",
        )  # fmt: skip
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
    unit = 2 ** (len(autoencoder.channels) - 1)
    for where, size in (("model.size", config.model.size), ("data.size", config.data.size)):
        demand(
            all(side % unit == 0 for side in size),
            f"{where} {size} is no multiple of {unit}",
            "Change the size",
        )
    for where, share in (
        ("data.human_share", config.data.human_share),
        ("loss.shared_noise", config.loss.shared_noise),
    ):
        demand(0 <= share <= 1, f"{where} must lie in 0..1, got {share}", "Change it")
