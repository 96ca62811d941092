"""Operations that look after the workspace: backup, doctor, settings."""

from __future__ import annotations

from pathlib import Path

from feedback_app.backup import write_backup
from feedback_app.database import Row
from feedback_app.doctor import examine
from feedback_app.operations_base import Base


class CareOperations(Base):
    """What keeps a workspace safe."""

    def backup(self, directory: str) -> Row:
        """A whole copy of the workspace in a new folder below `directory`, while people vote."""
        return write_backup(self.store.database, self.workspace, Path(directory))

    def doctor(self) -> Row:
        """{checked, findings}: is everything there and as it was written?"""
        return examine(self.workspace, self.store.database, self.settings.min_free_mb)
