"""What is to be voted on and by whom, kept in memory beside the database.

Only the writer thread touches it, inside its transactions, so two annotators can never be given
the same place of a pair. It is read from the database once, follows every assignment and vote
from then on, and is read again where something else wrote pairs or votes (an ingested run, an
import) or a transaction was rolled back.

Which pair comes next: pairs that others have begun come first (a pair half-voted is worth little).
Among pairs begun by equally many a die with set shares says how the pair is chosen:

    score   best first in the newest ranking by the reward model (`rlhf_core.rank_pairs`), of the
            pairs that were made to be informative or broad
    cross   by chance, of the pairs across versions, the newest batch first
    random  by chance, of all others (made at random, or not yet ranked), the newest batch first

Pairs of the pool "random" are never ranked, so figures drawn from them stay unbiased. Where there
is no pair of the kind that the die names, another kind is taken. Now and then, at set rates, it is
a hidden repeat with the sides swapped or a gold pair instead; those need no place and take none.
The reason is written on the assignment.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from feedback_app.database import Row
from feedback_app.scheduling import (
    LOOK_BACK,
    SITTING_PAUSE,
    Plan,
    required_seconds,
    to_side_choice,
)
from feedback_app.settings import Settings
from feedback_app.shelves import Bag, Entry, Shelves
from feedback_app.store import Store
from feedback_app.store_ranking import RANKED_POOLS

ROWS_KEPT = 2000
RECENT = 2 * LOOK_BACK


@dataclass
class Person:
    """One annotator's assignments, and figures of the votes."""

    open: dict[str, Row] = field(default_factory=dict)
    expired: dict[str, Row] = field(default_factory=dict)
    heard: dict[str, Row] = field(default_factory=dict)  # pair_id -> assignment voted on, in order
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


