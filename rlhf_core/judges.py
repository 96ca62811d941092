"""Simulated annotators: programs that vote, for dry runs, tests and benchmarks only.

Nobody's taste is modelled here and no judge may stand in for a person: their votes are stored as
simulated and are left out of training and exports unless asked for. Each judge has one stated
taste, measured from the output order of an edit (which beats play when) and the beat features,
which the attributes that the reward model is pretrained on are made of, too; the measures below are
this module's own. Judges who share nothing with the pretraining are in `audio_judges`.

Conventions: B edits; a score is in units of about one standard deviation between random edits of
one passage, higher is better; scores compare edits of one passage only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from rlhf_core.audio.feature_table import FEATURE_SLICES, STEMS
from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import OutputOrder, PassageBatch, output_order, reward_inputs
from rlhf_core.errors import ConfigError
from rlhf_core.manner import Manner as Manner
from rlhf_core.manner import cast_vote as cast_vote
from rlhf_core.tastes import READING

BAR_BEATS: Final = 4  # over how many beats two moments are compared


class Heard:
    """What a judge hears of a batch of edits, beat by beat of the output (B, 2T)."""

    def __init__(self, batch: PassageBatch, actions: Tensor) -> None:
        self.batch = batch
        self.order: OutputOrder = output_order(batch, actions)
        self.legal = reward_inputs(batch, actions)[1]
        self.valid = self.order.valid.float()
        self.count = self.valid.sum(1).clamp(min=1)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the output beats: (B, 2T) -> (B,)."""
        return (values * self.valid).sum(1) / self.count

    def column(self, name: str, offset: int = 0) -> Tensor:
        """A feature over the output, in deviations from the passage's mean (B, 2T)."""
        column = FEATURE_SLICES[name].start + offset
        return self.order.take(self.batch.standardised[..., column])

    def _heard_sound(self, beats: Tensor) -> Tensor:
        """Timbre and chroma (B, N, 25) of beats (B, N), in deviations from the passage's mean."""
        sound = self.batch.standardised
        parts = [sound[..., FEATURE_SLICES[name]] for name in ("mfcc", "chroma")]
        index = beats[..., None].expand(-1, -1, sum(part.shape[-1] for part in parts))
        return torch.cat(parts, dim=-1).gather(1, index)

    @cached_property
    def length(self) -> Tensor:
        """(B,) seconds of output per second of passage."""
        return self.order.take(self.batch.durations).sum(1) / self.batch.durations.sum(1)

    @cached_property
    def loudness(self) -> Tensor:
        """(B, 2T) energy in deviations, gain included (6 dB is about one deviation)."""
        gain = self.order.gain.clamp(min=0.05)
        return (self.column("rms") + torch.log2(gain)) * self.valid

    @cached_property
    def expected(self) -> Tensor:
        """(B, 2T - 1) the beat that would have followed each output beat but the last."""
        last = self.batch.lengths[:, None] - 1
        return torch.minimum(self.order.source[:, :-1] + 1, last)

    @cached_property
    def jolts(self) -> Tensor:
        """(B,) unlikeness of what is heard at joins to what was expected, per output beat."""
        heard = self._heard_sound(self.order.source[:, 1:])
        wanted = self._heard_sound(self.expected)
        distance = (heard - wanted).square().mean(-1).sqrt()
        harsh = self.order.joins[:, 1:] * (0.3 + distance) + 0.5 * self.order.reverse[:, 1:]
        return harsh.sum(1) / self.count

    @cached_property
    def off_bar(self) -> Tensor:
        """(B,) joins that break the count of the bar, per output beat; reverses count half."""
        phase = self.batch.bar_phase.gather(1, self.order.source)
        counted = (phase[:, :-1] + 1) % self.batch.beats_per_bar[:, None]
        broken = self.order.joins[:, 1:] & (phase[:, 1:] != counted)
        return (broken + 0.5 * self.order.reverse[:, 1:]).sum(1) / self.count

    @cached_property
    def rise(self) -> Tensor:
        """(B,) loudness of the second half of the output less that of the first."""
        place = torch.arange(self.valid.shape[1], device=self.valid.device)
        late = (place[None] >= (self.count / 2)[:, None]) * self.valid
        early = self.valid - late
        ends = [(self.loudness * part).sum(1) / part.sum(1).clamp(min=1) for part in (late, early)]
        return ends[0] - ends[1]

    @cached_property
    def repeats(self) -> Tensor:
        """(B,) share of output beats heard before, and likeness of each bar to the last."""
        copies = self.mean(self.order.copy.float())
        played = torch.nn.functional.normalize(self._heard_sound(self.order.source), dim=-1)
        place = torch.arange(played.shape[1], device=played.device)[None]
        before = place - self.batch.beats_per_bar[:, None]
        rows = torch.arange(self.batch.size, device=played.device)[:, None]
        alike = (played * played[rows, before.clamp(min=0)]).sum(-1) * (before >= 0) * self.valid
        return copies + 0.5 * alike.sum(1) / self.count

    @cached_property
    def contrast(self) -> Tensor:
        """(B,) standard deviation of the loudness over the output."""
        centred = (self.loudness - self.mean(self.loudness)[:, None]) * self.valid
        return self.mean(centred.square()).sqrt()

    @cached_property
    def bar_distance(self) -> Tensor:
        """(B, T, T) root mean square distance of what is heard from beats i and j on, over a bar;
        infinite nearer than a bar, and beyond the passage's end.
        """
        beats = self.batch.beats.expand(self.batch.size, -1)
        sound = self._heard_sound(beats) * self.batch.valid[..., None]
        # Not by matrix products: their rounding would depend on the padding.
        plain = "donot_use_mm_for_euclid_dist"
        own = self.batch.valid[:, None, :] & self.batch.valid[:, :, None]
        apart = torch.cdist(sound, sound, compute_mode=plain).square() / sound.shape[-1] * own
        total = sum(
            torch.nn.functional.pad(apart[:, k:, k:], (0, k, 0, k)) for k in range(BAR_BEATS)
        )
        index = torch.arange(apart.shape[1], device=apart.device)
        far = (index[:, None] - index[None]).abs() >= BAR_BEATS
        distance = (torch.as_tensor(total) / BAR_BEATS).sqrt()
        return distance.masked_fill(~(far[None] & own), torch.inf)

    @cached_property
    def familiar(self) -> Tensor:
        """(B, T) how much more than the passage's average bar a bar from here on comes back."""
        nearest = self.bar_distance.topk(2, largest=False).values.clamp(max=3).mean(-1)
        count = self.batch.lengths[:, None]
        mean = (nearest * self.batch.valid).sum(1, keepdim=True) / count
        return (mean - nearest) * self.batch.valid

    @cached_property
    def flawed(self) -> Tensor:
        """(B, T) beats unlike all others of the passage, or much quieter: how far beyond usual."""
        quiet = (-2.0 - self.batch.standardised[..., FEATURE_SLICES["rms"].start]).clamp(min=0)
        odd = (-self.familiar - 0.3).clamp(min=0)
        return (odd + quiet) * self.batch.valid

    def stem(self, name: str) -> Tensor:
        """(B,) mean energy of a stem over the output, in deviations."""
        return self.mean(self.column("stem_energy", STEMS.index(name)) * self.order.gain)


