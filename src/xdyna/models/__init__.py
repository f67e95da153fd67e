"""Networks. They know nothing of files, options or training."""

from xdyna.models.controls import run_controlnet
from xdyna.models.denoiser import Denoiser, check_reference_parts
from xdyna.models.reference_encoder import ReferenceEncoder
from xdyna.models.reference_net import ReferenceNet
from xdyna.models.references import REFERENCES
from xdyna.models.resampler import Resampler
from xdyna.models.unet import XDynaUNet

__all__ = [
    "REFERENCES",
    "Denoiser",
    "ReferenceEncoder",
    "ReferenceNet",
    "Resampler",
    "XDynaUNet",
    "check_reference_parts",
    "run_controlnet",
]
