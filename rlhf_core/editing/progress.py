"""How far an edit has come: the counters before each decision, and what follows from them.

Everything here broadcasts, so the same formulas serve one step of a roll-out (counters (B,), one
beat for all rows) and a whole edit at once (counters (B, T), one column per beat). `counters_at`
gives the latter in closed form; `rlhf_core.editing.dynamics.transition` moves the former on by
one beat. Tests hold the two, and `actions.legalise`, equal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlhf_core.editing.actions import MIN_OUTPUT_BEATS, N_ACTIONS, Action, output_count
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.errors import EditError
from rlhf_core.types import PASSAGE_MAX, PHRASE_BEATS

PHASES: Final = 8
RECENT_ACTIONS: Final = 4
RECENT_BEATS: Final = 8
_NO_ACTION: Final = N_ACTIONS  # stands for "before the passage" among the recent actions

# Counts in the history vector: how large each may grow, then scaled to 0..1.
_COUNT_LIMITS: Final = (
    ("beats_left", 32),
    ("length", PASSAGE_MAX),
    ("since_join", 16),
    ("cut_run", 32),
    ("output_phrase_position", PHRASE_BEATS),
    ("output_beats_missing", MIN_OUTPUT_BEATS),
)
_RATIOS: Final = ("position", "keep_density", "recent_keep_density", "output_ratio")
_FLAGS: Final = (
    "free",
    "can_cut",
    "can_repeat",
    "can_swap",
    "previous_cut",
    "join_pending",  # keeping this beat would make a join
    "bar_continues",  # the skipped stretch is a whole number of bars
    "phrase_continues",  # the skipped stretch is a whole number of 8-beat phrases
)
HISTORY: Final = (
    len(_RATIOS)
    + len(_COUNT_LIMITS)
    + len(_FLAGS)
    + PHASES  # position in the bar, one-hot
    + PHRASE_BEATS  # position in the passage's 8-beat phrase, one-hot
    + RECENT_ACTIONS * N_ACTIONS  # the last actions, one-hot, latest last
)


class Counters(NamedTuple):
    """What is known before a decision. All long, (B,) or (B, T).

    covered_until: first beat that no bar action covers.
    output_beats: beats of output so far (as in `actions.legalise`).
    last_kept: beat of the passage that sounds last in the output so far, -1 when none does.
    last_join: place in the output of the last join, 0 when there was none.
    kept_beats: how many of the beats so far are not cut.
    cut_run: how many beats right before this one are cut.
    """

    covered_until: Tensor
    output_beats: Tensor
    last_kept: Tensor
    last_join: Tensor
    kept_beats: Tensor
    cut_run: Tensor


class Effect(NamedTuple):
    """What legal actions do to the counters; rows or beats that are not live do nothing."""

    covered_until: Tensor  # 0 where no bar action begins
    output_beats: Tensor  # beats added
    last_kept: Tensor  # -1 where nothing new sounds
    last_join: Tensor  # 0 where no join comes


class _Tables(NamedTuple):
    added: Tensor  # (10,) output beats added, without a repeated bar
    bars: Tensor  # (10,) bars covered
    one_hot: Tensor  # (11, 10), last row zero
    eye: Tensor  # (8, 8)
    limits: Tensor  # (counts,) float


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> _Tables:
    # An action that repeats the bar adds beats_per_bar more; with 0 beats a bar that part is nil.
    added = torch.tensor([output_count(action, 0) for action in Action], device=device)
    bars = torch.zeros(N_ACTIONS, dtype=torch.long, device=device)
    bars[Action.REPEAT_BAR], bars[Action.SWAP_BAR] = 1, 2
    one_hot = torch.zeros(N_ACTIONS + 1, N_ACTIONS, device=device)
    one_hot[:N_ACTIONS] = torch.eye(N_ACTIONS, device=device)
    limits = torch.tensor([float(limit) for _, limit in _COUNT_LIMITS], device=device)
    return _Tables(added, bars, one_hot, torch.eye(PHASES, device=device), limits)


def legal_mask(
    beat: int | Tensor, counters: Counters, lengths: Tensor, phase: Tensor, bar: Tensor
) -> Tensor:
    """(…, 10) bool: legal actions. Covered beats and beats beyond the end allow KEEP alone."""
    left = lengths - beat
    free = (counters.covered_until <= beat) & (left > 0)
    downbeat = free & (phase == 0)
    mask = free[..., None].expand(*free.shape, N_ACTIONS).clone()
    mask[..., Action.KEEP] = True
    mask[..., Action.CUT] &= counters.output_beats + left > MIN_OUTPUT_BEATS
    mask[..., Action.REPEAT_BAR] = downbeat & (left >= bar)
    mask[..., Action.SWAP_BAR] = downbeat & (left >= 2 * bar)
    return mask


def action_effect(
    beat: int | Tensor, action: Tensor, free: Tensor, live: Tensor, before: Counters, bar: Tensor
) -> Effect:
    """What legal actions do. `before` needs last_kept and output_beats only."""
    tables = _tables(action.device)
    bars = tables.bars[action]
    is_bar = bars > 0
    stretch = torch.where(is_bar, bar, 1)  # source beats that play in a row from this action
    added = (tables.added[action] + (action == Action.REPEAT_BAR) * bar) * live
    sounds = free & (action != Action.CUT)
    joins = sounds & (before.last_kept >= 0) & (before.last_kept + 1 != beat)
    inner = is_bar | (action == Action.LOOP) | (action == Action.REVERSE)
    place = before.output_beats * (joins | inner) + stretch * inner
    return Effect(
        (beat + bars * bar) * is_bar,
        added,
        torch.where(sounds, beat + stretch - 1, -1),
        place,
    )


def recent(actions: Tensor, beat: int) -> tuple[Tensor, Tensor]:
    """The last 4 actions before a beat (B, 4), and how many of the last 8 are not cut (B,)."""
    last = actions[:, max(0, beat - RECENT_ACTIONS) : beat]
    if beat < RECENT_ACTIONS:
        last = pad(last, (RECENT_ACTIONS - beat, 0), value=_NO_ACTION)
    kept = (actions[:, max(0, beat - RECENT_BEATS) : beat] != Action.CUT).sum(1)
    return last, kept


def recent_at_all(actions: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """As `recent`, before every beat at once: (B, T, 4) and (B, T)."""
    width = actions.shape[1]
    padded = pad(actions, (RECENT_ACTIONS, 0), value=_NO_ACTION)
    last = padded.unfold(1, RECENT_ACTIONS, 1)[:, :width]
    kept = pad(((actions != Action.CUT) & valid).cumsum(1), (RECENT_BEATS + 1, 0))
    return last, kept[:, RECENT_BEATS : RECENT_BEATS + width] - kept[:, :width]


def history_vector(
    beat: int | Tensor,
    counters: Counters,
    mask: Tensor,
    lengths: Tensor,
    phase: Tensor,
    bar: Tensor,
    last_actions: Tensor,
    recent_kept: Tensor,
) -> Tensor:
    """(…, HISTORY) float32, all within 0..1; zero beyond the end of a passage."""
    tables = _tables(mask.device)
    beats = torch.as_tensor(beat, device=mask.device).expand(mask.shape[:-1])
    left = lengths - beats
    skipped = beats - 1 - counters.last_kept
    covered = counters.covered_until > beats
    pending = (counters.last_kept >= 0) & (skipped != 0) & ~covered
    flags = torch.stack(
        (
            mask[..., Action.FADE_IN],  # any free beat may fade
            mask[..., Action.CUT],
            mask[..., Action.REPEAT_BAR],
            mask[..., Action.SWAP_BAR],
            counters.cut_run > 0,
            pending,
            skipped % bar == 0,
            skipped % PHRASE_BEATS == 0,
        ),
        -1,
    )
    counts = torch.stack(
        (
            left,
            lengths,
            counters.output_beats - counters.last_join,
            counters.cut_run,
            counters.output_beats % PHRASE_BEATS,
            MIN_OUTPUT_BEATS - counters.output_beats,
        ),
        -1,
    ).clamp(min=0)  # within a bar action the last join lies ahead of the output so far
    past = beats.clamp(min=1)
    none = beats == 0
    ratios = torch.stack(
        (
            beats / lengths,
            (counters.kept_beats + none) / past,
            (recent_kept + none) / past.clamp(max=RECENT_BEATS),
            ((counters.output_beats + none) / past / 3).clamp(max=1.0),
        ),
        -1,
    )
    vector = torch.cat(
        (
            ratios,
            torch.minimum(counts, tables.limits) / tables.limits,
            flags,
            tables.eye[phase.clamp(max=PHASES - 1)],
            tables.eye[beats % PHRASE_BEATS],
            tables.one_hot[last_actions].flatten(-2),
        ),
        -1,
    )
    return vector * (left > 0)[..., None]


def _before(values: Tensor, start: int) -> Tensor:
    """Shift columns right by one: the value before each beat instead of after it."""
    return pad(values[:, :-1], (1, 0), value=start)


def _running_max(values: Tensor, start: int) -> Tensor:
    return _before(values.cummax(1).values, start)


def _assumed(batch: PassageBatch, actions: Tensor) -> tuple[Counters, Tensor]:
    """Counters before each beat and free (B, T), *if* these actions are legal."""
    beats, bar, valid = batch.beats, batch.beats_per_bar[:, None], batch.valid
    bars = _tables(actions.device).bars[actions]
    covered = _running_max((beats + bars * bar) * (bars > 0), 0)
    free = valid & (covered <= beats)
    kept = valid & (actions != Action.CUT)
    nothing = torch.zeros_like(actions)
    before = Counters(covered, nothing, nothing - 1, nothing, nothing, nothing)
    effect = action_effect(beats, actions, free, valid, before, bar)
    output = _before(effect.output_beats.cumsum(1), 0)
    last_kept = _running_max(effect.last_kept, -1)
    before = before._replace(output_beats=output, last_kept=last_kept)
    joins = action_effect(beats, actions, free, valid, before, bar).last_join
    # Padding counts as sounding; nothing reads its run of cuts.
    last_sound = _running_max(torch.where((actions != Action.CUT) | ~valid, beats, -1), -1)
    counters = Counters(
        covered,
        output,
        last_kept,
        _running_max(joins, 0),
        _before(kept.long().cumsum(1), 0),
        beats - 1 - last_sound,
    )
    return counters, free


def _mask_at_all(batch: PassageBatch, counters: Counters) -> Tensor:
    lengths, bar = batch.lengths[:, None], batch.beats_per_bar[:, None]
    return legal_mask(batch.beats, counters, lengths, batch.bar_phase, bar)


def check_actions(batch: PassageBatch, actions: Tensor) -> Tensor:
    """Actions (B, T) as long with KEEP beyond each passage's end; EditError on shape or ids."""
    if tuple(actions.shape) != (batch.size, batch.width):
        raise EditError(
            f"expected actions of shape {(batch.size, batch.width)}, got {tuple(actions.shape)}"
        )
    actions = torch.where(batch.valid, actions.long(), int(Action.KEEP))
    low, high = actions.aminmax()
    if int(low) < 0 or int(high) >= N_ACTIONS:
        raise EditError(f"action ids must be 0..{N_ACTIONS - 1}, got {int(low)}..{int(high)}")
    return actions


