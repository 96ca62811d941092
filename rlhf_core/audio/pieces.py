"""What of the source sounds when: an edit decision list as stretches of samples.

Sample counts at the source's rate. A join lies LEAD_S before its beat, so that the beat's attack is
cut as a whole; everything else is where the list says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rlhf_core.editing.edl import EDL
from rlhf_core.errors import AudioError
from rlhf_core.types import FloatArray

LEAD_S: Final = 0.012


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


def plan_pieces(edl: EDL, rate: int) -> list[Piece]:
    """What sounds when, joins moved LEAD_S before their beats."""
    times, lead = edl.output_times, round(LEAD_S * rate)
    pieces: list[Piece] = []
    position, segments = 0, edl.segments
    for index, segment in enumerate(segments):
        count = segment.end_beat - segment.start_beat
        start, end = (round(float(times[at]) * rate) for at in (position, position + count))
        if end <= start:
            raise AudioError(f"a segment of {segment} has no samples at {rate} Hz")
        edge = segment.end_beat if segment.reverse else segment.start_beat
        source = round(edl.source_time(edge) * rate)
        origin = source + start if segment.reverse else source - start
        sounds_from = start - min(lead, start // 2) if index else 0
        if pieces:
            last = pieces[-1]
            sounds_from = max(sounds_from, (last.ramp_start + last.ramp_end) // 2)
            pieces[-1] = replace(last, end=sounds_from)
        pieces.append(
            Piece(
                sounds_from,
                end,
                origin,
                segment.reverse,
                segment.gain_start,
                segment.gain_end,
                start,
                end,
            )
        )
        position += count
    return pieces
