"""Who a person is: proportions, skin, face, hair and clothes, as plain tensors with one row a person."""

from __future__ import annotations

import torch
from torch import Tensor

from xdyna.data.synthetic.draws import Draws, Params

HAIR_CUTS = (
    "bald",
    "buzz",
    "short",
    "fringe",
    "parted",
    "bob",
    "long",
    "wavy",
    "bun",
    "ponytail",
    "tails",
    "afro",
)
CUT_SHARES = (0.5, 0.7, 1.6, 1.2, 1.4, 1.2, 1.6, 1.2, 0.7, 0.9, 0.5, 0.7)
TOPS = ("bare", "sleeveless", "short_sleeves", "half_sleeves", "long_sleeves")
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "marble", "logo")
BOTTOMS = ("trousers", "wide_trousers", "shorts", "skirt", "long_skirt")

# Rows: length of the back hair (head radii below the centre), volume, fringe height, fringe jaggedness, wave.
_CUTS = torch.tensor(
    [
        [-0.5, 0.00, -1.5, 0.00, 0.0],
        [-0.1, 0.02, -0.68, 0.02, 0.0],
        [-0.1, 0.11, -0.55, 0.08, 0.0],
        [-0.1, 0.12, -0.30, 0.10, 0.0],
        [0.1, 0.12, -0.62, 0.04, 0.0],
        [0.8, 0.14, -0.36, 0.06, 0.0],
        [1.8, 0.12, -0.55, 0.05, 0.0],
        [1.7, 0.18, -0.50, 0.06, 0.11],
        [-0.1, 0.06, -0.66, 0.02, 0.0],
        [-0.1, 0.06, -0.62, 0.03, 0.0],
        [-0.1, 0.08, -0.42, 0.07, 0.0],
        [0.4, 0.34, -0.60, 0.03, 0.0],
    ]
)

_HAIR_COLOURS = torch.tensor(
    [
        [0.06, 0.05, 0.05], [0.16, 0.10, 0.07], [0.28, 0.17, 0.10], [0.46, 0.30, 0.16], [0.80, 0.64, 0.38],
        [0.55, 0.24, 0.11], [0.66, 0.66, 0.67], [0.22, 0.26, 0.50], [0.75, 0.36, 0.52], [0.88, 0.84, 0.76],
    ]
)  # fmt: skip


