"""What an annotator does: take the next pair, vote, undo. All of it on the writer thread.

A vote's UUID comes from the browser: the same UUID with the same content is acknowledged again,
with other content it is refused. An undo may arrive before the vote that it undoes. The answer
to a vote holds the next assignment, leased in the same transaction, so one commit serves both.

Requests that wait at the same time are one batch: decided one after the other against `pool`, then
written with one statement per table, then committed once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from feedback_app.database import Row, utc_now
from feedback_app.errors import AppError, ConflictError, InvalidError, NotFoundError
from feedback_app.pool import Pool
from feedback_app.scheduling import (
    hint_on,
    new_assignment,
    notes_on,
    to_edit_choice,
    to_side_choice,
    unheard,
)
from feedback_app.settings import Settings
from feedback_app.showing import Showing
from feedback_app.store import Store

SIDE_CHOICES = ("left", "right", "tie", "both_bad", "skip")
MAX_OPEN = 4
MAX_COMMENT = 2000
EXPIRY_CHECK_S = 5.0
SIDE_NAMES = {"left": "A", "right": "B"}


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


@dataclass(frozen=True)
class Next:
    """Asks for an assignment that is not among `exclude`."""

    annotator: str
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vote:
    """Casts a vote, and asks for the next assignment."""

    annotator: str
    form: VoteForm
    exclude: tuple[str, ...] = ()

    @property
    def vote_id(self) -> str:
        return check_uuid(self.form.vote_id, "vote_id")


@dataclass(frozen=True)
class Undo:
    """Takes a vote back."""

    annotator: str
    vote_id: str
    undoes: str


@dataclass(frozen=True)
class Withdraw:
    """Says that an assignment cannot be played: nobody shall be given its pair again."""

    assignment_id: str


Request = Next | Vote | Undo | Withdraw


class Annotation:
    """The annotator's side of the store. Answers are rows; `showing` makes payloads of them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.showing = Showing(store)
        self._desk = Desk(store, settings)

    def next(self, annotator: str, exclude: tuple[str, ...] = ()) -> Future[Row | None]:
        """Lease (or find again) an assignment; None where nothing is left for this annotator."""
        return self._submit(Next(annotator, exclude))

    def vote(self, annotator: str, form: VoteForm, exclude: tuple[str, ...] = ()) -> Future[Row]:
        """Store a vote; done once it is committed: {assignment, next, progress, hint}."""
        return self._submit(Vote(annotator, form, exclude))

    def undo(self, annotator: str, vote_id: str, undoes: str) -> Future[Row]:
        """Take a vote back; its assignment is open again: {assignment, progress}."""
        vote_id, undoes = check_uuid(vote_id, "vote_id"), check_uuid(undoes, "undoes")
        return self._submit(Undo(annotator, vote_id, undoes))

    def withdraw(self, assignment_id: str) -> Future[None]:
        """Take the pair of an assignment out: its audio is not there."""
        return self._submit(Withdraw(assignment_id))

    def _submit(self, request: Request) -> Future[Any]:
        return self.store.database.submit_item(self._desk.work, request)

    def warm(self) -> Future[None]:
        """Read pairs and places before anybody asks."""
        return self.store.database.submit(self._desk.pool.refresh)

    def is_dry(self, annotator: str) -> bool:
        """Whether this annotator asked last time for a pair and there was none to give."""
        return annotator in self._desk.dry

    def forget(self) -> None:
        """Read everything afresh: somebody wrote assignments past this class."""
        self.store.database.write(lambda cursor: self._desk.forget())

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


