"""A person's corrections of a song's beats, kept beside its cached analysis.

`cache_dir/<song_id>.beats.json` holds {"version": 1, "operations": [...]}, applied in order to the
grid that the tracker found. An operation is "double", "halve", "three_halves", "offset:N" (the
downbeat moves N beats later; N may be negative) or "bars:N" (N beats a bar). The analysis that is
cached remembers which corrections it was made with, so a change is noticed and analysed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rlhf_core.errors import AudioError
from rlhf_core.files import read_json, write_json

LEVELS: Final = ("double", "halve", "three_halves")
_OPERATION: Final = re.compile(r"double|halve|three_halves|offset:-?\d{1,2}|bars:[2-8]")


def corrections_path(cache_dir: Path, song_id: str) -> Path:
    return cache_dir / f"{song_id}.beats.json"


def check_operation(operation: str) -> str:
    """The operation itself, or AudioError."""
    if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
        raise AudioError(
            f"unknown beat correction {operation!r}; one of {', '.join(LEVELS)}, offset:N, bars:N"
        )
    return operation


def read_corrections(cache_dir: Path, song_id: str) -> tuple[str, ...]:
    """The operations of a song; () where there are none. Raises AudioError on a malformed file."""
    path = corrections_path(cache_dir, song_id)
    if not path.exists():
        return ()
    try:
        operations = read_json(path)["operations"]
        return tuple(check_operation(operation) for operation in operations)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise AudioError(
            f"{path}: not a list of beat corrections ({error}); delete it to start afresh"
        ) from error


def write_corrections(cache_dir: Path, song_id: str, operations: Sequence[str]) -> None:
    """Replace a song's corrections; an empty list removes them."""
    path = corrections_path(cache_dir, song_id)
    checked = [check_operation(operation) for operation in operations]
    if checked:
        write_json(path, {"version": 1, "operations": checked})
    else:
        path.unlink(missing_ok=True)


def add_correction(cache_dir: Path, song_id: str, operation: str) -> tuple[str, ...]:
    """Append one operation ("reset" removes all); returns the operations that now hold."""
    operations: tuple[str, ...] = ()
    if operation != "reset":
        operations = (*read_corrections(cache_dir, song_id), check_operation(operation))
    write_corrections(cache_dir, song_id, operations)
    return operations
