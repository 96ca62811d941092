"""The loudness of an edit from its source's running energy: no edit is filtered as a whole.

Away from joins, an edit's K-weighted energy is the source's, times the gain squared, so prefix sums
give it at once. Round each join a tenth of a second of the rendered audio is really filtered, and
the difference added; that brings the sum within a few thousandths of a LU of the whole measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.signal import sosfilt

from rlhf_core.audio.loudness import STEP_S, KWeighted, gated_loudness, k_weighting
from rlhf_core.audio.pieces import Piece
from rlhf_core.types import DoubleArray, FloatArray, IntArray

_RAMP_STEP: Final = 1024  # a gain ramp counts as constant over so many samples
_SETTLE_S, _BEFORE_S, _AFTER_S = 0.06, 0.03, 0.06  # filtered round each join


class PlanEnergy:
    """Running K-weighted energy of a plan's output, joins taken as hard cuts.

    first: the source sample at which `weighted` begins.
    """

    def __init__(self, pieces: Sequence[Piece], weighted: KWeighted, first: int = 0) -> None:
        self.weighted, self.first = weighted, first
        self.end = pieces[-1].end
        self.starts, self.origins, self.directions, self.squares = _flat_parts(pieces)
        index, ends = np.arange(len(self.starts)), np.append(self.starts[1:], self.end)
        self.begun = self._source(self.starts, index)
        spent = self.squares * np.abs(self._source(ends, index) - self.begun)
        self.before = np.concatenate([[0.0], np.cumsum(spent)[:-1]])

    def _source(self, output: IntArray, part: IntArray) -> DoubleArray:
        place = self.origins[part] + self.directions[part] * output - self.first
        energy = self.weighted.energy
        return np.asarray(energy[np.clip(place, 0, len(energy) - 1)])

    def at(self, output: IntArray) -> DoubleArray:
        """Energy of all output before each of these output samples."""
        output = np.clip(output, 0, self.end)
        part = np.searchsorted(self.starts, output, side="right") - 1
        spent = np.abs(self._source(output, part) - self.begun[part])
        return np.asarray(self.before[part] + self.squares[part] * spent)


def _flat_parts(pieces: Sequence[Piece]) -> tuple[IntArray, IntArray, IntArray, DoubleArray]:
    """Output starts, origins, directions and squared gains of parts with constant gain."""
    starts, origins, directions, squares = [], [], [], []
    for piece in pieces:
        step = piece.end - piece.start if piece.flat else _RAMP_STEP
        at = np.arange(piece.start, piece.end, step)
        middle = np.minimum(at + step / 2, piece.end)
        part = np.clip((middle - piece.ramp_start) / (piece.ramp_end - piece.ramp_start), 0.0, 1.0)
        starts.append(at)
        squares.append((piece.gain_start + (piece.gain_end - piece.gain_start) * part) ** 2)
        origins.append(np.full(len(at), piece.origin))
        directions.append(np.full(len(at), -1 if piece.reverse else 1))
    return (
        np.concatenate(starts),
        np.concatenate(origins),
        np.concatenate(directions),
        np.concatenate(squares),
    )


def _join_energy(
    energy: PlanEnergy, pieces: Sequence[Piece], rendered: FloatArray
) -> tuple[IntArray, DoubleArray]:
    """Where the joins are, and the energy that each has beyond the hard cut's."""
    rate = energy.weighted.rate
    settle, before, after = (round(s * rate) for s in (_SETTLE_S, _BEFORE_S, _AFTER_S))
    joins = np.array([piece.start for piece in pieces[1:]], dtype=np.int64)
    joins = joins[(joins >= settle + before) & (joins + after <= len(rendered))]
    if not len(joins):
        return joins, np.zeros(0)
    window = np.arange(-settle - before, after)
    true = np.zeros(len(joins))
    for channel in range(rendered.shape[1]):
        around = rendered[joins[:, None] + window[None, :], channel]
        filtered = sosfilt(k_weighting(rate), around, axis=1)[:, settle:]
        true += np.einsum("ij,ij->i", filtered, filtered)
    return joins, true - (energy.at(joins + after) - energy.at(joins - before))


def plan_loudness(
    pieces: Sequence[Piece],
    weighted: KWeighted,
    first: int = 0,
    rendered: FloatArray | None = None,
) -> float:
    """LUFS of a plan. With `rendered`, its (frames, channels), the joins are measured too."""
    energy = PlanEnergy(pieces, weighted, first)
    steps = np.arange(0, energy.end + 1, STEP_S * weighted.rate).astype(np.int64)
    running = energy.at(steps)
    if rendered is not None:
        joins, extra = _join_energy(energy, pieces, rendered)
        total = np.concatenate([[0.0], np.cumsum(extra)])
        running = running + total[np.searchsorted(joins, steps, side="right")]
    return gated_loudness(running, weighted.rate)
