"""A synthetic world: people and scenes rendered in torch, with everything about them known exactly.

`make_batch` is the door. Below it, `sample_params` draws the parameters of a batch and `render` turns them
into pictures, so that one person can be rendered with another's motion.
"""

from xdyna.data.synthetic.company import CompanyParams
from xdyna.data.synthetic.motion import EXPRESSIONS
from xdyna.data.synthetic.params import HELD_OUT_SEED, SceneParams, SyntheticParams, sample_params
from xdyna.data.synthetic.render import SyntheticBatch, make_batch, render
from xdyna.data.synthetic.scenes import MOVING_SCENES, SCENES, STILL_SCENES

__all__ = [
    "EXPRESSIONS",
    "HELD_OUT_SEED",
    "MOVING_SCENES",
    "SCENES",
    "STILL_SCENES",
    "CompanyParams",
    "SceneParams",
    "SyntheticBatch",
    "SyntheticParams",
    "make_batch",
    "render",
    "sample_params",
]  # fmt: skip
