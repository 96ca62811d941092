"""Passages of songs as one padded batch of tensors.

Conventions: B passages, T beats of the longest one; beats are numbered from the passage's start;
features are raw (not normalised) and zero beyond a passage's end, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlhf_core.audio.feature_table import BEAT_FEATURES, DELTA_SOURCE, FEATURE_SLICES
from rlhf_core.errors import EditError
from rlhf_core.types import AudioState, Passage

_CLAMP_DEVIATIONS = 5.0
CONTEXT_BEATS = 4
# What a beat sounds like; where it stands in the bar and its changes are left out.
_SOUND = (
    *range(DELTA_SOURCE.start, DELTA_SOURCE.stop),
    *range(FEATURE_SLICES["stem_energy"].start, FEATURE_SLICES["stem_ratio"].stop),
)


@dataclass(frozen=True)
class PassageBatch:
    """B passages, padded to T beats.

    features: (B, T, 121) float32, zero beyond `lengths`.
    durations: (B, T) float32 seconds, zero beyond `lengths`.
    bar_phase: (B, T) long, 0 on a downbeat (0 beyond `lengths`, where nothing reads it).
    beats_per_bar, lengths: (B,) long.
    """

    features: Tensor
    durations: Tensor
    bar_phase: Tensor
    beats_per_bar: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        size, width = self.bar_phase.shape
        want = {
            "features": (size, width, BEAT_FEATURES),
            "durations": (size, width),
            "beats_per_bar": (size,),
            "lengths": (size,),
        }
        for name, shape in want.items():
            if tuple(getattr(self, name).shape) != shape:
                got = tuple(getattr(self, name).shape)
                raise EditError(f"passage batch: {name} has shape {got}, expected {shape}")

    @classmethod
    def from_passages(
        cls, items: Sequence[tuple[AudioState, Passage]], device: str | torch.device = "cpu"
    ) -> PassageBatch:
        """Cut passages out of their songs and pad them. Raises EditError when one ends too late."""
        if not items:
            raise EditError("a batch needs at least one passage")
        width = max(passage.n_beats for _, passage in items)
        features = torch.zeros(len(items), width, BEAT_FEATURES)
        durations = torch.zeros(len(items), width)
        phase = torch.zeros(len(items), width, dtype=torch.long)
        for row, (state, passage) in enumerate(items):
            grid, n = state.grid, passage.n_beats
            if passage.end_beat > grid.n_beats:
                raise EditError(
                    f"{state.song_id}: passage ends at beat {passage.end_beat}, "
                    f"the song has {grid.n_beats}"
                )
            part = slice(passage.start_beat, passage.end_beat)
            features[row, :n] = torch.as_tensor(state.features[part])
            durations[row, :n] = torch.as_tensor(grid.durations[part])
            phase[row, :n] = torch.as_tensor(grid.bar_phase[part])
        bars = torch.tensor([state.grid.beats_per_bar for state, _ in items])
        lengths = torch.tensor([passage.n_beats for _, passage in items])
        return cls(features, durations, phase, bars, lengths).to(device)

    @property
    def size(self) -> int:
        """B, the number of passages."""
        return self.bar_phase.shape[0]

    @property
    def width(self) -> int:
        """T, the beats of the longest passage."""
        return self.bar_phase.shape[1]

    @property
    def device(self) -> torch.device:
        return self.features.device

    @cached_property
    def beats(self) -> Tensor:
        """(1, T) long: 0, 1, 2 …"""
        return torch.arange(self.width, device=self.device)[None]

    @cached_property
    def valid(self) -> Tensor:
        """(B, T) bool: True on a passage's own beats."""
        return self.beats < self.lengths[:, None]

    @cached_property
    def standardised(self) -> Tensor:
        """(B, T, 121) features as deviations from the passage's own mean, within ±5, 0 as padding.

        Statistics are taken over valid beats only; a column that does not vary is 0.
        """
        valid = self.valid[..., None]
        count = self.lengths[:, None, None]
        mean = self.features.sum(1, keepdim=True) / count
        centred = (self.features - mean) * valid
        scale = (centred.square().sum(1, keepdim=True) / count).sqrt()
        # A constant column leaves rounding noise only: judge it against the size of its values.
        varies = scale > 1e-5 * (mean.abs() + 1e-6)
        standard = torch.where(varies, centred / scale.clamp(min=1e-12), 0.0)
        return standard.clamp(-_CLAMP_DEVIATIONS, _CLAMP_DEVIATIONS)

    @cached_property
    def sound_distance(self) -> Tensor:
        """(B, T, T) float64: how differently beats i and j sound, squared; 0 beyond an end.

        Mean square over the columns that describe sound, of standardised features, in units in
        which two unrelated beats are about 1 apart.
        """
        # In double precision: like beats are small differences of large sums.
        sound = self.standardised[..., list(_SOUND)].double()
        norm = sound.square().sum(-1)
        square = norm[:, :, None] + norm[:, None, :] - 2 * sound @ sound.transpose(1, 2)
        both = self.valid[:, :, None] & self.valid[:, None, :]
        return square.clamp(min=0) / (2 * len(_SOUND)) * both

    @cached_property
    def context_distance(self) -> Tensor:
        """(B, T, T): how differently the passage goes on from beat i and from beat j.

        Root mean square of `sound_distance` over the next 4 beats. Contexts that reach beyond the
        end are compared over the beats that both have; where one has none the distance is 0 and
        means nothing. It takes for granted that the source plays straight on from j; where an edit
        is known as a whole, `dense_reward.join_distances` hears what really follows.
        """
        square = self.sound_distance
        both = (self.valid[:, :, None] & self.valid[:, None, :]).to(square.dtype)
        total, count = torch.zeros_like(square), torch.zeros_like(square)
        for ahead in range(min(CONTEXT_BEATS, self.width)):
            end = self.width - ahead
            total[:, :end, :end] += square[:, ahead:, ahead:]
            count[:, :end, :end] += both[:, ahead:, ahead:]
        return (total / count.clamp(min=1)).sqrt().to(self.features.dtype)

    @cached_property
    def median_duration(self) -> Tensor:
        """(B,) seconds: the median length of a beat."""
        own = self.durations.masked_fill(~self.valid, float("nan"))
        return own.nanmedian(1).values

    def select(self, index: Tensor) -> PassageBatch:
        """The rows of a long index (N,), in its order; rows may repeat."""
        return PassageBatch(
            self.features[index],
            self.durations[index],
            self.bar_phase[index],
            self.beats_per_bar[index],
            self.lengths[index],
        )

    def to(self, device: str | torch.device) -> PassageBatch:
        """The same batch on a device (itself where it is there already)."""
        if torch.device(device) == self.device:
            return self
        return PassageBatch(
            self.features.to(device),
            self.durations.to(device),
            self.bar_phase.to(device),
            self.beats_per_bar.to(device),
            self.lengths.to(device),
        )
