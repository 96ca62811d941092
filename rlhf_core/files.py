"""Writing files so that a crash leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def room(path: Path) -> str:
    """How much room there is where a file could not be written, for error messages."""
    return f"{shutil.disk_usage(path.parent).free // 2**20} MB are free on its disk"


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically; NaN and infinity are refused (they are not JSON)."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(path: Path) -> Path | None:
    """Rename what stands at `path`, so that a new run never overwrites an old one's output.

    Returns the new name, or None where nothing stood.
    """
    if not path.exists():
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for count in range(1000):
        suffix = f".{stamp}" + (f"-{count}" if count else "")
        target = path.with_name(f"{path.stem}{suffix}{path.suffix}")
        if not target.exists():
            path.rename(target)
            return target
    raise FileExistsError(f"{path}: a thousand older copies stand beside it; move some away")
