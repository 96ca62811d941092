"""Votes and pairs across the workspace's border: importing votes, handing pairs out as files."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.exchange import reading
from feedback_app.exchange.attachments import SIDES, safe
from feedback_app.exchange.checking import ImportedVote, checked_vote
from feedback_app.importing import Import
from feedback_app.store import Store
from feedback_app.workspace import Workspace
from rlhf_core.files import copy_file, write_text

AUDIO = (".flac", ".wav")


@dataclass(frozen=True)
class Transfers:
    """Imports and hand-outs of one workspace."""

    store: Store
    workspace: Workspace

    def import_votes(self, path: Path, versions_as: str = "") -> Row:
        """Bad rows are reported with line and reason; the good ones go in, in one transaction.

        versions_as: put before the names of versions that come with pairs from elsewhere.
        """
        good: list[tuple[int, ImportedVote]] = []
        bad: list[Row] = []
        with reading.opened(path) as data:
            audio: dict[str, dict[str, str]] = {}
            for line, row in reading.read_votes(data):
                checked = row if isinstance(row, str) else checked_vote(row)
                if isinstance(checked, str):
                    bad.append({"line": line, "reason": checked})
                    continue
                good.append((line, checked))
                if isinstance(row, dict) and any(row.get(f"audio_{side}") for side in SIDES):
                    pair_id = checked.row["pair_id"]
                    audio.setdefault(pair_id, self._take_audio(data.parent, pair_id, row))
        refused = self.store.database.write(
            lambda cursor: Import(cursor, audio, versions_as).run(good)
        )
        rejected = sorted(bad + refused, key=lambda item: int(item["line"]))
        return {"accepted": len(good) - len(refused), "rejected": rejected}

    def _take_audio(self, folder: Path, pair_id: str, row: Row) -> dict[str, str]:
        """Copy a pair's audio from an export's folder; stored paths by side."""
        taken: dict[str, str] = {}
        for side in SIDES:
            source = _beside(folder, str(row.get(f"audio_{side}") or ""))
            if source is None:
                continue
            target = self.workspace.root / "imported" / safe(pair_id) / f"{side}{source.suffix}"
            if not target.exists():
                copy_file(source, target)
            taken[side] = self.workspace.relative(target)
        return taken

    def export_pairs(self, folder: Path) -> Row:
        """Write pairs.jsonl and the audio into a folder that holds no pairs yet."""
        listing = folder / "pairs.jsonl"
        if listing.exists():
            raise ConflictError(f"{listing} is there already; choose an empty folder")
        try:
            (folder / "audio").mkdir(parents=True, exist_ok=True)
            rows = [self._pair(pair, folder) for pair in self.store.pairs() if not pair["retired"]]
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
            write_text(listing, "".join(lines))
        except OSError as error:
            raise InvalidError(f"{folder}: cannot be written ({error})") from error
        return {"path": str(listing), "pairs": len(rows)}

    def _pair(self, pair: Row, folder: Path) -> Row:
        passage = pair["original_edl"]["passage"]
        song = self.store.song(pair["song_id"])
        row: Row = {
            "pair_id": pair["pair_id"],
            "song_id": pair["song_id"],
            "song_path": str(self.workspace.resolve(song["path"])),
            "passage": passage,
        }
        for side in ("a", "b"):
            edit = self.store.edit(pair[f"edit_{side}"])
            source = self.workspace.resolve(edit["audio_path"])
            name = f"audio/{pair['pair_id']}/{side}{source.suffix}"
            _copy(source, folder / name)
            row[f"edit_{side}"] = {
                key: edit[key] for key in ("edit_id", "policy", "actions", "duration_s", "edl")
            } | {"audio_path": name}
        source = self.workspace.resolve(pair["original_path"])
        row["original"] = {"audio_path": f"audio/{pair['pair_id']}/original{source.suffix}"}
        _copy(source, folder / row["original"]["audio_path"])
        return row


def _beside(folder: Path, name: str) -> Path | None:
    """The audio file that a row names, where it is one inside the folder."""
    try:
        source = (folder / name).resolve()
        inside = source.is_relative_to(folder.resolve())
        return source if inside and source.suffix in AUDIO and source.is_file() else None
    except (OSError, ValueError):  # too long, a null byte: no file has such a name
        return None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
