"""Networks. They know nothing of files, options or training."""

from xdyna.models.resampler import Resampler
from xdyna.models.unet import XDynaUNet

__all__ = ["Resampler", "XDynaUNet"]
