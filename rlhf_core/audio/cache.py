"""The folder of cached analyses: one process at a time per song, its size, emptying it.

`<song_id>.npz` is an analysis (it can be made again), `<song_id>.beats.json` a person's corrections
(they cannot: emptying the cache leaves them), `.<song_id>.lock` is held by the process that is
analysing the song, so that a second one waits for the result instead of doing the work twice. Locks
belong to the operating system and end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ANALYSIS: Final = re.compile(r"[0-9a-f]{16}\.npz")
# what a process that was killed while writing leaves behind
_LEFTOVER: Final = re.compile(r"\.[0-9a-f]{16}\.[0-9a-f]{8}\.npz")


@dataclass(frozen=True)
class CacheStatus:
    """What a cache folder holds."""

    folder: Path
    songs: int
    bytes: int
    leftovers: int
    corrections: int

    def __str__(self) -> str:
        text = f"{self.folder}: {self.songs} analysed songs, {self.bytes / 1e6:.1f} MB"
        if self.corrections:
            text += f", beats of {self.corrections} corrected by hand"
        if self.leftovers:
            text += f", {self.leftovers} unfinished files"
        return text


@contextmanager
def song_lock(cache_dir: Path, song_id: str) -> Iterator[None]:
    """Hold the song against every other process; waits until it is free."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / f".{song_id}.lock"
    handle = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    """A file descriptor that holds the lock on the file that stands at `path` now."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # who held it before may have removed it meanwhile: then it locks nothing any more
        if _same(handle, path):
            return handle
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _size(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # another process was quicker
            continue
    return total


def cache_status(folder: Path) -> CacheStatus:
    """What the folder holds; a missing folder holds nothing."""
    files = _files(folder)
    songs = [path for path in files if _ANALYSIS.fullmatch(path.name)]
    left = [path for path in files if _LEFTOVER.fullmatch(path.name)]
    corrections = [path for path in files if path.name.endswith(".beats.json")]
    return CacheStatus(folder, len(songs), _size(songs + left), len(left), len(corrections))


def clear_cache(folder: Path) -> CacheStatus:
    """Remove the analyses (never the corrections); returns what there was."""
    before = cache_status(folder)
    for path in _files(folder):
        if _ANALYSIS.fullmatch(path.name) or _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return before
