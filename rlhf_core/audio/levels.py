"""The loudness of an edit from its source's running energy: no edit is filtered as a whole.

Away from joins, an edit's K-weighted energy is the source's, times the gain squared, so prefix sums
give it at once. Round each join, and at both ends, a tenth of a second of the rendered audio is
really filtered, and the difference added; that brings the sum within a few thousandths of a LU of
the whole measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from scipy.signal import sosfilt

from rlhf_core.audio.loudness import (
    KWeighted,
    as_complex,
    gate_steps,
    gated_loudness,
    k_weighting,
)
from rlhf_core.audio.pieces import Piece
from rlhf_core.types import DoubleArray, FloatArray, IntArray

Read = Callable[[int, int], FloatArray]

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
        return self.weighted.at(place)

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


def _windows(pieces: Sequence[Piece], rate: int) -> list[tuple[int, int, int]]:
    """(from where to filter, from where to count, end) round each join and at both ends."""
    settle, before, after = (round(s * rate) for s in (_SETTLE_S, _BEFORE_S, _AFTER_S))
    end = pieces[-1].end
    centres = [0, *(piece.start for piece in pieces[1:]), end]
    low, windows = 0, []
    for centre in centres:
        low, high = max(low, centre - before), min(centre + after, end)
        if high > low:
            windows.append((max(low - settle, 0), low, high))
            low = high
    return windows


def _joins_beyond(
    energy: PlanEnergy, steps: IntArray, read: Read, windows: list[tuple[int, int, int]]
) -> DoubleArray:
    """(steps,) by how much the running energy is more than that of hard cuts."""
    sections = k_weighting(energy.weighted.rate)
    beyond = np.zeros(len(steps))
    for first, low, high in windows:
        filtered = sosfilt(sections, as_complex(read(first, high)))[low - first :]
        running = np.concatenate([[0.0], np.cumsum(filtered.real**2 + filtered.imag**2)])
        begin = int(np.searchsorted(steps, low, side="right"))
        end = int(np.searchsorted(steps, high))
        hard = energy.at(np.append(np.append(low, steps[begin:end]), high))
        beyond[begin:end] += running[steps[begin:end] - low] - (hard[1:-1] - hard[0])
        beyond[end:] += running[-1] - (hard[-1] - hard[0])
    return beyond


def plan_loudness(
    pieces: Sequence[Piece], weighted: KWeighted, first: int, read: Read | None = None
) -> float:
    """LUFS of a plan. read(start, end): its rendered samples; without it joins are not measured."""
    energy = PlanEnergy(pieces, weighted, first)
    steps = gate_steps(energy.end, weighted.rate)
    running = energy.at(steps)
    if read is not None:
        running += _joins_beyond(energy, steps, read, _windows(pieces, weighted.rate))
    return gated_loudness(running, weighted.rate)
