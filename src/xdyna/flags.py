"""What the verbs of the command share: flags made from option dataclasses, progress bars, lines of output."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from xdyna.options import flag_of, item_types, value_type


def add_verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], **texts: str
) -> argparse.ArgumentParser:
    """A sub-parser with the flags that every verb has; `run` gets what was parsed and may return an exit status."""
    parser = verbs.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    parser.set_defaults(run=run)
    return parser


def add_options(parser: argparse.ArgumentParser, options: type, *, only: Sequence[str] | None = None) -> None:
    """One flag for every field, in groups, with the dataclass's own help text and default."""
    groups: dict[str, Any] = {}
    for entry in dataclasses.fields(options):
        if only is not None and entry.name not in only:
            continue
        rules, kind = entry.metadata, value_type(options, entry.name)
        group = groups.setdefault(rules["group"], None) or parser.add_argument_group(rules["group"])
        groups[rules["group"]] = group
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": rules["help"].replace("%", "%%")}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif kind is tuple and rules["repeat"]:
            settings |= {"action": _Again, "metavar": rules["metavar"]}
        elif kind is tuple and item_types(options, entry.name)[-1] is not Ellipsis:
            items = item_types(options, entry.name)
            settings |= {
                "nargs": len(items),
                "type": items[0],
                "action": _Together,
                "metavar": rules["metavar"],
            }
        elif kind is tuple:
            default: Any = entry.default
            settings |= {"nargs": "+", "action": _Several, "metavar": rules["metavar"] or "NAME"}
            settings["help"] += f" (default: {' '.join(default)})"
        else:
            settings |= {"type": kind, "choices": rules["choices"]}
            if rules["choices"] is None:
                settings["metavar"] = rules["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT")
            if entry.default not in (None, ""):
                settings["help"] += f" (default: {entry.default})"
        group.add_argument(flag_of(entry.name), dest=entry.name, **settings)


class _Several(argparse.Action):
    """Values of an option that takes several, apart by spaces or commas, as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        found = [part for value in values for part in value.split(",") if part]
        setattr(namespace, self.dest, tuple(dict.fromkeys(found)))


class _Again(argparse.Action):
    """One value of an option that may be given several times; all of them, as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), values))


class _Together(argparse.Action):
    """A fixed number of values, as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def given_options(chosen: argparse.Namespace, options: type) -> dict[str, Any]:
    """The options that the command line names."""
    names = {entry.name for entry in dataclasses.fields(options)}
    return {name: value for name, value in vars(chosen).items() if name in names}


class Bars:
    """A progress bar with time left for each long part, on standard error."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._part = quiet, ""
        self._bar: Any = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, part: str, done: int, total: int | None) -> None:
        """So much of a part is done."""
        if self._quiet:
            return
        if part != self._part:
            from tqdm import tqdm

            self._close()
            self._part = part
            self._bar = tqdm(desc=part, total=total, leave=True, dynamic_ncols=True, mininterval=0.2)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def say(*lines: object) -> None:
    """Print lines to standard output."""
    for line in lines:
        print(line)  # noqa: T201
