"""One method for each thing that a button or a command does: the app's own interface.

Arguments are plain, results can be written as JSON. The tabs call these methods directly, commands
call them over loopback when an app is running and directly when none is. Mistakes raise AppError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback_app.auth import (
    MIN_PASSWORD,
    ROLES,
    Sessions,
    check_name,
    generate_password,
    hash_password,
)
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.workspace import Workspace

CONTROLS = frozenset(
    {
        "add_user",
        "set_password",
        "list_annotators",
        "pairs_overview",
        "list_songs",
        "set_split",
    }
)


class Operations:
    """Everything that people and commands can ask of the app."""

    def __init__(
        self, store: Store, workspace: Workspace, settings: Settings, sessions: Sessions
    ) -> None:
        self.store = store
        self.workspace = workspace
        self.settings = settings
        self.sessions = sessions

    # People

    def list_annotators(self) -> list[Row]:
        return [plain(row) for row in self.store.annotators()]

    def add_user(self, name: str, role: str, password: str | None = None) -> dict[str, str]:
        """A new account; the password is made up where none is given, and told only here."""
        if role not in ROLES:
            raise InvalidError(f"role {role!r} is not one of {', '.join(ROLES)}")
        check_name(name)
        chosen = _password(password)
        self.store.add_annotator(name, role, hash_password(chosen))
        return {"name": name, "role": role, "password": chosen}

    def set_password(self, name: str, password: str | None = None) -> dict[str, str]:
        """A new password; ends the account's sessions."""
        chosen = _password(password)
        self.store.update_annotator(name, "password", hash_password(chosen))
        self.sessions.forget()
        return {"name": name, "password": chosen}

    def set_disabled(self, name: str, disabled: bool) -> dict[str, Any]:
        """Shut an account out, or let it in again."""
        others = [
            row
            for row in self.store.annotators()
            if row["role"] == "researcher" and not row["disabled"] and row["name"] != name
        ]
        row = self.store.annotator(name)
        if disabled and row is not None and row["role"] == "researcher" and not others:
            raise ConflictError(f"{name} is the only researcher; add another one first")
        self.store.update_annotator(name, "disabled", disabled)
        self.sessions.forget()
        return {"name": name, "disabled": disabled}

    # Songs and pairs

    def list_songs(self) -> list[Row]:
        return [plain(row) for row in self.store.songs()]

    def set_split(self, song_id: str, split: str) -> dict[str, str]:
        if split not in ("train", "test"):
            raise InvalidError(f"split {split!r} is not train or test")
        self.store.set_split(song_id, split)
        return {"song_id": song_id, "split": split}

    def pairs_overview(self) -> dict[str, int]:
        return dict(self.store.pool_counts(self.settings.votes_per_pair))

    def empty_message(self) -> str:
        """What an annotator is told when there is no pair to give."""
        if self.pairs_overview()["total"] == 0:
            return "There are no pairs yet. The researcher is told how to make some."
        return "You have heard every pair that is waiting. Thank you; come back later for more."

    # Files for the routes

    def media_path(self, media: str, name: str, researcher: bool) -> Path:
        """The audio behind an opaque name, for its annotator or a researcher."""
        row = self.store.assignment_of_media(media)
        if row is None or (row["annotator"] != name and not researcher):
            raise NotFoundError("there is no such audio, or it is not yours to hear")
        pair = self.store.pair(row["pair_id"])
        if media == row["media_original"]:
            return self.workspace.resolve(pair["original_path"])
        left = media == row["media_left"]
        edit = pair["edit_b"] if left == row["b_first"] else pair["edit_a"]
        return self.edit_audio(edit)

    def edit_audio(self, edit_id: str) -> Path:
        return self.workspace.resolve(self.store.edit(edit_id)["audio_path"])

    def original_audio(self, pair_id: str) -> Path:
        return self.workspace.resolve(self.store.pair(pair_id)["original_path"])

    def export_file(self, name: str) -> Path:
        return self.workspace.child(self.workspace.exports, name)


def plain(row: Row) -> Row:
    """A row that JSON can write: times become ISO text in UTC."""
    return {
        name: value.isoformat() + "Z" if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }


def _password(password: str | None) -> str:
    chosen = password or generate_password()
    if len(chosen) < MIN_PASSWORD:
        raise InvalidError(f"a password has at least {MIN_PASSWORD} characters")
    return chosen
