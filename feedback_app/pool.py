"""What is to be voted on and by whom, kept in memory beside the database.

Only the writer thread touches it, inside its transactions, so two annotators can never be given
the same place of a pair. Pairs and what is open are read from the database once, a person when they
first ask (`person`). From then on it follows every assignment and vote, those of other apps on a
shared database as well (`journal`). It is read again where something else wrote assignments or
votes (an import) or a transaction was rolled back; of new pairs only those are read.

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
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from feedback_app.database import Row
from feedback_app.person import Person, meet
from feedback_app.scheduling import Plan, required_seconds
from feedback_app.settings import Settings
from feedback_app.shelves import Bag, Entry, Shelves
from feedback_app.store import Store
from feedback_app.store_ranking import RANKED_POOLS

ROWS_KEPT = 2000
# What changes the picture; other apps are told of it by these names.
EVENTS: Final = ("settle", "remember", "take_back", "count", "unhear", "await_vote", "lose")


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
        database = self.store.database
        news = database.take_news()
        if database.others != self._others:
            self._fingerprint, self._others = None, database.others
        if self._fingerprint is not None:
            for name, values in news:
                self._happen(name, values)
        if database.foreign == self._foreign:
            return
        found = self.store.pool_fingerprint(cursor)
        known = self._fingerprint
        if known is None or found[3:] != known[3:]:
            self._read_assignments(cursor)
            self._read_pairs(cursor)
        elif found[:3] != known[:3]:
            only_more = found[1:3] == known[1:3]
            if not (only_more and self._read_new_pairs(cursor, found[0] - known[0])):
                self._read_pairs(cursor)
        self._fingerprint, self._foreign = found, database.foreign

    def _read_assignments(self, cursor: Any) -> None:
        self.people: dict[str, Person] = {}
        self.places = self.store.places_taken(cursor)  # pair_id -> places that people have
        self.pending: dict[str, Row] = {}  # open or abandoned, by id
        self.done: dict[str, Row] = {}  # the last that were voted on, by id
        self.early_undos = self.store.early_undos(cursor)
        for row in self.store.pending_assignments(cursor):
            person = self.person(row["annotator"])
            kind = person.open if row["state"] == "open" else person.expired
            kind[row["assignment_id"]] = self.pending[row["assignment_id"]] = row

    def _read_pairs(self, cursor: Any) -> None:
        self.pairs: dict[str, Entry] = {}
        self.gold = Bag()
        self.batches: dict[str, int] = {}  # in the order in which they were made
        self.shelves = Shelves(self.batches)
        self._newest = datetime.min
        self._take_in(self.store.pairs_to_give(cursor, self._newest))

    def _read_new_pairs(self, cursor: Any, count: int) -> bool:
        """Take in pairs made after those that are known; False where those are not all new ones."""
        rows = [
            row
            for row in self.store.pairs_to_give(cursor, self._newest)
            if row[0] not in self.pairs
        ]
        if len(rows) != count:
            return False
        self._take_in(rows)
        return True

    def _take_in(self, rows: Sequence[tuple[Any, ...]]) -> None:
        with_ranks, places = self.settings.assign_score > 0, self.places
        made = []
        for pair_id, batch, pool, regions_a, regions_b, information, place, _ in rows:
            rank = place if with_ranks and pool in RANKED_POOLS else None
            entry = Entry(pair_id, batch, pool, (regions_a, regions_b), rank, information)
            self.batches[batch] = len(self.pairs)
            self.pairs[pair_id] = entry
            if pool == "gold":
                self.gold.add(pair_id)
            elif (level := places.get(pair_id, 0)) < self.settings.votes_per_pair:
                made.append((entry, level))
        self.shelves.put_all(made)
        if rows:
            self._newest = rows[-1][-1]

    def meet(self, cursor: Any, names: Collection[str]) -> None:
        """Make these people known before anything is decided about them."""
        strangers = {name for name in names if not self.person(name).is_known}
        if strangers:
            meet(self.store, cursor, self.people, strangers)

    def person(self, name: str) -> Person:
        return self.people.setdefault(name, Person())

    def row(self, cursor: Any, assignment_id: str) -> Row | None:
        """An assignment by its id."""
        row = self.pending.get(assignment_id) or self.done.get(assignment_id)
        if row is None:
            row = self.store.assignment(cursor, assignment_id)
            if row is not None:
                self._keep(row)
        return row

    def _keep(self, row: Row) -> None:
        """Of rows that are done only the last are kept; a batch has far fewer."""
        key = row["assignment_id"]
        self.pending.pop(key, None)
        self.done.pop(key, None)
        (self.done if row["state"] == "done" else self.pending)[key] = row
        while len(self.done) > ROWS_KEPT:
            del self.done[next(iter(self.done))]

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
        return Plan(entry.pair_id, *self._required(entry), found[1], entry.information)

    def _required(self, entry: Entry) -> tuple[float, float]:
        """Seconds to be heard of edit a and edit b."""
        share, cap = self.settings.required_region_share, self.settings.required_cap_s
        a, b = (required_seconds(json.loads(text), share, cap) for text in entry.regions)
        return a, b

    def _free_pair(self, annotator: str) -> tuple[str, str] | None:
        """A pair with a free place for this annotator, and why it is the one."""
        taken = self._met(annotator)
        for level in self.shelves.levels():
            for reason in self._reasons():
                if reason == "score":
                    found = self.shelves.best(level, taken)
                else:
                    found = self.shelves.drawn(level, reason, taken, self.rng)
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

    def _met(self, annotator: str) -> Collection[str]:
        """Pairs that this person has, or had until they ran out: these come back by `may_reopen`,
        or by a late vote; a second assignment of one would hold a second place."""
        person = self.person(annotator)
        expired = {row["pair_id"] for row in person.expired.values()}
        # the first may be as many as there are pairs: a copy only where it is not all
        return person.taken | expired if expired else person.taken

    def _gold_pair(self, annotator: str) -> str | None:
        taken = self._met(annotator)
        left = [one for one in self.gold if one not in taken]
        return self.rng.choice(left) if left else None

    def _repeat(self, annotator: str) -> Plan | None:
        person = self.person(annotator)
        left = [
            pair
            for pair in list(person.heard)[: -self.settings.repeat_gap]
            if pair in self.pairs and pair not in person.repeated and not self.pairs[pair].gold
        ]
        if not left:
            return None
        pair = self.pairs[self.rng.choice(left)]
        first, b_first = person.heard[pair.pair_id]
        return Plan(
            pair.pair_id, *self._required(pair), "repeat", pair.information, first, not b_first
        )

    def may_reopen(self, row: Row) -> bool:
        """Whether a pair that ran out can be given to the same person again."""
        pair = row["pair_id"]
        if row["repeat_of"] is not None or pair not in self.pairs:
            return False
        if pair in self.person(row["annotator"]).taken:
            return False
        return self.pairs[pair].gold or self.places.get(pair, 0) < self.settings.votes_per_pair

    # -- following --------------------------------------------------------------------------------

    def tell(self, name: str, *values: Any) -> None:
        """Something happened (EVENTS): take it in here, and let other apps know."""
        self._happen(name, values)
        self.store.database.tell(name, values)

    def _happen(self, name: str, values: Sequence[Any]) -> None:
        assert name in EVENTS
        getattr(self, f"_{name}")(*values)

    def add(self, row: Row) -> None:
        """Take in a new open assignment."""
        self.added[row["assignment_id"]] = row
        self.tell("settle", row, "")

    def set_state(self, row: Row, state: str, leased_until: datetime | None = None) -> None:
        """Open, done or abandoned: in memory now, in the database with `changed`."""
        was = row["state"]
        row["state"] = state
        if leased_until is not None:
            row["leased_until"] = leased_until
        if row["assignment_id"] not in self.added:
            self.changed[row["assignment_id"]] = row
        self.tell("settle", row, was)

    def _settle(self, row: Row, was: str) -> None:
        """An assignment is in the state that its row says, and was in another ("": it is new)."""
        assert self._fingerprint is not None
        key, pair, person = row["assignment_id"], row["pair_id"], self.person(row["annotator"])
        self._keep(row)
        if not was:
            *rest, assignments, imported = self._fingerprint
            self._fingerprint = (*rest, assignments + 1, imported)
        person.open.pop(key, None)
        person.expired.pop(key, None)
        if row["state"] != "done":
            (person.open if row["state"] == "open" else person.expired)[key] = row
        held = row["state"] != "abandoned"
        if row["repeat_of"] is not None:
            (person.repeated.add if held else person.repeated.discard)(pair)
            return
        if row["state"] == "done":
            person.hear(pair, key, row["b_first"])
        else:
            person.unhear(pair, key)
        had = pair in person.taken if person.is_known else was in ("open", "done")
        if held != had:
            self._unshelve(pair)
            self.places[pair] = self.places.get(pair, 0) + (1 if held else -1)
            (person.taken.add if held else person.taken.discard)(pair)
            self._shelve(pair)

    def _remember(self, annotator: str, vote_id: str, choice: str, too_fast: bool) -> None:
        self.person(annotator).remember(vote_id, choice, too_fast)

    def _take_back(self, annotator: str, vote_id: str) -> None:
        self.person(annotator).recent.pop(vote_id, None)

    def _count(self, annotator: str, by: int, created_at: datetime, now: datetime) -> None:
        self.person(annotator).end_sitting(now)
        self.person(annotator).count(by, created_at)

    def _unhear(self, annotator: str, pair_id: str, assignment_id: str) -> None:
        self.person(annotator).unhear(pair_id, assignment_id)

    def _await_vote(self, annotator: str, vote_id: str, waits: bool) -> None:
        """An undo waits for its vote, or the vote has come."""
        change = self.early_undos.add if waits else self.early_undos.discard
        change((annotator, vote_id))

    def _lose(self, pair: str, mark: int) -> None:
        """A pair is retired; of what else was retired meanwhile this says nothing."""
        assert self._fingerprint is not None
        self._unshelve(pair)
        self.gold.discard(pair)
        self.pairs.pop(pair, None)
        pairs, retired, *rest = self._fingerprint
        self._fingerprint = (pairs, (retired or 0) ^ mark, *rest)

    def _unshelve(self, pair: str) -> None:
        if (entry := self.pairs.get(pair)) is not None:
            self.shelves.take(entry, self.places.get(pair, 0))

    def _shelve(self, pair: str) -> None:
        entry, level = self.pairs.get(pair), self.places.get(pair, 0)
        if entry is not None and not entry.gold and level < self.settings.votes_per_pair:
            self.shelves.put(entry, level)

    def drop(self, cursor: Any, pair: str) -> None:
        """Give a pair to nobody any more; its votes stay."""
        if pair in self.pairs:
            self.store.retire_pair(cursor, pair)
            self.tell("lose", pair, self.store.pair_mark(cursor, pair))

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
