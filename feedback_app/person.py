"""What the pool knows of one annotator: what is open, what was heard, how the sitting goes.

Open and run-out assignments of everybody are read with the pool. The rest is read when the person
first asks for something (`meet`), so that a start takes as long as there are people at work, not
as long as there are votes in the table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedback_app.database import Row
from feedback_app.scheduling import LOOK_BACK, SITTING_PAUSE, to_side_choice
from feedback_app.store import Store

RECENT = 2 * LOOK_BACK
HEARD_KEPT = 200  # votes among which a hidden repeat is chosen


@dataclass
class Person:
    """One annotator's assignments, and figures of the votes."""

    open: dict[str, Row] = field(default_factory=dict)
    expired: dict[str, Row] = field(default_factory=dict)
    is_known: bool = False  # whether what follows was read
    taken: set[str] = field(default_factory=set)  # pairs of which this person has a place
    heard: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """pair_id -> (assignment_id, b_first) of the last pairs voted on, in order."""
    repeated: set[str] = field(default_factory=set)  # pair_ids
    since: datetime | None = None  # when this sitting's first vote came
    last: datetime | None = None
    sitting: int = 0
    total: int = 0
    recent: dict[str, tuple[str, bool]] = field(default_factory=dict)  # of the last votes, by id

    def remember(self, vote_id: str, choice: str, too_fast: bool) -> None:
        """One more vote, its choice in terms of sides."""
        self.recent[vote_id] = (choice, too_fast)
        while len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]

    def hear(self, pair_id: str, assignment_id: str, b_first: bool) -> None:
        """A pair was voted on."""
        self.heard[pair_id] = (assignment_id, b_first)
        while len(self.heard) > HEARD_KEPT:
            del self.heard[next(iter(self.heard))]

    def unhear(self, pair_id: str, assignment_id: str) -> None:
        """The vote was taken back, or said nothing."""
        if self.heard.get(pair_id, ("", False))[0] == assignment_id:
            del self.heard[pair_id]

    def end_sitting(self, now: datetime) -> None:
        """Begin to count anew where a pause has ended the sitting."""
        if self.last is not None and now - self.last >= SITTING_PAUSE:
            self.since, self.last, self.sitting = None, None, 0

    def count(self, by: int, created_at: datetime) -> None:
        """One vote more, or one less."""
        self.total += by
        if by > 0:
            self.since, self.last = self.since or created_at, created_at
        if self.since is not None and created_at >= self.since:
            self.sitting += by


def meet(store: Store, cursor: Any, people: dict[str, Person], names: Collection[str]) -> None:
    """Read what the database knows of these people, all of them at once."""
    wanted = sorted(names)
    for name in wanted:
        person = people.setdefault(name, Person())
        person.is_known, person.taken, person.repeated = True, set(), set()
        person.heard, person.recent = {}, {}
        person.since = person.last = None
        person.sitting = person.total = 0
    for name, pair_ids in store.taken_by(cursor, wanted):
        people[name].taken.update(pair_ids)
    for name, pair_ids in store.repeated_by(cursor, wanted):
        people[name].repeated.update(pair_ids)
    for name, pair_id, assignment_id, b_first in store.heard_by(cursor, wanted, HEARD_KEPT):
        people[name].hear(pair_id, assignment_id, b_first)
    for name, since, last, sitting, total in store.vote_counts(cursor, wanted, SITTING_PAUSE):
        person = people[name]
        person.since, person.last = since, last
        person.sitting, person.total = sitting, total
    for row in store.recent_votes(cursor, wanted, RECENT):
        choice = to_side_choice(row["choice"], row["b_first"])
        people[row["annotator"]].remember(row["vote_id"], choice, row["too_fast"])
