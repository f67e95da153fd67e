"""Anonymous names and random orders that follow from a seed: keyed hashes, so that they never change.

Neither Python's nor numpy's shuffles promise the same order in later versions; sorting by HMAC-SHA256 does.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable

_CODE = re.compile(r"[A-Z0-9][A-Z0-9_-]{0,31}")


def keyed(secret: str, *parts: str) -> str:
    """A hash of some names, 64 hexadecimal digits, that nobody without the secret can compute."""
    # JSON keeps ("a", "bc") and ("ab", "c") apart
    return hmac.new(secret.encode(), json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def anonymous(seed: int, *parts: str) -> str:
    """An anonymous name of 16 hexadecimal digits for something of a study."""
    return keyed(str(seed), "name", *parts)[:16]


def shuffled(secret: str, names: Iterable[str], *context: str) -> list[str]:
    """Names in a random order that follows from the secret and the context (participant, case)."""
    return sorted(names, key=lambda name: keyed(secret, "order", *context, name))


def participant_code(text: object) -> str | None:
    """A participant's code as it is stored: upper case, 1 to 32 of A-Z 0-9 _ -; None for anything else.

    Capitals and spaces round it make no difference, so that p07 and P07 are one person.
    """
    if not isinstance(text, str) or not text.isascii():
        return None
    code = text.strip().upper()
    return code if _CODE.fullmatch(code) else None