class Settled(NamedTuple):
    """Legal actions of whole edits and all that was known before each decision."""

    actions: Tensor  # (B, T) long
    free: Tensor  # (B, T) bool: a decision was taken here
    masks: Tensor  # (B, T, 10) bool
    counters: Counters  # (B, T) each


def settle(batch: PassageBatch, actions: Tensor) -> Settled:
    """Replace illegal actions by KEEP and say what was known before each decision.

    If no action is illegal given the counters that follow from taking all of them as legal, then
    by induction over the beats they are legal and the counters right. Else the edits are settled
    beat by beat.
    """
    actions = check_actions(batch, actions)
    counters, free = _assumed(batch, actions)
    masks = _mask_at_all(batch, counters)
    if not bool(masks.gather(2, actions[..., None]).all()):
        actions = _settle_slowly(batch, actions)
        counters, free = _assumed(batch, actions)
        masks = _mask_at_all(batch, counters)
    return Settled(actions, free, masks, counters)


def _settle_slowly(batch: PassageBatch, actions: Tensor) -> Tensor:
    covered = torch.zeros_like(batch.lengths)
    nothing, bar, bars = (
        torch.zeros_like(covered),
        batch.beats_per_bar,
        _tables(actions.device).bars,
    )
    output, columns = nothing, []
    for beat in range(batch.width):
        before = Counters(covered, output, nothing, nothing, nothing, nothing)
        mask = legal_mask(beat, before, batch.lengths, batch.bar_phase[:, beat], bar)
        wanted = actions[:, beat]
        action = torch.where(mask.gather(1, wanted[:, None])[:, 0], wanted, int(Action.KEEP))
        live = batch.valid[:, beat]
        effect = action_effect(beat, action, live, live, before, bar)
        covered = torch.where(bars[action] > 0, effect.covered_until, covered)
        output = output + effect.output_beats
        columns.append(action)
    return torch.stack(columns, 1)
