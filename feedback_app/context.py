"""What a run's command is built from: the workspace, and the run's folder with its songs linked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from feedback_app.errors import ConflictError
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.workspace import Workspace


@dataclass(frozen=True)
class Context:
    """What a command is built from."""

    store: Store
    workspace: Workspace
    settings: Settings
    folder: Path

    def module(self, name: str) -> list[str]:
        return [sys.executable, "-m", f"rlhf_core.{name}"]

    def data(self) -> list[str]:
        """--data_dir, --cache_dir, --output_dir of this run; links its songs."""
        link_songs(self.store, self.workspace, self.folder / "data")
        return [
            "--data_dir", str(self.folder / "data"), "--cache_dir", str(self.workspace.cache),
            "--output_dir", str(self.folder),
        ]  # fmt: skip

    def threads(self) -> list[str]:
        return ["--threads", str(self.settings.threads)]

    def path(self, stored: str) -> str:
        return str(self.workspace.resolve(stored))


def link_songs(store: Store, workspace: Workspace, data: Path) -> None:
    """train/ and test/ of a run: links to the songs that are ready, by split."""
    songs = [song for song in store.songs() if song["status"] == "ready"]
    if not any(song["split"] == "train" for song in songs):
        raise ConflictError("there is no analysed song to train on; add songs first")
    for song in songs:
        source = workspace.resolve(song["path"])
        link = data / song["split"] / f"{song['song_id']}{source.suffix.lower()}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(source, link.parent))
