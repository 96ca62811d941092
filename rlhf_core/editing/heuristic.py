"""A heuristic editor: musical edits of many kinds, without any learning.

It cuts whole bars and phrases, repeats and swaps bars, all on bar lines, and prefers places where
what follows a join sounds like what would have followed (`PassageBatch.context_distance`). The
first policy imitates it, and one side of many pairs comes from it, so the presets are broad on
purpose: votes between edits that are too alike teach nothing about how tight an edit should be.

On rendered audio its joins lie .76 times as far from how the song would have gone on as those of
random edits on demo songs, .82 times on real recordings; median keep ratios of the presets run
from .4 to 1, repeated output from 0 to .28, joins from 1 to 14 per 64 beats (all by
`python benchmarks/heuristic.py [SONGS_FOLDER]`).

Amounts are per 64 beats. Every result is legal as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rlhf_core.editing.actions import MIN_OUTPUT_BEATS, N_ACTIONS, Action, legalise
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.errors import ConfigError
from rlhf_core.types import PHRASE_BEATS, AudioState, BoolArray, IntArray, Passage

_EDGE_COST = 0.6  # a cut at the passage's edge makes no join, but must not win always
_UNKNOWN_COST = 1.0  # nothing would have followed: as bad as two unrelated contexts

Span = tuple[int, int]


@dataclass(frozen=True)
class HeuristicPreset:
    """How one kind of edit is made.

    keep: (least, most) share of beats to keep. cut_bars: lengths of a cut in bars.
    phrase_cuts: share of edits that cut whole 8-beat phrases instead of bars.
    repeats, swaps, loops, reverses, level_bars: (least, most) counts per 64 beats.
    fade_in, fade_out: probability. choosiness: how strongly good joins are preferred.
    """

    keep: tuple[float, float]
    cut_bars: tuple[int, ...] = (1, 2, 4)
    phrase_cuts: float = 0.3
    repeats: tuple[int, int] = (0, 0)
    swaps: tuple[int, int] = (0, 0)
    loops: tuple[int, int] = (0, 0)
    reverses: tuple[int, int] = (0, 0)
    level_bars: tuple[int, int] = (0, 0)
    fade_in: float = 0.1
    fade_out: float = 0.2
    choosiness: float = 16.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep[0] <= self.keep[1] <= 1:
            raise ConfigError(f"keep must be two rising shares within 0..1, got {self.keep}")
        if not self.cut_bars or min(self.cut_bars) < 1:
            raise ConfigError(f"cut_bars must be positive numbers of bars, got {self.cut_bars}")


PRESETS: Final[dict[str, HeuristicPreset]] = {
    "gentle": HeuristicPreset((0.85, 0.95), (1, 2), repeats=(0, 1)),
    "tight": HeuristicPreset((0.55, 0.75), (1, 2, 4), repeats=(0, 1)),
    "very_tight": HeuristicPreset((0.25, 0.5), (2, 3, 4, 6), phrase_cuts=0.5, fade_out=0.3),
    "repetitive": HeuristicPreset((0.7, 0.95), (1, 2), repeats=(3, 6), loops=(0, 2)),
    "long": HeuristicPreset((0.97, 1.0), (1,), repeats=(2, 5), loops=(0, 3), swaps=(0, 1)),
    "dynamic": HeuristicPreset(
        (0.7, 0.9), (1, 2), level_bars=(3, 7), fade_in=0.5, fade_out=0.7, repeats=(0, 2)
    ),
    "adventurous": HeuristicPreset(
        (0.6, 0.9),
        (1, 2),
        repeats=(0, 3),
        swaps=(1, 3),
        loops=(1, 5),
        reverses=(1, 4),
        level_bars=(0, 3),
        choosiness=8.0,
    ),
}


def heuristic_edit(
    state: AudioState,
    passage: Passage,
    preset: str | HeuristicPreset,
    rng: np.random.Generator,
) -> IntArray:
    """One edit (passage.n_beats,) of legal actions, at least one of them not KEEP.

    Raises ConfigError for a preset that is not in `PRESETS`.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f"no heuristic preset {preset!r}; there are {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    draft = _Draft(state, passage, preset.choosiness, rng)

    def amount(limits: tuple[int, int]) -> int:
        wanted = rng.integers(limits[0], limits[1] + 1) * passage.n_beats / 64
        return int(wanted + rng.random())  # round at random, so that short passages get theirs

    draft.cut(1 - rng.uniform(*preset.keep), preset)
    draft.repeat_bars(amount(preset.repeats))
    draft.swap_bars(amount(preset.swaps))
    draft.loop_beats(amount(preset.loops))
    draft.reverse_beats(amount(preset.reverses))
    draft.change_level(amount(preset.level_bars))
    draft.fade(rng.random() < preset.fade_in, rng.random() < preset.fade_out)
    if not draft.actions.any():  # too short for any of it: the smallest audible edit
        draft.repeat_bars(1)
    if not draft.actions.any():
        draft.loop_beats(1)
    return draft.actions


def random_edit(
    state: AudioState, passage: Passage, rng: np.random.Generator, change_rate: float
) -> IntArray:
    """The control: each beat gets, with probability `change_rate`, any action but KEEP.

    Illegal ones become KEEP, so fewer beats change than that. (passage.n_beats,) legal actions.
    """
    n = passage.n_beats
    actions = np.where(rng.random(n) < change_rate, rng.integers(1, N_ACTIONS, n), 0)
    phase = state.grid.bar_phase[passage.start_beat : passage.end_beat]
    return legalise(actions, phase, state.grid.beats_per_bar)[0]


