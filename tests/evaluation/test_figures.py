from __future__ import annotations

import json
import math

import numpy as np
import pytest

from xdyna.evaluation.figures import Part, Tally, figure, mean, nested, paired


def test_a_mean_counts_every_clip_alike() -> None:
    found = figure([mean(1.0, 10), mean(2.0, 2), mean(6.0, 4)])
    assert found.value == pytest.approx(3)
    assert (found.clips, found.frames) == (3, 16)
    assert 1 <= found.low < 3 < found.high <= 6


def test_a_ratio_of_sums_and_a_median_of_ratios() -> None:
    sums = [(1.0, 1.0), (1.0, 1.0), (30.0, 10.0)]
    assert figure([Part("ratio", s, 1) for s in sums]).value == pytest.approx(32 / 12)
    assert figure([Part("median", s, 1) for s in sums]).value == pytest.approx(1)


def test_a_correlation_is_that_of_all_frames_together() -> None:
    generator = np.random.default_rng(0)
    clips = [generator.normal(size=(2, count)) + 5 for count in (7, 16, 3)]
    joined = np.concatenate(clips, 1)
    found = figure([paired(x, y) for x, y in clips])
    assert found.value == pytest.approx(np.corrcoef(*joined)[0, 1])
    assert found.frames == 26
    line = np.arange(8.0)
    assert figure([paired(line, 3 * line + 1)]).value == pytest.approx(1)
    assert figure([paired(line, -line)]).value == pytest.approx(-1)
    assert figure([paired(line, np.full(8, 0.3))]).value == 0, "what does not vary follows nothing"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = figure([mean(v, 1) for v in generator.normal(3, 1, 25)], draws=300, seed=trial)
        covered += found.low <= 3 <= found.high
    # Percentile intervals of 25 clips are a little too narrow.
    assert 0.87 <= covered / 200 <= 0.99


def test_a_change_is_seen_through_clips_that_differ_more() -> None:
    generator = np.random.default_rng(2)
    before = generator.normal(10, 3, 20)
    after = before + 0.5 + generator.normal(0, 0.1, 20)
    tally = Tally()
    for block, values in (("before", before), ("after", after)):
        tally.add(block, [{"error": mean(float(v), 4)} for v in values])
    found = tally.change("after", "before", "error")
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert 0.4 < found.low < found.high < 0.6
    apart = tally.figures("after")["error"]
    assert apart.high - apart.low > 10 * (found.high - found.low)
    with pytest.raises(ValueError, match="same clips"):
        figure([mean(1, 1)], less=[])


def test_few_clips_say_so() -> None:
    alone = figure([mean(2.0, 5)])
    assert alone.value == 2
    assert math.isnan(alone.low)
    nothing = figure([])
    assert math.isnan(nothing.value)
    assert nothing.rounded() == {"value": None, "low": None, "high": None, "clips": 0, "frames": 0}


def test_a_tally_keeps_blocks_apart_and_nests_names() -> None:
    tally = Tally()
    tally.add("model", [{"psnr": mean(20, 4), "by_kind.fire": mean(1, 4)}, {"psnr": mean(30, 4)}])
    tally.add("copy", [{"psnr": mean(10, 4)}])
    assert tally.blocks() == ["model", "copy"]
    report = nested(tally.figures("model"))
    assert report["psnr"]["value"] == 25
    assert report["psnr"]["frames"] == 8
    assert report["by_kind"]["fire"]["clips"] == 1
    json.dumps(report, allow_nan=False)
    assert tally.figures("absent") == {}
