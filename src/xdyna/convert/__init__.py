"""Other people's checkpoints to our model folders."""

from xdyna.convert.base import convert_base
from xdyna.convert.official import convert_official
from xdyna.convert.report import ConversionReport, PartReport

__all__ = ["ConversionReport", "PartReport", "convert_base", "convert_official"]
