"""Edit decision lists: which stretches of the source play, in what order, at what gain.

`build_edl` is the one place that gives actions their meaning; the renderer, the player's map, the
waveform marks and the exports all read its result. Gains are linear amplitude factors. Output time
starts at 0 with the first segment; joins are cross-faded without changing any length, so a
segment's output length is exactly its source length and the beat grid is preserved.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rlhf_core.editing.actions import GAIN_DOWN_DB, GAIN_UP_DB, Action, legalise
from rlhf_core.errors import EditError
from rlhf_core.types import BeatGrid, DoubleArray, IntArray, Passage


class OutputBeat(NamedTuple):
    """One beat of output. source_beat counts over the whole song."""

    source_beat: int
    gain_start: float = 1.0
    gain_end: float = 1.0
    reverse: bool = False


@dataclass(frozen=True)
class Segment:
    """A contiguous stretch of source beats [start_beat, end_beat), with a linear gain ramp."""

    start_beat: int
    end_beat: int
    gain_start: float
    gain_end: float
    reverse: bool


@dataclass(frozen=True)
class EDL:
    """The segments of the source in output order, with the times of the passage's beats.

    beat_times: (n + 1,) seconds in the source, of the beats passage.start_beat..end_beat.
    """

    passage: Passage
    beat_times: DoubleArray
    beats: tuple[OutputBeat, ...]

    def __post_init__(self) -> None:
        if len(self.beat_times) != self.passage.n_beats + 1:
            raise EditError(
                f"{self.passage.n_beats} beats need {self.passage.n_beats + 1} times, "
                f"got {len(self.beat_times)}"
            )
        if not self.beats:
            raise EditError("an edit must leave at least one beat of output")

    def source_time(self, beat: int) -> float:
        """Seconds in the source at which a beat (numbered over the song) starts."""
        return float(self.beat_times[beat - self.passage.start_beat])

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Output beats merged into the longest runs that play straight through."""
        merged: list[Segment] = []
        for beat in self.beats:
            last = merged[-1] if merged else None
            if last is not None and _continues(last, beat):
                merged[-1] = Segment(
                    last.start_beat, beat.source_beat + 1, last.gain_start, beat.gain_end, False
                )
            else:
                merged.append(
                    Segment(
                        beat.source_beat, beat.source_beat + 1, *beat[1:3], reverse=beat.reverse
                    )
                )
        return tuple(merged)

    @property
    def output_times(self) -> DoubleArray:
        """(len(beats) + 1,) output seconds at which each output beat starts, then the end."""
        durations = np.diff(self.beat_times)
        index = [beat.source_beat - self.passage.start_beat for beat in self.beats]
        return np.concatenate([[0.0], np.cumsum(durations[index])])

    @property
    def duration_s(self) -> float:
        return float(self.output_times[-1])

    def to_json(self) -> dict[str, Any]:
        """The exported form: segments for people and renderers, `beats` as the player's map."""
        times, out, position = self.output_times, [], 0
        for segment in self.segments:
            count = segment.end_beat - segment.start_beat
            out.append(
                {
                    "start_beat": segment.start_beat,
                    "end_beat": segment.end_beat,
                    "start_s": self.source_time(segment.start_beat),
                    "end_s": self.source_time(segment.end_beat),
                    "out_start_s": float(times[position]),
                    "out_end_s": float(times[position + count]),
                    "gain_start": segment.gain_start,
                    "gain_end": segment.gain_end,
                    "reverse": segment.reverse,
                }
            )
            position += count
        beats = [
            [beat.source_beat, float(times[i]), float(times[i + 1] - times[i]), int(beat.reverse)]
            for i, beat in enumerate(self.beats)
        ]
        return {
            "version": 1,
            "passage": {
                "start_beat": self.passage.start_beat,
                "end_beat": self.passage.end_beat,
                "start_s": float(self.beat_times[0]),
                "end_s": float(self.beat_times[-1]),
            },
            "duration_s": self.duration_s,
            "segments": out,
            "beats": beats,
        }

    def to_csv(self) -> str:
        """Segments as CSV with a header line."""
        rows = self.to_json()["segments"]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()

    def to_audacity_labels(self) -> str:
        """Tab-separated label track over the output: start, end, which source beats play."""
        lines = []
        for row in self.to_json()["segments"]:
            text = f"beats {row['start_beat']}-{row['end_beat'] - 1}"
            if row["reverse"]:
                text += " reversed"
            if (row["gain_start"], row["gain_end"]) != (1.0, 1.0):
                text += f" gain {row['gain_start']:.2f}>{row['gain_end']:.2f}"
            lines.append(f"{row['out_start_s']:.6f}\t{row['out_end_s']:.6f}\t{text}\n")
        return "".join(lines)


def _continues(last: Segment, beat: OutputBeat) -> bool:
    """Whether a beat plays straight on from a segment, without a join or a bend in the gain."""
    if last.reverse or beat.reverse or beat.source_beat != last.end_beat:
        return False
    flat = last.gain_start == last.gain_end == beat.gain_start == beat.gain_end
    slope = (last.gain_end - last.gain_start) / (last.end_beat - last.start_beat)
    ramp = last.gain_end == beat.gain_start and slope != 0
    return flat or (ramp and abs(slope - (beat.gain_end - beat.gain_start)) < 1e-6)