def sample_identity(draws: Draws) -> Params:
    """Draw people. Lengths of the body are shares of the standing height, those of the face of half a head."""
    uniform, colour = draws.uniform, draws.colour
    person: Params = {}

    # Body. Proportions from lifelike (head 1/7.5 of the height) to cartoon-like (1/4.5).
    head = 0.128 + 0.085 * uniform(0, 1) ** 2.2
    lengths = {
        "neck": uniform(0.018, 0.032), "torso": uniform(0.27, 0.31),
        "thigh": uniform(0.235, 0.265), "calf": uniform(0.225, 0.255),
    }  # fmt: skip
    total = head + sum(lengths.values()) + 0.03
    person |= {name: value / total for name, value in lengths.items()}
    person["head_height"] = head / total
    build = uniform(0, 1)  # slender to broad
    feminine = uniform(0, 1)
    person["feminine"] = feminine
    person["shoulder"] = 0.088 + 0.030 * build - 0.014 * feminine + uniform(0, 0.01)
    person["hip"] = 0.046 + 0.012 * build + 0.008 * feminine
    person["waist"] = 0.80 + 0.15 * build - 0.14 * feminine
    person["upper_arm"], person["forearm"] = uniform(0.150, 0.172), uniform(0.128, 0.150)
    person["hand"] = uniform(0.098, 0.116)
    person["arm_radius"] = 0.021 + 0.010 * build - 0.004 * feminine
    person["leg_radius"] = 0.036 + 0.013 * build

    # Skin: a line of tones from light to dark with a little of other hues.
    light, dark = torch.tensor([0.97, 0.82, 0.72]), torch.tensor([0.40, 0.26, 0.19])
    person["skin"] = (light + (dark - light) * uniform(0, 1, 1) ** 1.2 + 0.02 * draws.normal(3)).clamp(
        0.08, 1
    )
    person["age"] = uniform(0, 1) ** 1.6
    person["blush"] = uniform(0, 0.5)
    person["freckles"] = draws.chance(0.15) * uniform(0.2, 0.6)
    made_up = draws.chance(0.35) * feminine
    redder = torch.tensor([1.02, 0.62, 0.60])
    bold = colour((0.93, 1.03), (0.5, 0.9), (0.5, 0.9))
    person["lip"] = (person["skin"] * redder + (bold - person["skin"] * redder) * made_up[:, None]).clamp(
        0, 1
    )
    person["lashes"] = 0.35 + 0.65 * made_up + 0.2 * feminine
    person["shadow_colour"] = colour((0, 1), (0.1, 0.6), (0.3, 0.7))
    person["eye_shadow"] = made_up * uniform(0, 0.5)

    # Head and face.
    big = draws.chance(0.2)  # cartoon eyes
    person |= {
        "head_width": uniform(0.68, 0.80), "chin": uniform(0.24, 0.50), "jaw_round": uniform(0.0, 1.0),
        "eye_x": uniform(0.30, 0.36), "eye_y": uniform(-0.02, 0.10), "eye_width": uniform(0.145, 0.18),
        "eye_height": uniform(0.095, 0.145), "eye_slant": uniform(-0.03, 0.05), "iris_radius": uniform(0.078, 0.098),
        "brow_y": uniform(0.18, 0.26), "brow_thick": uniform(0.022, 0.055), "brow_arch": uniform(0.0, 0.06),
        "nose_y": uniform(0.36, 0.46), "nose_width": uniform(0.10, 0.17), "nose_out": uniform(0.14, 0.26),
        "mouth_y": uniform(0.60, 0.68), "mouth_width": uniform(0.22, 0.31), "lip_thick": uniform(0.035, 0.085),
        "ear": uniform(0.85, 1.2),
    }  # fmt: skip
    person["eye_width"] = person["eye_width"] * (1 + 0.25 * big)
    person["eye_height"] = person["eye_height"] * (1 + 0.55 * big)
    person["iris_radius"] = person["iris_radius"] * (1 + 0.45 * big)
    brown = colour((0.04, 0.10), (0.4, 0.8), (0.15, 0.45))
    person["iris"] = torch.where(
        draws.chance(0.6)[:, None] > 0, brown, colour((0.22, 0.65), (0.25, 0.75), (0.35, 0.75))
    )

    # Hair.
    cut = draws.choice(CUT_SHARES)
    style = _CUTS[cut]
    person["cut"] = cut.float()
    hairy = (cut > 0).float()
    person["hair_here"] = hairy
    person["hair_length"] = style[:, 0] + (style[:, 0] > 0.3) * uniform(-0.25, 0.7)
    person["hair_volume"] = style[:, 1] * uniform(0.7, 1.3)
    person["fringe"] = style[:, 2] + uniform(-0.06, 0.08)
    person["fringe_jag"], person["hair_wave"] = style[:, 3], style[:, 4] * uniform(0.6, 1.4)
    person["fringe_tooth"] = uniform(4, 11)
    person["part"] = torch.where(cut == 4, 1.0, 0.25) * uniform(-1, 1)
    person["locks"] = ((cut == 6) | (cut == 7)).float() * draws.chance(0.5)
    person["stubble_only"] = (cut == 1).float()
    person["hair"] = (
        _HAIR_COLOURS[draws.choice((4, 3, 2.5, 2, 1.5, 1, 1, 0.4, 0.4, 0.4))] + 0.03 * draws.normal(3)
    ).clamp(0.02, 1)
    person["hair_gloss"] = uniform(0.0, 0.6)
    person["strand"] = uniform(2.0, 6.0)
    person["hat"] = draws.chance(0.07)
    person["hat_colour"] = colour((0, 1), (0, 0.8), (0.15, 0.95))
    person["beard"] = draws.chance(0.35) * (1 - feminine).round() * uniform(0.3, 1.0)
    person["moustache"] = torch.maximum(person["beard"], draws.chance(0.12) * (1 - feminine).round())
    person["glasses"] = draws.chance(0.16)
    person["glasses_colour"] = colour((0, 1), (0, 0.5), (0.05, 0.5))
    person["glasses_size"] = uniform(0.20, 0.27)
    person["earrings"] = draws.chance(0.25) * feminine.round()

    _sample_clothes(draws, person)
    return person


