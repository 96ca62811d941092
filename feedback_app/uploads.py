"""Where uploads lie until they are taken in: a folder of the workspace, emptied as it ages.

Gradio keeps uploads for ever, in a folder under /tmp that all users of the machine share. Here it
is inside the workspace (on the disk whose room is watched), readable by the app's user alone, and
what is a day old goes: by then it was taken into the library or the page that sent it is closed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

KEPT_S = 24 * 3600.0
EVERY_S = 3600.0


class Uploads:
    """The folder, and when it was last tidied."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "uploads"
        self._tidied = float("-inf")

    def prepare(self) -> None:
        """Make the folder and tell Gradio of it; before its pages are built."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)

    def tidy(self) -> int:
        """Remove what is old, once an hour at most; returns how many files went."""
        if time.monotonic() - self._tidied < EVERY_S:
            return 0
        self._tidied, gone = time.monotonic(), 0
        for path in sorted(self.folder.rglob("*"), reverse=True):  # inner ones first
            if time.time() - path.lstat().st_mtime < KEPT_S:
                continue
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink()
                gone += 1
        return gone
