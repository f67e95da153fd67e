"""Which clips of which case have to be made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from xdyna.synthbench.generation import Strengths

UNITS = ("self", "scene", "knob", "parts", "cross")
"""What is measured of a case; each has pictures of its own, the unit "NAME_sheets"."""
KNOBS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""What --motion is tried with."""
TOLD = ("none", *(str(knob) for knob in KNOBS), "true")
"""How the unit knob drives a case: told nothing, told each level, told the truth."""
ABLATIONS = {
    "no_adapter": Strengths(reference=0.0),
    "no_face": Strengths(face=0.0),
    "no_pose": Strengths(pose=0.0),
}
"""What the unit parts leaves out, each alone."""
MOVIES = 4
"""So many of the first cases become a video of --motion, too."""


@dataclass(frozen=True)
class Work:
    """Cases that lack the same units, to be generated together.

    Attributes:
        cases: numbers.
        units: what they lack; those of "cross" and of all others never stand together.
        ablations: which of `ABLATIONS` they are made with, too.
    """

    cases: tuple[int, ...]
    units: frozenset[str]
    ablations: tuple[str, ...] = ()

    @property
    def crossed(self) -> bool:
        """Whether others drive them."""
        return bool(self.units & {"cross", "cross_sheets"})

    @property
    def told(self) -> tuple[str, ...]:
        """In which ways of `TOLD` they are made."""
        return TOLD if self.units & {"knob", "knob_sheets"} else TOLD[:1]

    @property
    def clips(self) -> int:
        """How many clips have to be generated."""
        return len(self.cases) * (2 if self.crossed else len(self.told) + len(self.ablations))


def units_of(case: int, *, human: bool, suites: Collection[str], tellable: bool) -> list[str]:
    """What is to be known of a case.

    Args:
        case: its number.
        human: whether it shows a person.
        suites: what the user chose.
        tellable: whether the model can be told how lively a scene is.
    """
    wanted = {
        "self": human and "self" in suites,
        "scene": not human and "scene" in suites,
        "knob": tellable and "knob" in suites,
        "parts": human and "parts" in suites,
        "cross": human and "cross" in suites,
    }
    units = [name for name, is_wanted in wanted.items() if is_wanted]
    if "sheets" in suites:
        own = [f"{'self' if human else 'scene'}_sheets"]
        if set(suites) == {"sheets"}:
            return own
        shown = {
            own[0]: any(wanted[name] for name in ("self", "scene", "knob", "parts")),
            "knob_sheets": wanted["knob"] and case < MOVIES,
            "parts_sheets": wanted["parts"],
            "cross_sheets": wanted["cross"],
        }
        units += [name for name, is_shown in shown.items() if is_shown]
    return units


def work_of(
    units: dict[int, list[str]],
    *,
    is_known: Callable[[str, int], bool],
    batch: int,
    ablations: tuple[str, ...] = tuple(ABLATIONS),
) -> list[Work]:
    """What is still to be done, in groups of at most `batch` cases that lack the same.

    Args:
        units: for each case what is to be known of it.
        is_known: whether a unit of a case is.
        batch: largest group.
        ablations: what the model has that can be left out.
    """
    groups: dict[frozenset[str], list[int]] = {}
    for case, wanted in units.items():
        missing = {unit for unit in wanted if not is_known(unit, case)}
        crossed = missing & {"cross", "cross_sheets"}
        for part in (missing - crossed, crossed):
            if part:
                groups.setdefault(frozenset(part), []).append(case)
    return [
        Work(tuple(some), part, ablations if part & {"parts", "parts_sheets"} else ())
        for part, cases in groups.items()
        for some in _split(cases, batch)
    ]


def _split(cases: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for begin in range(0, len(cases), size):
        yield cases[begin : begin + size]
