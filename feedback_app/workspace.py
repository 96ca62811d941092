"""A workspace: one folder that holds a database, songs, runs, models and exports.

    preferences.duckdb  settings.json  app.lock  songs/<song_id>/<file>  cache/  models/
    runs/<run_id>/  snapshots/<hash>.parquet  exports/

`app.lock` names the process that holds it (pid, url, token), so that a second app is refused with
words and commands find the running app. The lock is a file lock of the operating system: it ends
with the process, however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from feedback_app.errors import InvalidError, WorkspaceError
from rlhf_core.files import write_json

FOLDERS = ("songs", "cache", "models", "runs", "snapshots", "exports")


@dataclass(frozen=True)
class Holder:
    """Who holds a workspace. url is empty for a command that serves nothing."""

    pid: int
    url: str
    token: str


class Workspace:
    """Paths of a workspace, and its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock: IO[str] | None = None

    def create(self) -> None:
        """Make the folders that are missing; a new workspace is for the app's user alone."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"{self.root}: cannot be used as a workspace ({error})") from error

    @property
    def database(self) -> Path:
        return self.root / "preferences.duckdb"

    @property
    def songs(self) -> Path:
        return self.root / "songs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def _lock_path(self) -> Path:
        return self.root / ".lock"

    @property
    def _holder_path(self) -> Path:
        return self.root / "app.lock"

    def relative(self, path: Path) -> str:
        """A path as stored: relative to the workspace where it lies inside."""
        absolute = path if path.is_absolute() else self.root / path
        if absolute.is_relative_to(self.root):
            return str(absolute.relative_to(self.root))
        return str(absolute)

    def resolve(self, stored: str) -> Path:
        """The file that a stored path names."""
        return self.root / stored

    def child(self, folder: Path, name: str) -> Path:
        """A file directly in a folder, by a name that came from outside."""
        if not name or name != Path(name).name or name.startswith("."):
            raise InvalidError(f"{name!r} is not a file name")
        return folder / name

    def holder(self) -> Holder | None:
        """Who holds the workspace now, or None."""
        self.create()
        with self._lock_path.open("a+") as file:
            if _try_lock(file):
                return None
        return self._read_holder()

    def acquire(self, url: str, *, beside: bool = False) -> Holder:
        """Take the workspace for this process. Raises WorkspaceError naming who has it.

        beside: several apps with a shared database work in it; who does not get the lock is a
        further one, which leaves the runs to the one that has it (`keep`).
        """
        self.create()
        file = self._lock_path.open("a+")
        if not _try_lock(file):
            file.close()
            if beside:
                return Holder(os.getpid(), url, secrets.token_urlsafe(32))
            other = self._read_holder()
            where = f" at {other.url}" if other.url else ""
            raise WorkspaceError(
                f"{self.root} is in use by process {other.pid}{where}. "
                "Use that one, stop it first, or choose another --workspace."
            )
        self._lock = file
        return self.announce(url)

    def keep(self, holder: Holder) -> bool:
        """Whether this process looks after the workspace's runs; it takes over from one gone."""
        if self._lock is None:
            file = self._lock_path.open("a+")
            if not _try_lock(file):
                file.close()
                return False
            self._lock = file
            self._tell(holder)
        return True

    def announce(self, url: str) -> Holder:
        """Write app.lock: readable by the owner only, for it holds the token."""
        return self._tell(Holder(os.getpid(), url, secrets.token_urlsafe(32)))

    def _tell(self, holder: Holder) -> Holder:
        self._holder_path.touch(mode=0o600)
        write_json(self._holder_path, holder.__dict__)
        self._holder_path.chmod(0o600)
        return holder

    def release(self) -> None:
        if self._lock is not None:
            self._holder_path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _read_holder(self) -> Holder:
        try:
            return Holder(**json.loads(self._holder_path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, TypeError):
            return Holder(0, "", "")  # the lock is held, but its holder is only just starting


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
