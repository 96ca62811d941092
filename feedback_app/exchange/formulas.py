"""Text that a spreadsheet would take for a formula, made harmless in CSV, and back.

A cell that begins with one of these characters may be run as a formula when the file is opened
(OWASP, "CSV Injection"): a comment of a stranger could then fetch or send something. One apostrophe
is put before it, which spreadsheets show as text. Text that begins so after apostrophes of its own
gets one more, so that taking one away gives back exactly what was there.
"""

from __future__ import annotations

import re

# With the full-width forms, which some spreadsheets read as the plain ones.
_LEADS = "=+\\-@\\t\\r\\n＝＋－＠"
_FORMULA = re.compile(f"'*[{_LEADS}]")
_HARMLESS = re.compile(f"''*[{_LEADS}]")


def harmless(text: str) -> str:
    """The text of a cell as it is written.

    >>> harmless("=1+1"), harmless("'=1"), harmless("so-so")
    ("'=1+1", "''=1", 'so-so')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def as_typed(text: str) -> str:
    """The way back of `harmless`.

    >>> as_typed("'=1+1"), as_typed("''=1"), as_typed("'tis fine")
    ('=1+1', "'=1", "'tis fine")
    """
    return text[1:] if _HARMLESS.match(text) else text
