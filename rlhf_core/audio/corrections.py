"""A person's corrections of a song's beats, kept beside its cached analysis.

`cache_dir/<song_id>.beats.json` holds {"version": 1, "operations": [...]}, applied in order to the
grid that the tracker found. An operation is "double", "halve", "three_halves", "offset:N" (the
downbeat moves N beats later; N may be negative), "bars:N" (N beats a bar) or "tap:T,T,..." (the
times in seconds at which somebody tapped, the first on a downbeat), which replaces all that was
said before. The analysis that is
cached remembers which corrections it was made with, so a change is noticed and analysed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from rlhf_core.errors import AudioError
from rlhf_core.files import read_json, write_json
from rlhf_core.types import DoubleArray

MIN_TAPS: Final = 4
SHORTEST_TAP_S, LONGEST_TAP_S = 0.2, 2.0
LEVELS: Final = ("double", "halve", "three_halves")
_OPERATION: Final = re.compile(r"double|halve|three_halves|offset:-?\d{1,2}|bars:[2-8]|tap:[\d.,]+")


def corrections_path(cache_dir: Path, song_id: str) -> Path:
    return cache_dir / f"{song_id}.beats.json"


def check_operation(operation: str) -> str:
    """The operation itself, or AudioError."""
    if not isinstance(operation, str) or not _OPERATION.fullmatch(operation):
        raise AudioError(
            f"unknown beat correction {operation!r}; one of {', '.join(LEVELS)}, offset:N, bars:N, "
            "tap:T,T,T,T"
        )
    if operation.startswith("tap:"):
        taps_of(operation)
    return operation


def tapped_line(taps: Sequence[float]) -> tuple[DoubleArray, float]:
    """(even beat times through the taps, beat period). A missed tap is a gap of two periods."""
    times = np.asarray(taps, dtype=np.float64)
    if len(times) < MIN_TAPS or not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
        raise AudioError(f"{len(times)} taps; at least {MIN_TAPS} at growing times are needed")
    period = float(np.median(np.diff(times)))
    place = np.concatenate([[0], np.cumsum(np.round(np.diff(times) / period))])
    if not SHORTEST_TAP_S <= period <= LONGEST_TAP_S or np.any(np.diff(place) < 1):
        raise AudioError(
            f"taps about {period:.2f} s apart, or uneven, are no beat; tap once on every beat, "
            f"{SHORTEST_TAP_S} to {LONGEST_TAP_S} s apart"
        )
    period, start = np.polyfit(place, times, 1)
    line = start + period * np.arange(int(place[-1]) + 1)
    return np.maximum(line, 0.0), float(period)


def tap_operation(times: Sequence[float]) -> str:
    """The operation that stands for tapped times (seconds). Raises AudioError where they are no
    beat."""
    tapped_line(times)
    return "tap:" + ",".join(f"{time:.3f}" for time in times)


def taps_of(operation: str) -> tuple[float, ...]:
    """The times of a "tap:..." operation, checked."""
    try:
        times = tuple(float(time) for time in operation.removeprefix("tap:").split(","))
    except ValueError as error:
        raise AudioError(f"{operation!r}: taps are seconds between commas ({error})") from error
    tapped_line(times)
    return times


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
    if operation.startswith("tap:"):
        operations = (check_operation(operation),)
    elif operation != "reset":
        operations = (*read_corrections(cache_dir, song_id), check_operation(operation))
    write_corrections(cache_dir, song_id, operations)
    return operations


def add_taps(cache_dir: Path, song_id: str, times: Sequence[float]) -> tuple[str, ...]:
    """Correct a song's beats by tapped times (seconds); what was corrected before is dropped."""
    return add_correction(cache_dir, song_id, tap_operation(times))
