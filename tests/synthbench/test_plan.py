from __future__ import annotations

from xdyna.synthbench.options import SUITES
from xdyna.synthbench.plan import ABLATIONS, TOLD, Work, units_of, work_of


def test_units_follow_case_and_suites() -> None:
    everything = units_of(0, human=True, suites=SUITES, tellable=True)
    assert set(everything) == {"self", "knob", "parts", "cross", "self_sheets", "knob_sheets", "parts_sheets",
                               "cross_sheets"}  # fmt: skip
    assert units_of(9, human=False, suites=SUITES, tellable=False) == ["scene", "scene_sheets"]
    assert units_of(9, human=False, suites=("self", "cross", "parts", "sheets"), tellable=True) == []
    assert units_of(9, human=True, suites=("cross", "sheets"), tellable=True) == ["cross", "cross_sheets"]
    assert units_of(9, human=True, suites=("sheets",), tellable=True) == ["self_sheets"]
    assert units_of(9, human=False, suites=("sheets",), tellable=True) == ["scene_sheets"]


def test_cases_that_lack_the_same_are_made_together() -> None:
    units = {0: ["self", "cross"], 1: ["scene"], 2: ["self", "cross"], 3: ["self", "parts"], 4: ["self"]}
    done = {("self", 2), ("self", 3)}
    work = work_of(units, is_known=lambda unit, case: (unit, case) in done, batch=8)
    assert {(one.cases, one.units) for one in work} == {
        ((0, 4), frozenset({"self"})), ((0, 2), frozenset({"cross"})), ((1,), frozenset({"scene"})),
        ((3,), frozenset({"parts"})),
    }  # fmt: skip
    assert sum(one.clips for one in work) == 2 + 4 + 1 + 4
    single = work_of(units, is_known=lambda unit, case: False, batch=1, ablations=("no_pose",))
    assert all(len(one.cases) == 1 for one in single)
    assert [one.ablations for one in single if "parts" in one.units] == [("no_pose",)]


def test_clips_are_counted_as_they_are_made() -> None:
    assert Work((1, 2), frozenset({"self"})).clips == 2
    assert Work((1, 2), frozenset({"self", "knob"})).clips == 2 * len(TOLD)
    assert Work((1,), frozenset({"parts"}), tuple(ABLATIONS)).clips == 1 + len(ABLATIONS)
    assert Work((1, 2, 3), frozenset({"cross_sheets"})).clips == 6
