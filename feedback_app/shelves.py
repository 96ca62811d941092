"""Pairs with a free place, sorted so that the next one is found at once.

By how many places are taken (the level), and by how the pair may be chosen: ranked pairs in one
order per level, all others in bags by kind ("random", "cross") and batch. In memory only.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

DRAWS = 12  # at random, before all pairs of a batch are looked at


class Bag:
    """A set that one can draw from at random."""

    def __init__(self) -> None:
        self._items: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def add(self, item: str) -> None:
        if item not in self._places:
            self._places[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: str) -> None:
        place = self._places.pop(item, None)
        if place is None:
            return
        last = self._items.pop()
        if last != item:
            self._items[place] = last
            self._places[last] = place

    def draw(self, rng: random.Random) -> str:
        return rng.choice(self._items)


class Entry(NamedTuple):
    """A pair that may be given.

    regions: where edit a and edit b differ, as JSON text. place: in the newest ranking, 0 is best;
    None where the pair is given by chance. information: nats that its vote was expected to tell.
    """

    pair_id: str
    batch: str
    pool: str
    regions: tuple[str, str]
    place: int | None = None
    information: float | None = None

    @property
    def gold(self) -> bool:
        return self.pool == "gold"

    @property
    def kind(self) -> str:
        return "cross" if self.pool == "cross" else "random"


class Shelves:
    """Where the pairs with a free place are. batches: name -> order in which they were made."""

    def __init__(self, batches: Mapping[str, int]) -> None:
        self._batches = batches
        self._bags: dict[tuple[int, str, str], Bag] = {}
        self._ranking: dict[int, list[tuple[int, str]]] = {}

    def put(self, entry: Entry, level: int) -> None:
        """Shelve a pair of which `level` places are taken."""
        if entry.place is not None:
            insort(self._ranking.setdefault(level, []), (entry.place, entry.pair_id))
            return
        key = (level, entry.kind, entry.batch)
        if (bag := self._bags.get(key)) is None:
            bag = self._bags[key] = Bag()
        bag.add(entry.pair_id)

    def put_all(self, entries: Iterable[tuple[Entry, int]]) -> None:
        """Shelve many pairs at once, with their levels."""
        for entry, level in entries:
            if entry.place is None:
                self.put(entry, level)
            else:
                self._ranking.setdefault(level, []).append((entry.place, entry.pair_id))
        for order in self._ranking.values():
            order.sort()

    def take(self, entry: Entry, level: int) -> None:
        """Take a pair away; nothing happens where it is not."""
        if entry.place is None:
            key = (level, entry.kind, entry.batch)
            if (bag := self._bags.get(key)) is not None:
                bag.discard(entry.pair_id)
                if not len(bag):
                    del self._bags[key]
        elif (order := self._ranking.get(level)) is not None:
            index = bisect_left(order, (entry.place, entry.pair_id))
            if index < len(order) and order[index][1] == entry.pair_id:
                del order[index]
            if not order:
                del self._ranking[level]

    def levels(self) -> list[int]:
        """Levels that have pairs, most places taken first."""
        return sorted({key[0] for key in self._bags} | set(self._ranking), reverse=True)

    def best(self, level: int, taken: Collection[str]) -> str | None:
        """The best ranked pair of a level that is not among those `taken`."""
        for _, pair in self._ranking.get(level, ()):
            if pair not in taken:
                return pair
        return None

    def drawn(
        self, level: int, kind: str, taken: Collection[str], rng: random.Random
    ) -> str | None:
        """A pair of a kind by chance, not among those `taken`, of the newest batch that has one."""
        keys = [key for key in self._bags if key[:2] == (level, kind)]
        for key in sorted(keys, key=lambda key: -self._batches[key[2]]):
            bag = self._bags[key]
            for _ in range(DRAWS):
                pair = bag.draw(rng)
                if pair not in taken:
                    return pair
            left = [one for one in bag if one not in taken]
            if left:
                return rng.choice(left)
        return None
