"""What an annotator does: take the next pair, vote, undo. All of it on the writer thread.

A vote's UUID comes from the browser: the same UUID with the same content is acknowledged again,
with other content it is refused. An undo may arrive before the vote that it undoes. The answer
to a vote holds the next assignment, leased in the same transaction, so one commit serves both.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from feedback_app.database import Row, utc_now
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.scheduling import (
    Candidate,
    choose,
    new_assignment,
    removed_ranges,
    required_seconds,
    to_edit_choice,
    to_side_choice,
)
from feedback_app.settings import Settings
from feedback_app.store import Store

SIDE_CHOICES = ("left", "right", "tie", "both_bad", "skip")
MAX_OPEN = 4
MAX_COMMENT = 2000
EXPIRY_CHECK_S = 5.0
PAIRS_KEPT = 500


@dataclass(frozen=True)
class VoteForm:
    """A vote as the browser sends it, checked."""

    vote_id: str
    assignment_id: str
    choice: str
    strength: int | None = None
    tags: tuple[str, ...] = ()
    comment: str = ""
    listened: dict[str, Any] = field(default_factory=dict)
    response_ms: int | None = None
    client_version: str = ""

    def __post_init__(self) -> None:
        check_uuid(self.vote_id, "vote_id")
        if self.choice not in SIDE_CHOICES:
            raise InvalidError(f"choice {self.choice!r} is not one of {', '.join(SIDE_CHOICES)}")
        if self.strength is not None and self.strength not in (1, 2, 3):
            raise InvalidError(f"strength {self.strength!r} is not 1, 2, 3 or null")
        if self.strength is not None and self.choice not in ("left", "right"):
            raise InvalidError(f"a choice of {self.choice!r} has no strength")
        if len(self.comment) > MAX_COMMENT:
            raise InvalidError(f"the comment is longer than {MAX_COMMENT} characters")
        if len(self.tags) > 20 or any(len(tag) > 60 for tag in self.tags):
            raise InvalidError("at most 20 tags of at most 60 characters")


def check_uuid(text: str, name: str) -> str:
    """The UUID in its usual writing, or InvalidError."""
    try:
        return str(UUID(text))
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidError(f"{name} {text!r} is not a UUID") from error


class Annotation:
    """The annotator's side of the store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.rng = random.Random()
        self._expired_at = float("-inf")
        self._pairs: dict[str, tuple[Row, dict[str, Row]]] = {}

    def next(self, annotator: str, exclude: tuple[str, ...] = ()) -> Future[Row | None]:
        """Lease (or find again) an assignment; None where nothing is left for this annotator."""
        return self.store.database.submit(lambda cursor: self._next(cursor, annotator, exclude))

    def vote(self, annotator: str, form: VoteForm, exclude: tuple[str, ...] = ()) -> Future[Row]:
        """Store a vote; the result is what the browser is told once it is committed."""
        return self.store.database.submit(
            lambda cursor: self._vote(cursor, annotator, form, exclude)
        )

    def undo(self, annotator: str, vote_id: str, undoes: str) -> Future[Row]:
        """Take a vote back; its assignment is open again."""
        check_uuid(vote_id, "vote_id"), check_uuid(undoes, "undoes")
        return self.store.database.submit(
            lambda cursor: self._undo(cursor, annotator, vote_id, undoes)
        )

    def my_votes(self, annotator: str) -> list[Row]:
        """The annotator's own current votes, in terms of the sides as they were shown."""
        out = []
        for row in self.store.votes_of(annotator):
            b_first = bool(row.pop("b_first"))
            created = row["created_at"].isoformat() + "Z"
            out.append(
                row | {"choice": to_side_choice(row["choice"], b_first), "created_at": created}
            )
        return out

    def _lease(self) -> timedelta:
        return timedelta(minutes=self.settings.lease_minutes)

    def _next(
        self,
        cursor: Any,
        annotator: str,
        exclude: tuple[str, ...],
        progress: Row | None = None,
    ) -> Row | None:
        now = utc_now()
        if time.monotonic() - self._expired_at > EXPIRY_CHECK_S:
            self.store.abandon_expired(cursor, now)
            self._expired_at = time.monotonic()
        held = self.store.open_assignments(cursor, annotator)
        for row in held:
            if row["assignment_id"] not in exclude:
                self.store.set_assignment(cursor, row["assignment_id"], "open", now + self._lease())
                return self._payload(cursor, row, progress)
        if len(held) >= MAX_OPEN:
            return None
        found = self.store.candidates(cursor, annotator, self.settings.votes_per_pair)
        chosen = choose([Candidate(**row) for row in found], self.rng)
        if chosen is None:
            return None
        row = new_assignment(chosen.pair_id, annotator, now, self._lease(), self.rng)
        self.store.add_assignment(cursor, row)
        return self._payload(cursor, row, progress)

    def _vote(self, cursor: Any, annotator: str, form: VoteForm, exclude: tuple[str, ...]) -> Row:
        assignment = self.store.assignment(cursor, form.assignment_id)
        if assignment is None or assignment["annotator"] != annotator:
            raise NotFoundError("this assignment does not exist or is not yours")
        row = self._vote_row(annotator, form, assignment)
        if self.store.add_vote(cursor, row):
            if not self.store.is_undone(cursor, form.vote_id, annotator):
                self.store.set_assignment(cursor, form.assignment_id, "done")
        elif not _same_content(self.store.vote(cursor, form.vote_id), row):
            raise ConflictError("this vote_id was used for another vote already")
        progress = self.progress(cursor, annotator)
        return {
            "ok": True,
            "reveal": self._reveal(cursor, assignment),
            "next": self._next(cursor, annotator, (*exclude, form.assignment_id), progress),
            "progress": progress,
        }

    def _vote_row(self, annotator: str, form: VoteForm, assignment: Row) -> Row:
        return {
            "vote_id": check_uuid(form.vote_id, "vote_id"),
            "assignment_id": form.assignment_id,
            "pair_id": assignment["pair_id"],
            "annotator": annotator,
            "kind": "vote",
            "choice": to_edit_choice(form.choice, assignment["b_first"]),
            "strength": form.strength,
            "tags": list(form.tags),
            "comment": form.comment,
            "listened": form.listened,
            "response_ms": form.response_ms,
            "client": {"version": form.client_version},
            "simulated": False,
            "source": "app",
            "created_at": utc_now(),
        }

    def _undo(self, cursor: Any, annotator: str, vote_id: str, undoes: str) -> Row:
        vote_id, undoes = str(UUID(vote_id)), str(UUID(undoes))
        known = self.store.vote(cursor, vote_id)
        if known is not None and (
            known["kind"] != "undo" or known["undoes"] != undoes or known["annotator"] != annotator
        ):
            raise ConflictError("this vote_id was used for something else already")
        target = self.store.vote(cursor, undoes)
        if target is not None and (target["annotator"] != annotator or target["kind"] != "vote"):
            raise NotFoundError("there is no such vote of yours")
        if known is None:
            self.store.add_vote(cursor, self._undo_row(annotator, vote_id, undoes, target))
            if target is not None and target["assignment_id"] is not None:
                until = utc_now() + self._lease()
                self.store.set_assignment(cursor, target["assignment_id"], "open", until)
        reopened = None
        if target is not None and target["assignment_id"] is not None:
            row = self.store.assignment(cursor, target["assignment_id"])
            reopened = None if row is None else self._payload(cursor, row)
        return {"ok": True, "assignment": reopened, "progress": self.progress(cursor, annotator)}

    def _undo_row(self, annotator: str, vote_id: str, undoes: str, target: Row | None) -> Row:
        return {
            "vote_id": vote_id,
            "assignment_id": None if target is None else target["assignment_id"],
            "pair_id": None if target is None else target["pair_id"],
            "annotator": annotator,
            "kind": "undo",
            "undoes": undoes,
            "simulated": False,
            "source": "app",
            "created_at": utc_now(),
        }

    def progress(self, cursor: Any, annotator: str) -> Row:
        """{done_today, done_total, goal}; a day starts at midnight UTC."""
        start = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        today, total = self.store.done_counts(cursor, annotator, start)
        return {"done_today": today, "done_total": total, "goal": self.settings.goal}

    def _pair(self, cursor: Any, pair_id: str) -> tuple[Row, dict[str, Row]]:
        """A pair with its edits; they never change, so the last ones are kept."""
        if pair_id not in self._pairs:
            if len(self._pairs) >= PAIRS_KEPT:
                self._pairs.pop(next(iter(self._pairs)))
            self._pairs[pair_id] = self.store.pair_with_edits(cursor, pair_id)
        return self._pairs[pair_id]

    def _payload(self, cursor: Any, row: Row, progress: Row | None = None) -> Row:
        """What the browser needs to play a pair, and nothing that tells which side is which."""
        pair, edits = self._pair(cursor, row["pair_id"])
        order = ("b", "a") if row["b_first"] else ("a", "b")
        sides: Row = {}
        for side, name in zip(("left", "right"), order, strict=True):
            edit, regions = edits[name], pair[f"regions_{name}"]
            sides[side] = {
                "media": f"/media/{row[f'media_{side}']}",
                "duration_s": edit["duration_s"],
                "beats": edit["edl"]["beats"],
                "peaks": edit["peaks"],
                "regions": regions,
            }
        original = {
            "media": f"/media/{row['media_original']}",
            "duration_s": pair["original_edl"]["duration_s"],
            "beats": pair["original_edl"]["beats"],
            "peaks": pair["original_peaks"],
        }
        share, cap = self.settings.required_region_share, self.settings.required_cap_s
        return {
            "assignment_id": row["assignment_id"],
            **sides,
            "original": original,
            "first_side": row["first_side"],
            "required_s": {
                side: required_seconds(sides[side]["regions"], share, cap) for side in sides
            },
            "progress": progress or self.progress(cursor, row["annotator"]),
        }

    def _reveal(self, cursor: Any, row: Row) -> Row:
        """What was done on each side; told only after the vote."""
        pair, edits = self._pair(cursor, row["pair_id"])
        passage, original = pair["original_edl"]["passage"], pair["original_edl"]["beats"]
        times = [passage["start_s"] + beat[1] for beat in original] + [passage["end_s"]]
        order = ("b", "a") if row["b_first"] else ("a", "b")
        return {
            side: {
                "segments": edits[name]["edl"]["segments"],
                "removed": removed_ranges(
                    edits[name]["edl"]["beats"], passage["start_beat"], times
                ),
            }
            for side, name in zip(("left", "right"), order, strict=True)
        }


def _same_content(known: Row | None, row: Row) -> bool:
    if known is None:
        return False
    names = ("assignment_id", "annotator", "kind", "choice", "strength", "tags", "comment")
    return all(known[name] == row[name] for name in names)
