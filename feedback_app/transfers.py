"""Votes and pairs across the workspace's border: importing votes, handing pairs out as files."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from feedback_app import exchange
from feedback_app.database import Row, fetch, utc_now
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.store import Store
from feedback_app.store_accounts import ensure_annotator
from feedback_app.workspace import Workspace
from rlhf_core.files import write_text


@dataclass(frozen=True)
class Transfers:
    """Imports and hand-outs of one workspace."""

    store: Store
    workspace: Workspace

    def import_votes(self, path: Path) -> Row:
        """Bad rows are reported with line and reason; the good ones go in, in one transaction."""
        good: list[tuple[int, exchange.ImportedVote]] = []
        bad: list[Row] = []
        for line, row in exchange.read_votes(path):
            checked = row if isinstance(row, str) else exchange.checked_vote(row)
            if isinstance(checked, str):
                bad.append({"line": line, "reason": checked})
            else:
                good.append((line, checked))
        refused = self.store.database.write(lambda cursor: self._insert(cursor, good))
        rejected = sorted(bad + refused, key=lambda item: int(item["line"]))
        return {"accepted": len(good) - len(refused), "rejected": rejected}

    def _insert(self, cursor: Any, votes: list[tuple[int, exchange.ImportedVote]]) -> list[Row]:
        pairs = {row["pair_id"] for row in fetch(cursor, "SELECT pair_id FROM pairs")}
        voted = {
            (row["pair_id"], row["annotator"])
            for row in fetch(
                cursor, "SELECT pair_id, annotator FROM current_votes WHERE NOT simulated"
            )
        }
        refused: list[Row] = []
        for line, vote in votes:
            key = (vote.pair_id, vote.annotator)
            if vote.pair_id not in pairs:
                refused.append({"line": line, "reason": f"there is no pair {vote.pair_id!r}"})
            elif key in voted:
                reason = f"{vote.annotator!r} has voted on {vote.pair_id!r} already"
                refused.append({"line": line, "reason": reason})
            else:
                voted.add(key)
                self._insert_vote(cursor, vote)
        return refused

    def _insert_vote(self, cursor: Any, vote: exchange.ImportedVote) -> None:
        ensure_annotator(cursor, vote.annotator)
        now, assignment = utc_now(), uuid4().hex
        self.store.add_assignment(
            cursor,
            {
                "assignment_id": assignment,
                "pair_id": vote.pair_id,
                "annotator": vote.annotator,
                "b_first": False,
                "first_side": "left",
                "media_left": uuid4().hex,
                "media_right": uuid4().hex,
                "media_original": uuid4().hex,
                "state": "done",
                "leased_until": now,
                "created_at": now,
            },
        )
        row = {
            "vote_id": str(uuid4()),
            "assignment_id": assignment,
            "pair_id": vote.pair_id,
            "annotator": vote.annotator,
            "kind": "vote",
            "choice": vote.choice,
            "strength": vote.strength,
            "simulated": False,
            "source": "import",
            "created_at": now,
        }
        self.store.add_vote(cursor, row)

    def export_pairs(self, folder: Path) -> Row:
        """Write pairs.jsonl and the audio into a folder that holds no pairs yet."""
        listing = folder / "pairs.jsonl"
        if listing.exists():
            raise ConflictError(f"{listing} is there already; choose an empty folder")
        try:
            (folder / "audio").mkdir(parents=True, exist_ok=True)
            rows = [self._pair(pair, folder) for pair in self.store.pairs() if not pair["retired"]]
        except OSError as error:
            raise InvalidError(f"{folder}: cannot be written ({error})") from error
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        write_text(listing, "".join(lines))
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


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