class _Draft:
    """An edit being made: places are taken once, by whoever comes first."""

    def __init__(
        self, state: AudioState, passage: Passage, choosiness: float, rng: np.random.Generator
    ) -> None:
        batch = PassageBatch.from_passages([(state, passage)])
        self.distance = batch.context_distance[0].numpy()
        self.phase = batch.bar_phase[0].numpy()
        self.bar = state.grid.beats_per_bar
        self.n = passage.n_beats
        self.actions: IntArray = np.zeros(self.n, dtype=np.int64)
        self.taken: BoolArray = np.zeros(self.n, dtype=bool)
        self._choosiness = choosiness
        self._rng = rng

    def join_cost(self, follows: int, instead: int) -> float:
        """Of playing `instead` where beat `follows` would have followed."""
        if follows >= self.n or instead >= self.n:
            return _UNKNOWN_COST
        return float(self.distance[follows, instead])

    def _choose(self, spans: list[Span], cost: Callable[[int, int], float]) -> Span | None:
        """One of the free spans, the likelier the cheaper (Gumbel noise on the scaled cost)."""
        spans = [span for span in spans if not self.taken[span[0] : span[1]].any()]
        if not spans:
            return None
        scores = -self._choosiness * np.array([cost(*span) for span in spans])
        return spans[int(np.argmax(scores + self._rng.gumbel(size=len(spans))))]

    def _bars(self, count: int) -> list[Span]:
        """Stretches of `count` bars from any downbeat that fit in the passage."""
        length = count * self.bar
        return [(int(b), int(b) + length) for b in self._downbeats() if b + length <= self.n]

    def _downbeats(self) -> IntArray:
        return np.flatnonzero(self.phase == 0)

    def cut(self, share: float, preset: HeuristicPreset) -> None:
        """Cut bars or phrases until about `share` of the beats are gone."""
        ceiling = self.n - MIN_OUTPUT_BEATS
        left = min(share * self.n, ceiling)
        lengths = [bars * self.bar for bars in preset.cut_bars]
        starts = self._downbeats().tolist()
        # Only where a phrase is whole bars; cutting 8 beats out of a waltz breaks its metre.
        if self._rng.random() < preset.phrase_cuts and PHRASE_BEATS % self.bar == 0:
            lengths = [PHRASE_BEATS, 2 * PHRASE_BEATS]
            starts = list(range(0, self.n, PHRASE_BEATS))
        spans = [(a, a + b) for a in starts for b in lengths if a + b <= self.n]
        while left > 0:
            room = min(left + min(lengths) / 2, ceiling - int(self.taken.sum()))
            span = self._choose([(a, b) for a, b in spans if b - a <= room], self._cut_cost)
            if span is None:
                return
            self._take(span, Action.CUT)
            left -= span[1] - span[0]

    def _cut_cost(self, start: int, end: int) -> float:
        """Of the join that a cut makes, together with cuts that it touches."""
        while start > 0 and self.actions[start - 1] == Action.CUT:
            start -= 1
        while end < self.n and self.actions[end] == Action.CUT:
            end += 1
        return _EDGE_COST if start == 0 or end == self.n else self.join_cost(start, end)

    def _take(self, span: Span, action: Action, *, once: bool = False) -> None:
        self.taken[span[0] : span[1]] = True
        self.actions[span[0] : span[0] + 1 if once else span[1]] = action

    def repeat_bars(self, count: int) -> None:
        for _ in range(count):
            span = self._choose(self._bars(1), lambda a, b: self.join_cost(b, a))
            if span is None:
                return
            self._take(span, Action.REPEAT_BAR, once=True)

    def swap_bars(self, count: int) -> None:
        def cost(start: int, end: int) -> float:
            middle = start + self.bar
            joins = ((start, middle), (end, start), (middle, end))
            return float(np.mean([self.join_cost(*join) for join in joins]))

        for _ in range(count):
            span = self._choose(self._bars(2), cost)
            if span is None:
                return
            self._take(span, Action.SWAP_BAR, once=True)

    def _bar_ends(self) -> list[Span]:
        """The beats right before downbeats, where a stutter or a turn leads on."""
        return [(int(b) - 1, int(b)) for b in self._downbeats() if b > 0]

    def loop_beats(self, count: int) -> None:
        for _ in range(count):
            anywhere = self._rng.random() < 0.3 or not self._bar_ends()
            spans = [(b, b + 1) for b in range(self.n)] if anywhere else self._bar_ends()
            span = self._choose(spans, lambda a, b: self.join_cost(b, a))
            if span is None:
                return
            self._take(span, Action.LOOP)

    def reverse_beats(self, count: int) -> None:
        for _ in range(count):
            span = self._choose(self._bar_ends(), lambda a, b: 0.0)
            if span is None:
                return
            self._take(span, Action.REVERSE)

    def change_level(self, count: int) -> None:
        """Whole bars quieter or louder."""
        for _ in range(count):
            span = self._choose(self._bars(1), lambda a, b: 0.0)
            if span is None:
                return
            self._take(span, Action.GAIN_DOWN if self._rng.random() < 0.6 else Action.GAIN_UP)

    def fade(self, at_start: bool, at_end: bool) -> None:
        """A ramp over the first, or the last, beats that sound, where they are still free."""
        sounding = np.flatnonzero(self.actions != Action.CUT)
        first, stop = int(sounding[0]), int(sounding[-1]) + 1
        if at_start:
            self._fade((first, first + int(self._rng.choice([2, 4]))), Action.FADE_IN)
        if at_end:
            self._fade((stop - int(self._rng.choice([4, 8])), stop), Action.FADE_OUT)

    def _fade(self, span: Span, action: Action) -> None:
        if span[0] >= 0 and span[1] <= self.n and not self.taken[span[0] : span[1]].any():
            self._take(span, action)
