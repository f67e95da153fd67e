"""Training of the embedded model: config, stages, one loop, exports, and the judge that measures the result."""

from xdyna.training.config import TrainConfig, load_config
from xdyna.training.loop import Progress, run, train

__all__ = ["Progress", "TrainConfig", "load_config", "run", "train"]