def concatenate_edls(edls: Sequence[EDL]) -> EDL:
    """One edit of a whole song from the edits of its passages, in song order.

    What plays straight on across a passage's border does so without a join; anywhere else the
    border is a join like those inside.
    Raises EditError where passages leave a gap, overlap, or disagree about the beat between them.
    """
    if not edls:
        raise EditError("there is no edit to put together: give at least one passage's")
    for before, after in pairwise(edls):
        end, start = before.passage.end_beat, after.passage.start_beat
        if end != start:
            raise EditError(
                f"the edit of {before.passage} ends at beat {end}, the next starts at {start}; "
                "give the passages in song order, without gaps"
            )
        if before.beat_times[-1] != after.beat_times[0]:
            raise EditError(
                f"beat {end} lies at {before.beat_times[-1]:.4f} s for one passage and at "
                f"{after.beat_times[0]:.4f} s for the next; both must use the same beat grid"
            )
    times = np.concatenate([edls[0].beat_times[:1], *(edl.beat_times[1:] for edl in edls)])
    beats = tuple(beat for edl in edls for beat in edl.beats)
    return EDL(Passage(edls[0].passage.start_beat, edls[-1].passage.end_beat), times, beats)


def _fade_gains(actions: IntArray) -> dict[int, tuple[float, float]]:
    """Gain ramp of every faded beat: a run of n equal fades is one ramp cut into n equal steps."""
    gains: dict[int, tuple[float, float]] = {}
    beat = 0
    while beat < len(actions):
        kind = actions[beat]
        if kind not in (Action.FADE_IN, Action.FADE_OUT):
            beat += 1
            continue
        end = beat
        while end < len(actions) and actions[end] == kind:
            end += 1
        steps = np.linspace(0.0, 1.0, end - beat + 1)
        ramp = steps if kind == Action.FADE_IN else steps[::-1]
        for i in range(end - beat):
            gains[beat + i] = (float(ramp[i]), float(ramp[i + 1]))
        beat = end
    return gains


def build_edl(actions: Sequence[int] | IntArray, grid: BeatGrid, passage: Passage) -> EDL:
    """What a passage's actions mean.

    Args: actions (passage.n_beats,); illegal ones count as KEEP.
    Raises EditError on wrong count, ids, or a passage outside the song.
    """
    if passage.end_beat > grid.n_beats:
        raise EditError(f"passage ends at beat {passage.end_beat}, the song has {grid.n_beats}")
    phase = grid.bar_phase[passage.start_beat : passage.end_beat]
    legal, _ = legalise(actions, phase, grid.beats_per_bar)
    fades, bar, first = _fade_gains(legal), grid.beats_per_bar, passage.start_beat
    down, up = 10 ** (GAIN_DOWN_DB / 20), 10 ** (GAIN_UP_DB / 20)
    out: list[OutputBeat] = []
    beat = 0
    while beat < len(legal):
        action, source = Action(int(legal[beat])), first + beat
        if action in (Action.REPEAT_BAR, Action.SWAP_BAR):
            this = [OutputBeat(source + i) for i in range(bar)]
            following = [OutputBeat(source + bar + i) for i in range(bar)]
            out += this + this if action == Action.REPEAT_BAR else following + this
            beat += bar if action == Action.REPEAT_BAR else 2 * bar
            continue
        if action == Action.LOOP:
            out += [OutputBeat(source)] * 2
        elif action in (Action.FADE_IN, Action.FADE_OUT):
            out.append(OutputBeat(source, *fades[beat]))
        elif action in (Action.GAIN_DOWN, Action.GAIN_UP):
            gain = down if action == Action.GAIN_DOWN else up
            out.append(OutputBeat(source, gain, gain))
        elif action == Action.REVERSE:
            out.append(OutputBeat(source, reverse=True))
        elif action == Action.KEEP:
            out.append(OutputBeat(source))
        beat += 1
    times = grid.times[passage.start_beat : passage.end_beat + 1]
    return EDL(passage, times, tuple(out))


def edl_from_json(data: dict[str, Any], beat_times: DoubleArray) -> EDL:
    """Read back `EDL.to_json`. beat_times as in `EDL`. Raises EditError on a malformed list."""
    try:
        passage = Passage(int(data["passage"]["start_beat"]), int(data["passage"]["end_beat"]))
        beats: list[OutputBeat] = []
        for row in data["segments"]:
            start, end = int(row["start_beat"]), int(row["end_beat"])
            if not passage.start_beat <= start < end <= passage.end_beat:
                raise EditError(f"segment {start}..{end} lies outside the passage {passage}")
            ramp = np.linspace(float(row["gain_start"]), float(row["gain_end"]), end - start + 1)
            beats += [
                OutputBeat(start + i, float(ramp[i]), float(ramp[i + 1]), bool(row["reverse"]))
                for i in range(end - start)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise EditError(f"not an edit decision list: {error!r}") from error
    return EDL(passage, beat_times, tuple(beats))
