"""Pseudonyms in place of annotators' names.

HMAC-SHA256 (RFC 2104) of the name under a secret that only the workspace's database holds: the same
person has the same pseudonym in every export of one workspace, in that of another one a different
one, and nobody without the secret can try names out. Which name is whose is written nowhere.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

PREFIX = "annotator-"
DIGITS = 12  # 48 bits: two of 10,000 people share one with a chance of 2 in 10 million
_MADE = re.compile(rf"{PREFIX}[0-9a-f]{{{DIGITS}}}")


def pseudonym(secret: str, name: str) -> str:
    """What stands for a name."""
    return PREFIX + hmac.new(secret.encode(), name.encode(), "sha256").hexdigest()[:DIGITS]


def pseudonyms(secret: str, people: Iterable[tuple[str, bool]]) -> dict[str, str]:
    """By name, of (name, whether the person has an account here).

    A pseudonym that came here with somebody else's export stays: it is no name, and so what is
    passed on is the same as what came.
    """
    return {
        name: pseudonym(secret, name)
        for name, has_account in people
        if has_account or not _MADE.fullmatch(name)
    }
