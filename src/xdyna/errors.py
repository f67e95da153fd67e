"""Every error that a user can cause or meet, in one tree.

::

    XdynaError
    ├── InputError        a picture, video, folder or other file given by the user
    ├── OptionError       an option's value, or two options that exclude each other
    ├── OutputError       the place results should go: exists, unwritable, disk full
    ├── WeightsError      model files: missing part, wrong shape, unknown key
    ├── ResourceError     the machine: out of memory, no such device
    └── MissingPackage    an optional package that is not installed

A message says what it is about, what is wrong and what to do about it. The command line catches
`XdynaError` only, prints the message and exits with status 2; anything else is a bug and shows its trace.
"""

from __future__ import annotations

from pathlib import Path


class XdynaError(Exception):
    """Base of every error that is the user's to mend.

    Args:
        subject: what the message is about: a file's path, an option's name, a component.
        problem: what is wrong with it, with what was got and what is allowed where that helps.
        remedy: what to do, as one sentence. May be empty where `problem` makes it plain.
    """

    def __init__(self, subject: str | Path, problem: str, remedy: str = "") -> None:
        self.subject, self.problem, self.remedy = str(subject), problem.rstrip("."), remedy.rstrip(".")
        message = f"{self.subject}: {self.problem}."
        super().__init__(f"{message} {self.remedy}." if self.remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled as a call with their message alone; worker processes hand ours on.
        return _rebuilt, (type(self), self.subject, self.problem, self.remedy)


def _rebuilt(kind: type[XdynaError], subject: str, problem: str, remedy: str) -> XdynaError:
    error = kind.__new__(kind)
    XdynaError.__init__(error, subject, problem, remedy)
    return error


class InputError(XdynaError):
    """A file or folder that the user gave cannot be used."""


class OptionError(XdynaError):
    """An option has a value that is not allowed, or does not go with another."""


class OutputError(XdynaError):
    """A result cannot be written where the user wants it."""


class WeightsError(XdynaError):
    """A model's files are missing, incomplete, or not what they should be."""


class ResourceError(XdynaError):
    """The machine lacks what the run needs: memory, a device, a number format."""


class MissingPackage(XdynaError):
    """An optional package is not installed.

    Args:
        package: the package's import name.
        purpose: what it is needed for.
        install: what follows `pip install`.
    """

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(
            package, f"this package is needed {purpose} and is not installed", f"Run: pip install {install}"
        )