class Desk:
    """Works through batches of requests on the writer thread."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.rng = random.Random()
        self.pool = Pool(store, settings, self.rng)
        self.dry: set[str] = set()
        self._lease = timedelta(minutes=settings.lease_minutes)
        self.forget()

    def forget(self) -> None:
        """Read everything afresh with the next batch."""
        self.pool.forget()
        self._expired_at = float("-inf")

    def work(self, cursor: Any, requests: Sequence[Request]) -> list[Any]:
        """Decide a batch and write it; an AppError among the outcomes refuses that request."""
        self.pool.refresh(cursor)
        self.pool.meet(cursor, {one.annotator for one in requests if not isinstance(one, Withdraw)})
        self.now = utc_now()
        if time.monotonic() - self._expired_at > EXPIRY_CHECK_S:
            self.pool.expire(self.now)
            self._expired_at = time.monotonic()
        self._new: dict[str, Row] = {}
        ids = [one.vote_id for one in requests if isinstance(one, Vote | Undo)]
        ids += [one.undoes for one in requests if isinstance(one, Undo)]
        self._known = self.store.votes_by_id(cursor, sorted(set(ids))) if ids else {}
        outcomes = [self._one(cursor, request) for request in requests]
        self.pool.flush(cursor)
        if self._new:
            self.store.add_votes(cursor, list(self._new.values()))
        return outcomes

    def _one(self, cursor: Any, request: Request) -> Row | AppError | None:
        try:
            if isinstance(request, Next):
                return self._next(request.annotator, request.exclude)
            if isinstance(request, Vote):
                return self._vote(cursor, request)
            if isinstance(request, Undo):
                return self._undo(cursor, request)
            self._withdraw(cursor, request.assignment_id)
            return None
        except AppError as error:
            return error

    def _next(self, annotator: str, exclude: Sequence[str]) -> Row | None:
        """An open assignment of the annotator's, or one that ran out, or a new one."""
        person, until = self.pool.person(annotator), self.now + self._lease
        for row in sorted(person.open.values(), key=_age):
            if row["assignment_id"] not in exclude:
                if row["leased_until"] - self.now < self._lease / 2:
                    self.pool.set_state(row, "open", until)
                return self._given(row)
        if len(person.open) >= MAX_OPEN:
            return None
        for row in sorted(person.expired.values(), key=_age):
            if row["assignment_id"] not in exclude and self.pool.may_reopen(row):
                self.pool.set_state(row, "open", until)
                return self._given(row)
        plan = self.pool.plan(annotator)
        if plan is None:
            self.dry.add(annotator)
            return None
        self.dry.discard(annotator)
        row = new_assignment(plan, annotator, self.now, self._lease, self.rng)
        self.pool.add(row)
        return self._given(row)

    def _given(self, row: Row) -> Row:
        """A copy: what is given away is read on other threads."""
        return row | {"progress": self._progress(row["annotator"])}

    def _vote(self, cursor: Any, request: Vote) -> Row:
        form, annotator = request.form, request.annotator
        assignment = self.pool.row(cursor, form.assignment_id)
        if assignment is None or assignment["annotator"] != annotator:
            raise NotFoundError("this assignment does not exist or is not yours")
        known = self._find(request.vote_id)
        hint = None
        if known is None:
            row = self._vote_row(request, assignment)
            hint = self._cast(row, assignment, form)
        elif not _same_content(known, self._content(request, assignment)):
            raise ConflictError("this vote_id was used for another vote already")
        return {
            "assignment": dict(assignment),
            "next": self._next(annotator, (*request.exclude, form.assignment_id)),
            "progress": self._progress(annotator),
            "hint": hint,
        }

    def _cast(self, row: Row, assignment: Row, form: VoteForm) -> str | None:
        """Take a new vote in; returns what the page should hint at."""
        annotator, vote_id, tell = row["annotator"], row["vote_id"], self.pool.tell
        self._new[vote_id] = row
        if (annotator, vote_id) in self.pool.early_undos:
            tell("await_vote", annotator, vote_id, False)
            return None
        tell("remember", annotator, vote_id, form.choice, "too_fast" in row["flags"])
        tell("count", annotator, 1, row["created_at"], self.now)
        self.pool.set_state(assignment, "done")
        if form.choice == "skip":
            tell("unhear", annotator, assignment["pair_id"], assignment["assignment_id"])
        return hint_on(row["flags"], list(self.pool.person(annotator).recent.values()))

    def _vote_row(self, request: Vote, assignment: Row) -> Row:
        """The row of a vote. Raises InvalidError where too little was heard to judge."""
        form = request.form
        required = {side: assignment[f"required_{side}_s"] or 0.0 for side in SIDE_NAMES}
        missing = {} if form.choice == "skip" else unheard(form.listened, required)
        if missing:
            words = " and ".join(
                f"{seconds} s of {SIDE_NAMES[s]}" for s, seconds in missing.items()
            )
            raise InvalidError(f"before voting, hear {words} more where the two differ")
        recent = list(self.pool.person(request.annotator).recent.values())
        notes = notes_on(form.choice, form.response_ms, recent, self.settings.fast_vote_ms)
        return self._content(request, assignment) | {
            "pair_id": assignment["pair_id"],
            "undoes": None,
            "listened": form.listened,
            "response_ms": form.response_ms,
            "client": {"version": form.client_version},
            "flags": notes,
            "repeat": assignment["repeat_of"] is not None,
            "simulated": False,
            "source": "app",
            "created_at": self.now,
        }

    def _content(self, request: Vote, assignment: Row) -> Row:
        """What makes two votes the same."""
        form = request.form
        return {
            "vote_id": request.vote_id,
            "assignment_id": form.assignment_id,
            "annotator": request.annotator,
            "kind": "vote",
            "choice": to_edit_choice(form.choice, assignment["b_first"]),
            "strength": form.strength,
            "tags": list(form.tags),
            "comment": form.comment,
        }

    def _undo(self, cursor: Any, request: Undo) -> Row:
        annotator, undoes = request.annotator, request.undoes
        known, target = self._find(request.vote_id), self._find(undoes)
        if known is not None and (
            known["kind"] != "undo" or known["undoes"] != undoes or known["annotator"] != annotator
        ):
            raise ConflictError("this vote_id was used for something else already")
        if target is not None and (target["annotator"] != annotator or target["kind"] != "vote"):
            raise NotFoundError("there is no such vote of yours")
        assignment = None
        if target is not None and target["assignment_id"] is not None:
            assignment = self.pool.row(cursor, target["assignment_id"])
        if known is None:
            again = self._is_undone(cursor, annotator, undoes)
            self._new[request.vote_id] = self._undo_row(request, target)
            if target is None:
                self.pool.tell("await_vote", annotator, undoes, True)
            elif not again:
                self.pool.tell("count", annotator, -1, target["created_at"], self.now)
                self.pool.tell("take_back", annotator, undoes)
                if assignment is not None:
                    self.pool.set_state(assignment, "open", self.now + self._lease)
        given = None if assignment is None else self._given(assignment)
        return {"assignment": given, "progress": self._progress(annotator)}

    def _undo_row(self, request: Undo, target: Row | None) -> Row:
        return {
            "vote_id": request.vote_id,
            "assignment_id": None if target is None else target["assignment_id"],
            "pair_id": None if target is None else target["pair_id"],
            "annotator": request.annotator,
            "kind": "undo",
            "undoes": request.undoes,
            "repeat": False,
            "simulated": False,
            "source": "app",
            "created_at": self.now,
        }

    def _withdraw(self, cursor: Any, assignment_id: str) -> None:
        row = self.pool.row(cursor, assignment_id)
        if row is None:
            raise NotFoundError("this assignment does not exist")
        if row["state"] == "open":
            self.pool.set_state(row, "abandoned")
        self.pool.drop(cursor, row["pair_id"])

    def _find(self, vote_id: str) -> Row | None:
        return self._new.get(vote_id) or self._known.get(vote_id)

    def _is_undone(self, cursor: Any, annotator: str, vote_id: str) -> bool:
        fresh = any(
            row["undoes"] == vote_id and row["annotator"] == annotator for row in self._new.values()
        )
        return fresh or self.store.is_undone(cursor, vote_id, annotator)

    # -- progress ---------------------------------------------------------------------------------

    def _progress(self, annotator: str) -> Row:
        """{done, done_total, goal}; done: in this sitting, which a pause of two hours ends."""
        person = self.pool.person(annotator)
        person.end_sitting(self.now)
        return {
            "done": person.sitting,
            "done_total": person.total,
            "goal": self.settings.goal,
        }


def _age(row: Row) -> tuple[Any, str]:
    return row["created_at"], row["assignment_id"]


def _same_content(known: Row, content: Row) -> bool:
    return all(known[name] == content[name] for name in content if name != "vote_id")
