"""Songs sent by the page in pieces, so that a broken connection costs a piece and not the song.

    POST /research/uploads?name=…&size=…&modified=…&offset=…   body: the bytes from offset on

The server decides where to go on: a piece without bytes asks, and one that does not fit is answered
409; both with `{"received": bytes so far}`. A file is known by who sends it and by its name, size
and date, so the same file chosen again after a reload goes on where it was. What is whole is kept
as `uploads/parts/<key>/<name>` until `take` hands it to the library; `uploads` tidies the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from feedback_app.errors import ConflictError, InvalidError, NotFoundError, StorageError
from feedback_app.settings import Settings

AUDIO_SUFFIXES: Final = (".wav", ".flac", ".ogg", ".mp3")
MEGABYTE: Final = 1024 * 1024
PART: Final = ".part"
KEY: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Sent:
    """A file as the browser names it."""

    who: str
    name: str
    size: int
    modified: int

    @property
    def key(self) -> str:
        told = f"{self.who}\n{self.name}\n{self.size}\n{self.modified}"
        return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:32]


@dataclass
class Receiving:
    """The pieces of one workspace's uploads."""

    root: Path
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        return self.root / "uploads" / "parts"

    def check(self, sent: Sent) -> Sent:
        """The file itself, or InvalidError with what cannot be taken."""
        name, limit = sent.name, self.settings.max_upload_mb
        if not name or name != Path(name).name or name.startswith(".") or len(name.encode()) > 200:
            raise InvalidError("this is no name of a file")
        if not name.isprintable():
            raise InvalidError("the file's name has control characters; rename it")
        if Path(name).suffix.lower() not in AUDIO_SUFFIXES:
            raise InvalidError(f"{name}: not {', '.join(AUDIO_SUFFIXES)}")
        if not 0 < sent.size <= limit * MEGABYTE:
            raise InvalidError(
                f"{name} has {sent.size / MEGABYTE:.1f} MB; between 0 and {limit} MB are taken "
                "(setting max_upload_mb)"
            )
        return sent

    def add(self, sent: Sent, offset: int, piece: bytes) -> int:
        """Append a piece (empty: only ask); how many bytes are here then.

        ConflictError where the piece does not begin there, or is too long.
        """
        with self._lock:
            path = self._path(sent)
            here = path.stat().st_size if path.exists() else 0
            if piece:
                if offset != here or here + len(piece) > sent.size:
                    raise ConflictError(f"{sent.name}: the next piece begins at byte {here}")
                self._check_room(len(piece))
                _append(path, piece)
                here += len(piece)
            if here == sent.size and path.name == PART:
                path.rename(path.with_name(sent.name))
            return here

    def take(self, key: str) -> Path:
        """The whole file behind a key."""
        found = [*(self.folder / key).glob("*")] if KEY.fullmatch(key) else []
        if len(found) != 1 or found[0].name == PART:
            raise NotFoundError("an upload is not complete; send it again")
        return found[0]

    def drop(self, key: str) -> None:
        """Forget an upload."""
        if KEY.fullmatch(key):
            shutil.rmtree(self.folder / key, ignore_errors=True)

    def _path(self, sent: Sent) -> Path:
        whole = self.folder / sent.key / sent.name
        return whole if whole.exists() else whole.with_name(PART)

    def _check_room(self, more: int) -> None:
        total = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        limit = self.settings.max_upload_total_mb
        if total + more > limit * MEGABYTE:
            raise StorageError(
                f"more than {limit} MB of uploads wait (setting max_upload_total_mb); "
                "send fewer at a time"
            )
        if shutil.disk_usage(self.root).free - more < self.settings.min_free_mb * MEGABYTE:
            raise StorageError("the disk is full; make room, then send it again")


def _append(path: Path, piece: bytes) -> None:
    """Add a piece; where it did not fit, the next one begins where the disk left off."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)
    except OSError as error:
        raise StorageError(
            f"the upload could not be written ({error.strerror}); make room, then send it again"
        ) from error


def add_routes(app: FastAPI, receiving: Receiving, who: Any) -> None:
    """The route; `who(request, role)` is the app's check of who asks."""

    @app.post("/research/uploads")
    async def upload(
        request: Request, name: str, size: int, modified: int = 0, offset: int = 0
    ) -> JSONResponse:
        account = who(request, "researcher")
        sent = receiving.check(Sent(account.name, name, size, modified))
        piece = await request.body()
        try:
            here, status = await asyncio.to_thread(receiving.add, sent, offset, piece), 200
        except ConflictError:
            here, status = await asyncio.to_thread(receiving.add, sent, 0, b""), 409
        told = {"received": here, "done": here == sent.size, "key": sent.key}
        return JSONResponse(told, status_code=status)