@dataclass(frozen=True)
class Judge:
    """A simulated annotator. taste: what it likes, in words."""

    name: str
    taste: str
    rule: Callable[[Heard], Tensor]

    def score(self, batch: PassageBatch, actions: Tensor) -> Tensor:
        """How much the judge likes each edit. Shape: actions (B, T) -> (B,)."""
        with torch.no_grad():
            return self.rule(Heard(batch, actions))


def _tight(heard: Heard) -> Tensor:
    return -8.0 * (heard.length - 0.55).abs() - 2.0 * heard.jolts


def _long(heard: Heard) -> Tensor:
    return -6.0 * (heard.length - 1.0).abs() - 2.0 * heard.jolts


def _clean_joins(heard: Heard) -> Tensor:
    return -12.0 * heard.jolts - 2.0 * (0.5 - heard.length).clamp(min=0)


def _bar_true(heard: Heard) -> Tensor:
    return -20.0 * heard.off_bar - 2.0 * (0.5 - heard.length).clamp(min=0)


def _energy_build(heard: Heard) -> Tensor:
    return 2.5 * heard.rise - 2.0 * heard.jolts


def _hates_repetition(heard: Heard) -> Tensor:
    return -12.0 * heard.repeats


def _dynamic(heard: Heard) -> Tensor:
    return 8.0 * heard.contrast - 2.0 * heard.jolts


def _vocals_first(heard: Heard) -> Tensor:
    return 5.0 * heard.stem("vocals") - 3.0 * heard.jolts


def _steady_drums(heard: Heard) -> Tensor:
    return 4.0 * heard.stem("drums") - 8.0 * heard.off_bar


def _keeps_chorus(heard: Heard) -> Tensor:
    loud = heard.batch.standardised[..., FEATURE_SLICES["rms"].start]
    chorus = 2.0 * heard.familiar + 0.5 * loud
    missing = (chorus * (heard.legal == Action.CUT)).sum(1) / heard.batch.lengths
    return 3.0 * heard.mean(heard.order.take(chorus)) - 3.0 * missing - 2.0 * heard.jolts


def _no_flaws(heard: Heard) -> Tensor:
    return -12.0 * heard.mean(heard.order.take(heard.flawed)) - 2.0 * heard.jolts


def _mixture(heard: Heard) -> Tensor:
    return (
        -4.0 * (heard.length - 0.7).abs()
        - 6.0 * heard.jolts
        - 6.0 * heard.off_bar
        + heard.rise
        - 4.0 * heard.repeats
    )


_ALL: Final = (
    Judge("tight", READING["tight"], _tight),
    Judge("long", READING["long"], _long),
    Judge("clean_joins", READING["clean_joins"], _clean_joins),
    Judge("bar_true", READING["bar_true"], _bar_true),
    Judge("energy_build", READING["energy_build"], _energy_build),
    Judge("hates_repetition", READING["hates_repetition"], _hates_repetition),
    Judge("dynamic", READING["dynamic"], _dynamic),
    Judge("vocals_first", READING["vocals_first"], _vocals_first),
    Judge("steady_drums", READING["steady_drums"], _steady_drums),
    Judge("keeps_chorus", READING["keeps_chorus"], _keeps_chorus),
    Judge("no_flaws", READING["no_flaws"], _no_flaws),
    Judge("mixture", READING["mixture"], _mixture),
)
JUDGES: Final = MappingProxyType({judge.name: judge for judge in _ALL})


def judge_named(name: str) -> Judge:
    """A judge by name, or ConfigError listing them."""
    if name not in JUDGES:
        raise ConfigError(f"no judge {name!r}; there are: {', '.join(JUDGES)}")
    return JUDGES[name]
