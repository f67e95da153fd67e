"""Everything that can be set about a training run: frozen dataclasses, the one place of defaults.

Config files are read by `config_file.py`; every key is a field of a class below, where its meaning stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STAGE_NAMES = ("autoencoder", "judge", "image", "clips", "stage1", "stage2", "distill")
"""The stages there are; `stages.py` says what each trains."""


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
    """For each level, whether it has spatial transformers (and with them the reference)."""
    heads: tuple[int, ...] = (3, 5, 7)
    """Attention heads of each level."""
    groups: int = 16
    motion_heads: int = 4
    position_gain: float = 2.5
    """First gain of the position code that a model trained from scratch needs in its attention."""
    moved_reference: bool = False
    """Whether the denoiser is shown the reference moved as the person moves (`XDynaUNet`)."""
    motion_energy: float = 0.0
    """What `--motion 1` stands for: the median motion energy of the moving scenes trained on. 0 = the denoiser cannot
    be told how lively the scene is."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks of one model. `size` (height, width) is its native size in pixels."""

    kind: str = "embedded"
    """"embedded": the widths below, no text. "sd15": the published sizes; the widths below are not read."""
    size: tuple[int, int] = (256, 256)
    reference: str = "dynamics-adapter"
    """How the reference enters (docs/concepts/reference.md): dynamics-adapter, reference-net or ip-adapter."""
    face: str = "s-face"
    """What tells the expression: "s-face" (a ControlNet on face patches), "landmarks" (drawn into the pose pictures),
    or "none"."""
    reference_pose: bool = False
    """Show the pose ControlNet the reference person's own pose as well, so that both sides of the adapter's attention
    are told which part of the body is where. Not part of the published model."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    condition_channels: tuple[int, ...] = (16, 32, 64, 96)
    """Widths of the ControlNets' condition embedding; one entry per level of the autoencoder."""
    image_tokens: int = 16
    """ip-adapter without CLIP: tokens made from the reference's latent, and their width."""
    token_width: int = 192

    @property
    def unit(self) -> int:
        """Pixels per latent."""
        return 8 if self.kind == "sd15" else 2 ** (len(self.autoencoder.channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the autoencoder's latents."""
        return 4 if self.kind == "sd15" else self.autoencoder.latent_channels


@dataclass(frozen=True)
class DataConfig:
    """What is trained on. Sizes in pixels; the shares are of all clips."""

    source: str = "synthetic"
    """"synthetic": rendered while training. "prepared": clips of manifests."""
    size: tuple[int, int] = (256, 256)
    human_share: float = 0.8
    """Clips with a person; the others are scenes alone, with blank conditions (harmonic data fusion; 1 = without)."""
    chunk: int = 8
    """Clips made by one call; the unit in which pools are filled and refreshed."""
    vary: float = 0.0
    """Kept clips that are turned, zoomed, shifted and recoloured anew for each that was trained on (`variation.py`);
    0 shows all as they were made."""

    still_share: float = 0.35
    """Synthetic: clips with a person before a scene in which nothing moves."""
    moving_camera_share: float = 0.08
    company_share: float = 0.06
    frozen_share: float = 0.04
    """Synthetic: cameras that move, second people, moving kinds of scene that stand still."""
    modelled_share: float = 0.0
    captured_share: float = 0.0
    """Synthetic: people modelled in three dimensions instead of drawn; motion that was filmed instead of made up."""

    manifests: tuple[str, ...] = ()
    """Prepared: manifests of `xdyna prepare` or `xdyna synth`."""
    stride: tuple[int, int] = (2, 4)
    """Prepared: least and largest distance of frames, in frames of a video of 30 a second."""
    zoom: tuple[float, float] = (1.0, 1.1)
    close_up: float = 0.0
    """Share of close-ups, of the clips with a person; extreme zoom is a stated weakness of the paper. Synthetic: only
    of small heads, only with `vary` (`closeups.py`)."""
    close_up_zoom: float = 3.0
    """Prepared: how close."""
    scene_reference: str = "first"
    """Prepared: a scene's reference is the sample's "first" frame or a "random" one of the clip."""
    faces: str = "reenact"
    """Prepared, filmed people: whose face the S-Face patches show: "reenact" (another person's, warped), "same" (their
    own: identity leaks), or a network of yours (docs/concepts/faces.md). Made clips bring exact ones."""
    face_gallery: str = ""
    """"reenact": a folder of portraits to warp; "" = drawn faces."""


@dataclass(frozen=True)
class NoiseConfig:
    """The diffusion process. The defaults suit a model trained from scratch; sd15.toml has the paper's."""

    prediction: str = "v_prediction"
    schedule: str = "scaled_linear"
    """Betas 0.00085 to 0.012: "scaled_linear", or "linear" as the published weights."""
    zero_snr: bool = True
    """Rescale so that the last step is pure noise (Lin et al. 2023)."""
    offset: float = 0.0
    """Noise that is one number for a whole map, added to the noise (Guttenberg 2023); 0.05 is usual."""
    shared: float = 0.0
    """Share of the noise's variance that all frames of a clip have in common (see `sampling.mix_noise`)."""
    timestep_shift: float = 1.0
    """Above 1, noisy timesteps are trained more often (Esser et al. 2024, section 5.3.2): there only the reference says
    what a frame looks like, while in the others most of it shows through. 1 draws them evenly."""


@dataclass(frozen=True)
class StageConfig:
    """One stage. It ends when `minutes` of training or `steps` are used up, whichever is first; 0 = no limit."""

    minutes: float = 0.0
    steps: int = 0
    batch: int = 8
    """Clips of one forward pass, of all processes together."""
    accumulate: int = 1
    """Forward passes for one step of the optimiser."""
    frames: int = 4
    """Frames of a clip besides the reference; scattered or consecutive as the stage's row says."""
    rendered: int = 0
    """Frames made of each clip, of which `frames` are picked at random; 0 = `frames`."""
    pool: int = 64
    """Clips held ready, made and encoded, by all processes together."""
    refresh: float = 0.0
    """Fresh clips made per clip trained on; 0 keeps the pool as it is, 1 sees every clip about once."""
    learning_rate: float = 6e-4
    matrix_rate: float = 0.0
    """Learning rate of weight matrices under Muon; 0 = AdamW for everything (see `optimiser.py`)."""
    schedule: str = "cosine"
    """"cosine": a plateau, then half a cosine down from `decay_from` on; "constant"."""
    final_learning_rate: float = 0.04
    """Share of the learning rates at the end of the cosine."""
    decay_from: float = 0.5
    """Share of the stage's budget after which the cosine begins."""
    warmup: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    """Decay of the moving average of the weights; 0 = none, the last weights count."""
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
    temporal: float = 0.0
    """Weight of the error's change from frame to frame, beside the error itself (clips only)."""
    person: float = 0.5
    face: float = 2.0
    hand: float = 1.0
    """Extra weight of pixels on the person, in the head's disc, around the hands; 0 = none."""
    face_share: float = 0.0
    """Weigh the head's disc more than that where it is small, so that it is such a share of its frame (below 1)."""
    min_snr: float = 0.0
    """Gamma of min-SNR weighting (Hang et al. 2023); 0 = off, as zero terminal SNR wants it."""
    drop_reference: float = 0.05
    drop_pose: float = 0.05
    drop_face: float = 0.05
    drop_motion: float = 0.5
    """Chance that a clip loses a condition: its reference, pose, face, or the motion energy it is told."""
    drop_tokens: float = 0.0
    """Chance that a clip's image tokens are those of an empty picture, for guidance (published model)."""
    blank: str = "picture"
    """What scenes are given for pose and face: a black "picture" (the paper), or "skip" the ControlNets."""


@dataclass(frozen=True)
class StudentConfig:
    """What stage `distill` makes: low-rank changes of the denoiser that let it do with fewer steps."""

    steps: int = 4
    """Denoising steps that the student is for."""
    substeps: int = 2
    """The teacher's steps that one of the student's is to equal."""
    rank: int = 4
    convolutions: bool = False
    """Change convolutions as well as linear layers: more to learn with, a larger file."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How it runs. None of these changes what is learned, apart from rounding."""

    threads: int = 0
    """CPU threads; 0 = as torch finds it."""
    precision: str = "bf16"
    """Mixed precision on CUDA: "bf16", "fp16" (with loss scaling) or "no"; a CPU always trains in float32."""
    channels_last: bool = True
    half_norms: bool = True
    """On CUDA with bf16: norms take and give half precision (see `norms.py`)."""
    fused: bool = False
    """On CUDA with bf16 and channels_last, where Triton is installed: fused norms, activations, bias gradients and
    attention over time, and packed convolutions of few channels (see `models/fusing.py`). `benchmarks.training_step`
    tells what it gains."""
    graphs: bool = False
    """On CUDA: record each stage's step as CUDA graphs and replay them, for small networks, whose kernels may take
    longer to start than to run (see `updates.py`). Not with fp16 or FSDP."""
    compile: bool = False
    """torch.compile the networks that learn: minutes at first, faster steps after."""
    checkpoint_gradients: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    workers: int = 0
    """Processes that make fresh clips on CPU cores, ahead of their use; 0 makes them on the training's device: on a GPU
    beside the training, on a CPU between two steps. A process needs about 0.15 GB for each clip of `data.chunk` (17
    frames of 256 x 256)."""
    workers_and_device: bool = False
    """With `workers`, in stages that end by the clock: the training's GPU makes clips too, and whichever are ready
    first are taken. Which clips a run sees is then up to the machine."""
    save_pools: bool = True
    """Keep rendered clips in the run's folder, so that a resumed run need not render them again."""
    log_seconds: float = 20.0
    save_seconds: float = 300.0
    """How often the run's state and a model folder are written."""
    keep: int = 2
    """Model folders kept under RUN/models; 0 writes none."""
    tensorboard: bool = True
    """Also log to RUN/tensorboard (where tensorboard is installed), with sheets of sampled clips."""
    samples: int = 2
    """Clips sampled for a sheet whenever a model folder is written; 0 = none."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    seed: int = 1
    stages: tuple[str, ...] = ("autoencoder", "judge", "image", "clips")
    """Stages to run, in order."""
    judge_width: int = 64
    initial: str = ""
    """A model folder, or "embedded", whose weights a fresh run starts from, such as converted base weights or a shipped
    model that is to be trained further; its widths must be those of `model`. What the folder lacks starts fresh."""
    initial_judge: str = ""
    """A judge.safetensors, of `judge_width`, that stage judge trains further; "" starts afresh."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    autoencoder: StageConfig = field(default_factory=StageConfig)
    judge: StageConfig = field(default_factory=StageConfig)
    image: StageConfig = field(default_factory=StageConfig)
    clips: StageConfig = field(default_factory=StageConfig)
    stage1: StageConfig = field(default_factory=StageConfig)
    stage2: StageConfig = field(default_factory=StageConfig)
    distill: StageConfig = field(default_factory=StageConfig)

    def stage(self, name: str) -> StageConfig:
        """The settings of the stage called `name`."""
        settings = getattr(self, name)
        assert isinstance(settings, StageConfig)
        return settings


CHOICES: dict[str, tuple[str, ...]] = {
    "model.kind": ("embedded", "sd15"),
    "model.reference": ("dynamics-adapter", "reference-net", "ip-adapter"),
    "model.face": ("s-face", "landmarks", "none"),
    "data.source": ("synthetic", "prepared"),
    "data.scene_reference": ("first", "random"),
    "noise.prediction": ("v_prediction", "epsilon"),
    "noise.schedule": ("scaled_linear", "linear"),
    "loss.blank": ("picture", "skip"),
    "runtime.precision": ("bf16", "fp16", "no"),
}
"""What may stand where only a few words may."""