def _sample_clothes(draws: Draws, person: Params) -> None:
    uniform, colour = draws.uniform, draws.colour
    neutral = draws.chance(0.4)[:, None]

    def cloth() -> Tensor:
        vivid, grey = colour((0, 1), (0.2, 0.95), (0.2, 0.98)), colour((0, 1), (0, 0.2), (0.08, 0.97))
        return vivid + (grey - vivid) * torch.where(draws.chance(0.4)[:, None] > 0, 1.0, neutral * 0.8)

    top = draws.choice((0.35, 1.2, 2.5, 1.2, 3.0))
    person["top_here"] = (top > 0).float()
    person["sleeve"] = torch.tensor([0.0, 0.0, 0.55, 1.1, 2.0])[top]  # in bones: 1 is the elbow
    person["sleeve_width"] = uniform(1.12, 1.5) + draws.chance(0.2) * 0.35
    person["puff"] = draws.chance(0.2) * (top == 2).float()
    person["top"], person["top_second"], person["bottom"] = cloth(), cloth(), cloth()
    person["pattern"] = draws.choice((4, 1.6, 1, 1.4, 1.1, 1.3, 1.5)).float()
    person["pattern_size"] = uniform(4, 12)
    person["pattern_turn"] = draws.chance(0.35)
    person["collar"] = draws.choice(
        (2.0, 1.2, 1.0, 1.0, 1.0)
    ).float()  # round, V, wide, polo neck, shirt collar
    person["neckline"] = uniform(0.7, 1.3)
    person["crop"] = torch.where(draws.chance(0.15) > 0, uniform(0.62, 0.85), uniform(1.0, 1.14))
    person["loose"] = uniform(1.0, 1.16)

    dress = draws.chance(0.28) * person["feminine"].round() * person["top_here"]
    bottom = draws.choice((3, 1.2, 1.4, 1.0, 0.6))
    person["dress"] = dress
    skirted = torch.maximum(((bottom == 3) | (bottom == 4)).float() * person["feminine"].round(), dress)
    person["skirt"] = skirted
    # Hem of the skirt: below the hips, in leg lengths.
    person["hem"] = torch.where(bottom == 4, uniform(0.55, 0.9), uniform(0.22, 0.55))
    person["flare"] = uniform(0.15, 0.75)
    person["pleats"] = uniform(4, 14)
    bare_legs = draws.chance(0.75) * skirted
    person["leg_cover"] = torch.where(
        skirted > 0, (1 - bare_legs) * 2.0, torch.where(bottom == 2, uniform(0.5, 1.0), 2.0)
    )
    person["trouser_width"] = torch.where(
        (bottom == 1) & (skirted == 0), uniform(1.3, 1.7), uniform(1.03, 1.2)
    )
    person["sock"] = draws.chance(0.35) * uniform(0.1, 0.8)
    person["sock_colour"] = colour((0, 1), (0, 0.3), (0.2, 1.0))
    person["shoe"] = colour((0, 1), (0, 0.6), (0.05, 0.95))
    person["belt"] = draws.chance(0.4) * (1 - dress)
    coat = draws.chance(0.16) * person["top_here"]
    person["coat"] = coat
    person["coat_length"] = torch.where(draws.chance(0.5) > 0, uniform(0.0, 0.1), uniform(0.3, 0.6))
    person["coat_gap"] = uniform(0.15, 0.5)
    person["coat_colour"] = cloth()
    person["sleeve"] = torch.where(coat > 0, torch.tensor(2.0), person["sleeve"])
    # A sleeve is of the coat's cloth when there is a coat.
    person["sleeve_colour"] = torch.where(coat[:, None] > 0, person["coat_colour"], person["top"])
    person["cloth_texture"] = draws.texture(2, uniform(0.9, 1.5), size=64)
    # A cuff that widens by so many arm's radii and hangs; only where the sleeve reaches the hand.
    person["bell"] = (
        draws.chance(0.22) * person["feminine"].round() * (person["sleeve"] >= 2) * uniform(0.7, 1.5)
    )
    person["scarf"] = draws.chance(0.12) * person["top_here"]
    person["scarf_colour"], person["scarf_stripe"] = cloth(), draws.chance(0.45)
    person["scarf_long"], person["scarf_side"] = uniform(0.14, 0.27), 2 * draws.chance(0.5) - 1
