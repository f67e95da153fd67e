"""Files that are there when read, and whole when written.

Everything xdyna writes goes to a temporary name in the folder of the result and gets its final name, by
`os.replace`, only when it is complete. An error or Ctrl-C leaves neither a half file nor the temporary one.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from xdyna.errors import InputError, OutputError


def existing_file(path: str | Path, kind: str) -> Path:
    """The path of a file that is there and not empty.

    Args:
        path: the file.
        kind: what it should be, with its article, for the message: "a picture".

    Raises:
        InputError: no such file, a folder, an empty file, or one that may not be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(path, f"is a folder, not {kind}", "Give the path of one file")
    if not path.exists():
        raise InputError(path, "no such file", "Check the path")
    if not path.is_file():
        raise InputError(path, f"is not a regular file, so it cannot be {kind}", "Give the path of one file")
    if not os.access(path, os.R_OK):
        raise InputError(path, "may not be read", "Check the file's permissions")
    if path.stat().st_size == 0:
        raise InputError(path, "is empty (0 bytes)", "Download or export it again")
    return path


def check_output(path: str | Path, *, overwrite: bool = False) -> Path:
    """Check early, before any long work, that a result may get this name; make its folder when missing.

    Returns:
        The path, with a leading `~` expanded.

    Raises:
        OutputError: the name is taken and `overwrite` is off, is a folder's, or its folder cannot be made.
    """
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise OutputError(path, "exists already", "Choose another name, or pass --overwrite")
    if path.is_dir():
        raise OutputError(path, "is a folder", "Give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return path


def write_failure(path: str | Path, error: OSError) -> OutputError:
    """What went wrong while writing `path`, said to the user.

    PyAV's errors are OSErrors too, so that one table serves pictures, text and videos.
    """
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            path, f"cannot be written: no room left ({reason})", "Free some space, or write elsewhere"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            path, f"cannot be written: not allowed ({reason})", "Choose a folder you may write in"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(path, "cannot be written: a part of its path is a file", "Choose another folder")
    return OutputError(path, f"cannot be written ({reason})", "Check the path and the disk")


@contextlib.contextmanager
def whole_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well, and vanishes otherwise.

    Args:
        path: the final name.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputError: see `check_output`; or any OSError of the block, e.g. a full disk. So keep the block to
            writing.
    """
    path = check_output(path, overwrite=overwrite)
    temporary = temporary_file(path)
    try:
        yield temporary
        publish(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        remove(temporary)


def temporary_file(path: Path) -> Path:
    """Make an empty file beside `path`, with the same suffix and a hidden name of its own.

    That the file is made shows an unwritable folder before the work and not after it.

    Raises:
        OutputError: no file can be made there.
    """
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        # Not mkstemp: its mode 0600 would hide the result from everybody else.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_failure(path, error) from error
    return temporary


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that a process which was killed left for `path`; nobody may be writing it."""
    with contextlib.suppress(OSError):
        for found in path.parent.glob(f".{glob.escape(path.stem[:40])}-*.tmp{path.suffix}"):
            if re.fullmatch(r"-[0-9a-f]{12}\.tmp", found.name[1 + len(path.stem[:40]) : -len(path.suffix)]):
                found.unlink(missing_ok=True)


def temporary_folder(path: Path) -> Path:
    """Make an empty folder beside `path`, with a hidden name of its own.

    Raises:
        OutputError: no folder can be made there.
    """
    folder = path.with_name(f".{path.name[:40]}-{uuid.uuid4().hex[:12]}.tmp")
    try:
        folder.mkdir()
    except OSError as error:
        raise write_failure(path, error) from error
    return folder


def publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a complete file or folder its final name.

    Raises:
        OutputError: the name was taken while the work went on, and `overwrite` is off.
    """
    if path.exists() and not overwrite:
        raise OutputError(
            path, "appeared while the result was being made", "Choose another name, or pass --overwrite"
        )
    os.replace(temporary, path)


def remove(path: Path) -> None:
    """Remove a file or a folder that may be gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any, *, overwrite: bool = True) -> Path:
    """Write a value as JSON, two spaces deep, UTF-8, keys in the order given.

    Paths become text, fractions become "30000/1001", numpy scalars become numbers.

    Returns:
        The path written.

    Raises:
        OutputError: it cannot be written, or exists and `overwrite` is off.
        TypeError, ValueError: the value has no JSON form (NaN has none).
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path).expanduser()


def _plain(value: Any) -> Any:
    if isinstance(value, Path | Fraction):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing, empty, a folder, or not JSON; the message names line and column.
    """
    path = existing_file(path, "a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(path, f"is not valid JSON ({where})", "Mend the file, or write it again") from None
    except UnicodeDecodeError:
        raise InputError(path, "is not text in UTF-8, so it cannot be JSON", "Give another file") from None
    except (RecursionError, ValueError) as error:  # brackets by the thousand, numbers of as many digits
        raise InputError(path, f"is no JSON that can be read ({error})", "Give another file") from None
