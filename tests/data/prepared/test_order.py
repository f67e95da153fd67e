from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from xdyna.data.prepared.manifest import ClipRow
from xdyna.data.prepared.order import MixedOrder
from xdyna.errors import OptionError

ROWS = [ClipRow(Path("v"), kind, 0, 9, Fraction(8), (8, 8)) for kind in ["human"] * 5 + ["scene"] * 3]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_the_share_is_kept_and_every_clip_comes_as_often(share: float) -> None:
    order = MixedOrder(ROWS, scene_share=share, seed=4)
    keys = [order[place] for place in range(600)]
    assert len(set(keys)) == 600, "no sample comes twice"
    counts = [sum(index == i for index, _ in keys) for i in range(8)]
    assert sum(counts[5:]) == round(600 * share)
    for kind in (counts[:5], counts[5:]):
        assert max(kind) - min(kind) <= 1
    for place in range(0, 600, 7):
        assert abs(sum(index >= 5 for index, _ in keys[:place]) - place * share) < 1


def test_places_stand_alone() -> None:
    order, again = (MixedOrder(ROWS, scene_share=0.3, seed=4) for _ in range(2))
    forwards = [order[place] for place in range(100)]
    assert [again[place] for place in reversed(range(100))] == forwards[::-1]
    assert [MixedOrder(ROWS, scene_share=0.3, seed=5)[place] for place in range(100)] != forwards
    humans = [index for index, _ in forwards if index < 5]
    assert humans[:5] != humans[5:10], "epochs are shuffled anew"


def test_epochs_are_counted() -> None:
    order = MixedOrder(ROWS, scene_share=0.5)
    assert order.epochs(20, "human") == 2
    assert order.epochs(20, "scene") == pytest.approx(10 / 3)


def test_shares_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="from 0 to 1"):
        MixedOrder(ROWS, scene_share=1.5)
    with pytest.raises(OptionError, match="no scene clips"):
        MixedOrder(ROWS[:5], scene_share=0.5)
    with pytest.raises(OptionError, match="no human clips"):
        MixedOrder(ROWS[5:], scene_share=0.5)
    assert MixedOrder(ROWS[:5], scene_share=0)[0][1] == 0
