"""Training of the embedded model: config, stages, one loop, exports, and the judge that measures the result."""

from xdyna.training.config import TrainConfig
from xdyna.training.config_file import load_config
from xdyna.training.loop import run, train
from xdyna.training.trainer import Progress

__all__ = ["Progress", "TrainConfig", "load_config", "run", "train"]
