"""The scenes behind the people: still and moving kinds, each a function of place and time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from xdyna.data.synthetic.scenery import Scenery
from xdyna.data.synthetic.scenes.fire import campfire, candles, fire, fireworks, lights, smoke
from xdyna.data.synthetic.scenes.plants import flowers, grass, leaves
from xdyna.data.synthetic.scenes.rain import puddles, rain
from xdyna.data.synthetic.scenes.rooms import room, shelf, wall
from xdyna.data.synthetic.scenes.town import curtain, flags, neon, traffic, train
from xdyna.data.synthetic.scenes.views import land, photo, street
from xdyna.data.synthetic.scenes.water import falls, fountain, river, surf, underwater, water
from xdyna.data.synthetic.scenes.weather import aurora, clouds, dust, snow

Painter = Callable[[Scenery], Tensor]

PAINTERS: dict[str, Painter] = {
    "wall": wall, "land": land, "water": water, "fire": fire, "clouds": clouds, "grass": grass,
    "snow": snow, "lights": lights, "falls": falls, "leaves": leaves,
    "room": room, "street": street, "shelf": shelf, "photo": photo,
    "river": river, "surf": surf, "fountain": fountain, "rain": rain, "puddles": puddles, "underwater": underwater,
    "campfire": campfire, "candles": candles, "fireworks": fireworks, "smoke": smoke,
    "aurora": aurora, "dust": dust, "flowers": flowers,
    "traffic": traffic, "neon": neon, "flags": flags, "curtain": curtain, "train": train,
}  # fmt: skip
"""(b n h w) coordinates in, pictures (b n 3 h w) about [0, 1] out."""
SCENES = tuple(PAINTERS)
"""Names of the scenes; `SyntheticBatch.scene` holds places in this tuple."""
STILL_SHARES = {"wall": 1.6, "land": 1.0, "room": 1.0, "street": 0.9, "shelf": 0.5, "photo": 1.0}
"""Scenes in which nothing moves, and how often each is drawn against the others."""
STILL_SCENES = tuple(STILL_SHARES)
"""Names of the scenes in which nothing moves."""
MOVING_SCENES = tuple(name for name in SCENES if name not in STILL_SHARES)
"""Names of the scenes that move by themselves."""
SLOPES = {
    "water": 1.5, "fire": 1.7, "clouds": 1.55, "falls": 1.5, "leaves": 1.05, "wall": 1.25, "land": 1.25,
    "river": 1.5, "surf": 1.35, "fountain": 1.4, "puddles": 1.35, "underwater": 1.45,
    "campfire": 1.6, "smoke": 1.6, "aurora": 1.5, "dust": 1.5, "train": 1.2,
}  # fmt: skip
"""How fast the textures' amplitude falls with frequency; 1.3 where not named."""
WINDY = {
    "clouds": 0.35, "grass": 0.6, "snow": 0.4, "leaves": 0.6, "surf": 0.5, "water": 0.3, "fountain": 0.3,
    "puddles": 0.3, "campfire": 0.25, "smoke": 0.25, "dust": 1.0, "flowers": 0.5, "flags": 0.9, "curtain": 0.45,
    "land": 0.25, "street": 0.15,
}  # fmt: skip
"""How hard the wind of a scene pulls at hair and cloth, in [0, 1]; 0 where not named (a draught at most)."""