class Pool:
    """Pairs with their places, and people. `changed` and `added` are what is to be written."""

    def __init__(self, store: Store, settings: Settings, rng: random.Random) -> None:
        self.store = store
        self.settings = settings
        self.rng = rng
        self.added: dict[str, Row] = {}
        self.changed: dict[str, Row] = {}
        store.database.on_rollback.append(self.forget)
        self.forget()

    def forget(self) -> None:
        """Read everything afresh when it is next needed."""
        self._fingerprint: tuple[Any, ...] | None = None
        self._foreign = self._others = -1
        self.added.clear()
        self.changed.clear()

    # -- reading ----------------------------------------------------------------------------------

    def refresh(self, cursor: Any) -> None:
        """Catch up with what others wrote since the last call."""
        foreign, others = self.store.database.foreign, self.store.database.others
        if others != self._others:
            self._fingerprint, self._others = None, others
        if foreign == self._foreign:
            return
        found = self.store.pool_fingerprint(cursor)
        known = self._fingerprint
        if known is None or found[3:] != known[3:]:
            self._read_assignments(cursor)
            self._read_pairs(cursor)
        elif found[:3] != known[:3]:
            self._read_pairs(cursor)
        self._fingerprint, self._foreign = found, foreign

    def _read_assignments(self, cursor: Any) -> None:
        self.people: dict[str, Person] = {}
        self.taken: dict[str, set[str]] = {}
        self.rows: dict[str, Row] = {}
        self.early_undos = self.store.early_undos(cursor)
        skipped = self.store.skipped(cursor)
        for row in self.store.done_assignments(cursor):
            person = self.person(row["annotator"])
            if row["repeat_of"] is not None:
                person.repeated.add(row["pair_id"])
                continue
            self.taken.setdefault(row["pair_id"], set()).add(row["annotator"])
            if row["assignment_id"] not in skipped:
                person.heard[row["pair_id"]] = row
        for row in self.store.pending_assignments(cursor):
            person = self.person(row["annotator"])
            kind = person.open if row["state"] == "open" else person.expired
            kind[row["assignment_id"]] = self.rows[row["assignment_id"]] = row
            if row["repeat_of"] is not None:
                person.repeated.add(row["pair_id"])
            elif row["state"] == "open":
                self.taken.setdefault(row["pair_id"], set()).add(row["annotator"])
        for name, since, last, sitting, total in self.store.vote_counts(cursor, SITTING_PAUSE):
            person = self.person(name)
            person.since, person.last = since, last
            person.sitting, person.total = sitting, total
        for row in self.store.recent_votes(cursor, RECENT):
            choice = to_side_choice(row["choice"], row["b_first"])
            self.person(row["annotator"]).remember(row["vote_id"], choice, row["too_fast"])

    def _read_pairs(self, cursor: Any) -> None:
        self.pairs: dict[str, Entry] = {}
        self.gold = Bag()
        self.batches: dict[str, int] = {}  # in the order in which they were made
        self.shelves = Shelves(self.batches)
        share, cap = self.settings.required_region_share, self.settings.required_cap_s
        for row in self.store.pairs_to_give(cursor):
            required = [
                required_seconds(json.loads(row[name]), share, cap)
                for name in ("regions_a", "regions_b")
            ]
            ranked = row["pool"] in RANKED_POOLS and self.settings.assign_score > 0
            entry = Entry(
                row["pair_id"], row["batch"], row["pool"], (required[0], required[1]),
                row["place"] if ranked else None, row["information"],
            )  # fmt: skip
            self.batches[entry.batch] = len(self.pairs)
            self.pairs[entry.pair_id] = entry
            if entry.gold:
                self.gold.add(entry.pair_id)
            else:
                self._shelve(entry.pair_id)

    def person(self, name: str) -> Person:
        return self.people.setdefault(name, Person())

    def row(self, cursor: Any, assignment_id: str) -> Row | None:
        """An assignment by its id."""
        row = self.rows.get(assignment_id) or self.store.assignment(cursor, assignment_id)
        if row is not None:
            self._keep(row)
        return row

    def _keep(self, row: Row) -> None:
        if len(self.rows) >= ROWS_KEPT:
            for key in [key for key, old in self.rows.items() if old["state"] == "done"]:
                if key not in self.changed and key not in self.added:
                    del self.rows[key]
        self.rows[row["assignment_id"]] = row

    # -- giving -----------------------------------------------------------------------------------

    def plan(self, annotator: str) -> Plan | None:
        """The next pair for an annotator, or None where there is none."""
        found = self._free_pair(annotator)
        if found is None:
            return None
        dice = self.rng.random()
        if dice < self.settings.gold_rate:
            gold = self._gold_pair(annotator)
            found = found if gold is None else (gold, "gold")
        elif dice < self.settings.gold_rate + self.settings.repeat_rate:
            repeat = self._repeat(annotator)
            if repeat is not None:
                return repeat
        entry = self.pairs[found[0]]
        return Plan(entry.pair_id, *entry.required, found[1], entry.information)

    def _free_pair(self, annotator: str) -> tuple[str, str] | None:
        """A pair with a free place for this annotator, and why it is the one."""
        for level in self.shelves.levels():
            for reason in self._reasons():
                if reason == "score":
                    found = self.shelves.best(level, annotator, self.taken)
                else:
                    found = self.shelves.drawn(level, reason, annotator, self.taken, self.rng)
                if found is not None:
                    return found, reason
        return None

    def _reasons(self) -> tuple[str, ...]:
        """What the die says, then what else there is, in the order of its share."""
        shares = {
            "score": self.settings.assign_score,
            "random": self.settings.assign_random,
            "cross": self.settings.assign_cross,
        }
        (first,) = self.rng.choices(list(shares), list(shares.values()))
        rest = sorted(set(shares) - {first}, key=lambda name: -shares[name])
        return (first, *rest)

    def _gold_pair(self, annotator: str) -> str | None:
        left = [one for one in self.gold if annotator not in self.taken.get(one, ())]
        return self.rng.choice(left) if left else None

    def _repeat(self, annotator: str) -> Plan | None:
        person = self.person(annotator)
        old = list(person.heard.values())[: -self.settings.repeat_gap]
        left = [
            row
            for row in old
            if row["pair_id"] in self.pairs
            and row["pair_id"] not in person.repeated
            and not self.pairs[row["pair_id"]].gold
        ]
        if not left:
            return None
        first = self.rng.choice(left)
        pair = self.pairs[first["pair_id"]]
        return Plan(
            pair.pair_id, *pair.required, "repeat", pair.information,
            first["assignment_id"], not first["b_first"],
        )  # fmt: skip

    def may_reopen(self, row: Row) -> bool:
        """Whether a pair that ran out can be given to the same person again."""
        pair = row["pair_id"]
        if row["repeat_of"] is not None or pair not in self.pairs:
            return False
        taken = self.taken.get(pair, set())
        if row["annotator"] in taken:
            return False
        return self.pairs[pair].gold or len(taken) < self.settings.votes_per_pair

    # -- following --------------------------------------------------------------------------------

    def add(self, row: Row) -> None:
        """Take in a new open assignment."""
        assert self._fingerprint is not None
        *rest, assignments, imported = self._fingerprint
        self._fingerprint = (*rest, assignments + 1, imported)
        self.added[row["assignment_id"]] = row
        self._keep(row)
        self._settle(row, "open")

    def set_state(self, row: Row, state: str, leased_until: datetime | None = None) -> None:
        """Open, done or abandoned: in memory now, in the database with `changed`."""
        if leased_until is not None:
            row["leased_until"] = leased_until
        if row["assignment_id"] not in self.added:
            self.changed[row["assignment_id"]] = row
        self._keep(row)
        self._settle(row, state)

    def _settle(self, row: Row, state: str) -> None:
        key, pair, person = row["assignment_id"], row["pair_id"], self.person(row["annotator"])
        row["state"] = state
        person.open.pop(key, None)
        person.expired.pop(key, None)
        if state == "open":
            person.open[key] = row
        elif state == "abandoned":
            person.expired[key] = row
        held = state != "abandoned"
        if row["repeat_of"] is not None:
            (person.repeated.add if held else person.repeated.discard)(pair)
            return
        if state == "done":
            person.heard[pair] = row
        elif person.heard.get(pair, row)["assignment_id"] == key:
            person.heard.pop(pair, None)
        self._unshelve(pair)
        if held:
            self.taken.setdefault(pair, set()).add(row["annotator"])
        else:
            self.taken.get(pair, set()).discard(row["annotator"])
        self._shelve(pair)

    def _unshelve(self, pair: str) -> None:
        if (entry := self.pairs.get(pair)) is not None:
            self.shelves.take(entry, len(self.taken.get(pair, ())))

    def _shelve(self, pair: str) -> None:
        entry, level = self.pairs.get(pair), len(self.taken.get(pair, ()))
        if entry is not None and not entry.gold and level < self.settings.votes_per_pair:
            self.shelves.put(entry, level)

    def drop(self, pair: str) -> bool:
        """Give a pair to nobody any more; False where it is not given anyway."""
        self._unshelve(pair)
        self.gold.discard(pair)
        return self.pairs.pop(pair, None) is not None

    def expire(self, now: datetime) -> None:
        """Leases that ran out go back to the pool.

        One that runs longer than a lease can was given before the clock was set back: it counts
        from now, so that its pair is not held until the old time comes round again.
        """
        held = [row for person in self.people.values() for row in person.open.values()]
        longest = now + timedelta(minutes=self.settings.lease_minutes)
        for row in held:
            if row["leased_until"] < now:
                self.set_state(row, "abandoned")
            elif row["leased_until"] > longest:
                self.set_state(row, "open", longest)

    # -- writing ----------------------------------------------------------------------------------

    def flush(self, cursor: Any) -> None:
        """Write what changed: one statement for what is new, one for what is not."""
        if self.added:
            self.store.add_assignments(cursor, list(self.added.values()))
        if self.changed:
            self.store.update_assignments(cursor, list(self.changed.values()))
        self.added.clear()
        self.changed.clear()
