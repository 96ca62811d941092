"""Putting imported votes into the database: those about pairs that are here, and those that bring
their pairs along.

A pair that is not here is taken in when its row tells its edits: as retired (nobody is given it),
its song, where it is not here either, as one whose file is missing. All rows of one import go in by
one transaction, a few statements in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from feedback_app import store_imports
from feedback_app.cursors import first_row
from feedback_app.database import Row, utc_now
from feedback_app.exchange.checking import ImportedVote
from feedback_app.exchange.other_forms import UNKNOWN_SONG
from feedback_app.json_columns import dumps
from rlhf_core.editing.edl import EDL

Numbered = tuple[int, ImportedVote]
KNOWN = " is here already"  # how the reason ends for a vote that was taken in before
NO_SONG = "its votes were imported; add the song's file to listen and to train on it"


@dataclass
class Import:
    """One import, planned row by row, then written. audio: stored paths by pair and side."""

    cursor: Any
    audio: dict[str, dict[str, str]]
    versions_as: str = ""
    refused: list[Row] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(
        default_factory=lambda: {name: [] for name in store_imports.INSERT_ORDER}
    )

    def __post_init__(self) -> None:
        self._pairs = store_imports.known_pairs(self.cursor)
        self._ids, self._voted = store_imports.known_votes(self.cursor)
        self._known = store_imports.known_names(self.cursor)
        self._actions: dict[str, str | None] = {}
        self._now = utc_now()

    def run(self, votes: list[Numbered]) -> list[Row]:
        """Take in what can be; the others as {line, reason}."""
        pools = {v.row["pair_id"]: v.row["pool"] for _, v in votes if v.row["pool"] != "repeat"}
        for line, vote in votes:
            reason = self._refuses(vote)
            if reason is not None:
                self.refused.append({"line": line, "reason": reason})
                continue
            if vote.row["pair_id"] not in self._pairs:
                self._add_pair(vote, pools.get(vote.row["pair_id"]) or "random")
            self._add_vote(vote)
        numbers = store_imports.vote_numbers(self.cursor, len(self.tables["votes"]))
        for row, number in zip(self.tables["votes"], numbers, strict=True):
            row["seq"] = number
        for table in store_imports.INSERT_ORDER:
            store_imports.insert_rows(self.cursor, table, self.tables[table])
        return self.refused

    def _refuses(self, vote: ImportedVote) -> str | None:
        row = vote.row
        if row["vote_id"] in self._ids:
            return f"vote {row['vote_id']}{KNOWN}"
        if vote.key in self._voted:
            return f"{row['annotator']!r} has voted on {row['pair_id']!r} already"
        pair = self._pairs.get(row["pair_id"])
        if pair is not None:
            return self._differs(row, pair)
        if not vote.tells_pair:
            if row["policy_a"] is None or row["policy_b"] is None:
                return f"there is no pair {row['pair_id']!r}"
            row["edit_a"], row["edit_b"] = f"{row['pair_id']}-a", f"{row['pair_id']}-b"
        return self._collides(row)

    def _differs(self, row: Row, pair: Row) -> str | None:
        for name in ("edit_a", "edit_b", "policy_a", "policy_b"):
            renamed = f"{self.versions_as}{row[name]}" if name.startswith("policy") else row[name]
            if row[name] is not None and pair[name] not in (row[name], renamed):
                return (
                    f"pair {row['pair_id']!r} is another one here: its {name} is {pair[name]!r}, "
                    f"not {row[name]!r}"
                )
        return None

    def _collides(self, row: Row) -> str | None:
        """Why a pair that is not here cannot be taken in."""
        for side in ("a", "b"):
            version = f"{self.versions_as}{row[f'policy_{side}']}"
            if version in self._known["policies"]:
                return (
                    f"pair {row['pair_id']!r} is not from here, and {version!r} is the name of "
                    "another version here; import with a prefix for versions"
                )
            edit_id, actions = row[f"edit_{side}"], dumps(row[f"actions_{side}"] or [])
            if self._stored_actions(edit_id) not in (None, actions):
                return f"edit {edit_id!r} is another one here"
        return None

    def _stored_actions(self, edit_id: str) -> str | None:
        if edit_id not in self._actions:
            self._actions[edit_id] = None
            if edit_id in self._known["edits"]:
                self.cursor.execute("SELECT actions FROM edits WHERE edit_id = ?", [edit_id])
                self._actions[edit_id] = first_row(self.cursor)[0]
        return self._actions[edit_id]

    def _add_pair(self, vote: ImportedVote, pool: str) -> None:
        row = vote.row
        song_id = row["song_id"] or UNKNOWN_SONG
        if song_id not in self._known["songs"]:
            self._known["songs"].add(song_id)
            self.tables["songs"].append(self._song(row, song_id))
        start, end = row["start_beat"] or 0, row["end_beat"] or 0
        audio = self.audio.get(row["pair_id"], {})
        for side, edl in (("a", vote.edl_a), ("b", vote.edl_b)):
            edit_id = row[f"edit_{side}"]
            if self._stored_actions(edit_id) is None:
                edit = self._edit(row, side, edl, song_id, audio.get(side, ""))
                self._actions[edit_id] = edit["actions"]
                self.tables["edits"].append(edit)
        original = _edl(vote.edl_original, start, end)
        if row["bar_phase"] is not None:
            original["bar_phase"] = row["bar_phase"]
        self.tables["pairs"].append(
            {
                "pair_id": row["pair_id"],
                "song_id": song_id,
                "edit_a": row["edit_a"],
                "edit_b": row["edit_b"],
                "original_path": audio.get("original", ""),
                "original_duration_s": original["duration_s"],
                "original_edl": dumps(original),
                "pool": pool,
                "regions_a": "[]",
                "regions_b": "[]",
                "created_at": self._now,
                "retired": True,
                "beats_changed": False,
            }
        )
        names = ("edit_a", "edit_b")
        versions = {
            f"policy_{side}": f"{self.versions_as}{row[f'policy_{side}']}" for side in ("a", "b")
        }
        self._pairs[row["pair_id"]] = {name: row[name] for name in names} | versions

    def _song(self, row: Row, song_id: str) -> Row:
        return {
            "song_id": song_id,
            "path": "",
            "title": row["song_title"] or f"song {song_id}",
            "split": row["split"] or "train",
            "status": "failed",
            "error": NO_SONG,
            "synthetic": bool(row["song_synthetic"]),
            "added_at": self._now,
        }

    def _edit(self, row: Row, side: str, edl: EDL | None, song_id: str, audio: str) -> Row:
        start, end = row["start_beat"] or 0, row["end_beat"] or 0
        told = _edl(edl, start, end)
        return {
            "edit_id": row[f"edit_{side}"],
            "song_id": song_id,
            "start_beat": start,
            "end_beat": end,
            "policy": f"{self.versions_as}{row[f'policy_{side}']}",
            "preset": row[f"preset_{side}"],
            "temperature": row[f"temperature_{side}"],
            "seed": row[f"seed_{side}"],
            "actions": dumps(row[f"actions_{side}"] or []),
            "edl": dumps(told),
            "audio_path": audio,
            "duration_s": row[f"duration_{side}"] or told["duration_s"],
        }

    def _add_vote(self, vote: ImportedVote) -> None:
        row = vote.row
        self._ids.add(row["vote_id"])
        self._voted.add(vote.key)
        self._add_annotator(row)
        assignment = None
        if not row["simulated"] or row["b_first"]:
            assignment = uuid4().hex
            self.tables["assignments"].append(self._assignment(row, assignment))
        self.tables["votes"].append(
            {
                "vote_id": row["vote_id"],
                "assignment_id": assignment,
                "pair_id": row["pair_id"],
                "annotator": row["annotator"],
                "kind": "vote",
                "choice": row["choice"],
                "strength": row["strength"],
                "comment": row["comment"],
                "response_ms": row["response_ms"],
                "simulated": row["simulated"],
                "source": row["source"],
                "created_at": row["created_at"],
                "repeat": row["pool"] == "repeat",
                **{name: dumps(row[name]) for name in ("tags", "flags", "listened", "client")},
            }
        )

    def _add_annotator(self, row: Row) -> None:
        if row["annotator"] not in self._known["annotators"]:
            self._known["annotators"].add(row["annotator"])
            self.tables["annotators"].append(
                {
                    "name": row["annotator"],
                    "role": "annotator",
                    "created_at": self._now,
                    "disabled": False,
                    "weight": row["annotator_weight"] or 1.0,
                }
            )

    def _assignment(self, row: Row, assignment_id: str) -> Row:
        first = (row["listened"] or {}).get("first_side")
        return {
            "assignment_id": assignment_id,
            "pair_id": row["pair_id"],
            "annotator": row["annotator"],
            "b_first": row["b_first"],
            "first_side": first if first in ("left", "right") else "left",
            "media_left": uuid4().hex,
            "media_right": uuid4().hex,
            "media_original": uuid4().hex,
            "state": "done",
            "leased_until": self._now,
            "created_at": self._now,
        }


def _edl(edl: EDL | None, start: int, end: int) -> Row:
    """An edit decision list as stored; an empty one where the file does not tell it."""
    if edl is not None:
        return edl.to_json()
    passage = {"start_beat": start, "end_beat": end, "start_s": 0.0, "end_s": 0.0}
    return {"version": 1, "passage": passage, "duration_s": 0.0, "segments": [], "beats": []}
