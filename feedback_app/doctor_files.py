"""What is wrong with a file of the workspace, in words for the doctor; None where it is in order.

Looked at from outside, for this process loads no torch: of a checkpoint the SHA-256 that was
recorded when it was taken in, else the checksums of the zip archive that it is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from feedback_app.exchange.archive import DAMAGED
from rlhf_core.files import sha256_of

APART_S = 0.05


def file_problem(path: Path, look: Callable[[Path], str | None]) -> str | None:
    """What `look` says of a file, if it is there and can be read."""
    if not path.is_file():
        return "is missing"
    try:
        return look(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def content_problem(path: Path, digest: str) -> str | None:
    """Whether a file's SHA-256 begins so."""
    return None if sha256_of(path).startswith(digest) else "has changed since it was added"


def sound_problem(path: Path, duration_s: float | None) -> str | None:
    """Whether audio can be heard to its end, and is as long as the database says (None: unsaid).

    It is not decoded as a whole: a cut shows at the end or in the length, a changed byte does not.
    """
    import soundfile

    path.open("rb").close()  # what may not be read is an OSError, in its own words
    try:
        with soundfile.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            file.seek(max(file.frames - 1, 0))
            heard = len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        heard = False
    if not heard:
        return "is not audio, or its end is missing"
    if duration_s is not None and abs(seconds - duration_s) > APART_S:
        return f"is {seconds:.2f} s long, not {duration_s:.2f}"
    return None


def checkpoint_problem(path: Path) -> str | None:
    """Whether a checkpoint is as it was taken in."""
    return file_problem(path, _checkpoint)


def _checkpoint(path: Path) -> str | None:
    recorded = path.with_name(f"{path.name}.sha256")
    if recorded.is_file():
        if recorded.read_text(encoding="utf-8", errors="replace").split()[:1] == [sha256_of(path)]:
            return None
        return "has changed since it was taken in (its SHA-256 is another)"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except DAMAGED as error:
        return f"is damaged ({error})"
    return None if damaged is None else f"is damaged (at {damaged})"
