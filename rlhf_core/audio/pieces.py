"""What of the source sounds when: an edit decision list as stretches of samples.

Sample counts at the source's rate. A join lies LEAD_S before the attack that it leads to, so that
the attack is cut as a whole. Beats are seldom exactly on their attacks: so the attack is looked for
near the beat, on both sides of the join, and the earlier one counts. Only the moment of changing
over moves: whatever sounds, sounds where the list says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rlhf_core.editing.edl import EDL
from rlhf_core.errors import AudioError
from rlhf_core.types import FloatArray

LEAD_S: Final = 0.012
EARLY_S, LATE_S = 0.03, 0.02  # how far from its beat an attack is looked for
_FRAME_S: Final = 0.001
_PAST, _NEXT = 12, 5  # frames compared: before the attack, from it on
_RISE: Final = 4.0  # of the power; anything that rises less is no attack


@dataclass(frozen=True)
class Piece:
    """A stretch of output that plays straight through the source.

    Output boundary n (between samples n - 1 and n) lies at source boundary `origin + n`, or, in
    reverse, `origin - n`. It sounds over [start, end); its gain ramps linearly over the segment's
    own [ramp_start, ramp_end) and is held outside.
    """

    start: int
    end: int
    origin: int
    reverse: bool
    gain_start: float
    gain_end: float
    ramp_start: int
    ramp_end: int

    @property
    def flat(self) -> bool:
        return self.gain_start == self.gain_end

    def source(self, start: int, end: int, samples: FloatArray) -> FloatArray:
        """Source samples that play over [start, end) of the output, zeros outside the file."""
        first, last = self.boundaries(start, end)
        inside = samples[max(first, 0) : max(min(last, len(samples)), 0)]
        if first < 0 or last > len(samples):
            before = min(max(-first, 0), last - first)
            after = last - first - before - len(inside)
            inside = np.pad(inside, ((before, after), (0, 0)))
        return inside[::-1] if self.reverse else inside

    def boundaries(self, start: int, end: int) -> tuple[int, int]:
        """Source range (in rising order) of the output range [start, end)."""
        if self.reverse:
            return self.origin - end, self.origin - start
        return self.origin + start, self.origin + end

    def gains(self, start: int, end: int) -> FloatArray:
        """(end - start, 1) gains of the output range."""
        n = np.arange(start, end, dtype=np.float64) + 0.5
        part = np.clip((n - self.ramp_start) / (self.ramp_end - self.ramp_start), 0.0, 1.0)
        gain = self.gain_start + (self.gain_end - self.gain_start) * part
        return gain.astype(np.float32)[:, None]


def attack_offset(samples: FloatArray, rate: int) -> int | None:
    """Where the steepest rise of a stretch round a beat is, in samples after the beat.

    samples: (frames, channels) from EARLY_S + _PAST frames before the beat to LATE_S + _NEXT
    frames after it. None where nothing rises by _RISE. The first difference stands for loudness:
    attacks are bright, and a bass note that rings on must not hide them.
    """
    hop = max(round(_FRAME_S * rate), 1)
    bright = np.diff(samples, axis=0)
    count = len(bright) // hop
    power = np.einsum("ijk,ijk->i", *[bright[: count * hop].reshape(count, hop, -1)] * 2)
    running = np.concatenate([[0.0], np.cumsum(power, dtype=np.float64)])
    middle = np.arange(_PAST, count - _NEXT + 1)
    past = (running[middle] - running[middle - _PAST]) / _PAST
    following = (running[middle + _NEXT] - running[middle]) / _NEXT
    # a rise out of near silence counts only where it reaches what is usual in this stretch
    rise = following / (past + 0.1 * running[-1] / count + 1e-12)
    best = int(np.argmax(rise))
    if rise[best] < _RISE:
        return None
    return best * hop - round(EARLY_S * rate)


def _lead(old: Piece, new: Piece, place: int, samples: FloatArray, rate: int) -> int:
    """By how many samples the join at output boundary `place` comes early."""
    hop = max(round(_FRAME_S * rate), 1)
    low = place - round(EARLY_S * rate) - _PAST * hop
    high = place + round(LATE_S * rate) + _NEXT * hop + 1
    offsets = [attack_offset(side.source(low, high, samples), rate) for side in (old, new)]
    return round(LEAD_S * rate) - min((x for x in offsets if x is not None), default=0)


def plan_pieces(edl: EDL, rate: int, samples: FloatArray) -> list[Piece]:
    """What sounds when, joins moved before the attacks in samples, (frames, channels)."""
    times = edl.output_times
    pieces: list[Piece] = []
    position = 0
    for segment in edl.segments:
        count = segment.end_beat - segment.start_beat
        start, end = (round(float(times[at]) * rate) for at in (position, position + count))
        if end <= start:
            raise AudioError(f"a segment of {segment} has no samples at {rate} Hz")
        edge = segment.end_beat if segment.reverse else segment.start_beat
        source = round(edl.source_time(edge) * rate)
        piece = Piece(
            start,
            end,
            source + start if segment.reverse else source - start,
            segment.reverse,
            segment.gain_start,
            segment.gain_end,
            start,
            end,
        )
        if pieces:
            last = pieces[-1]
            place = start - _lead(last, piece, start, samples, rate)
            earliest = max(last.start + 1, (last.ramp_start + last.ramp_end) // 2)
            place = int(np.clip(place, earliest, max(earliest, (start + end) // 2)))
            pieces[-1] = replace(last, end=place)
            piece = replace(piece, start=place)
        pieces.append(piece)
        position += count
    return pieces
