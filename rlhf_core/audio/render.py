"""From an edit decision list to audio: contiguous runs copied, joins cross-faded, levels matched.

Samples are (frames, channels) at the source's rate. A join overwrites a short window by an
equal-power cross-fade of what comes before and what comes after, each continued beyond its own edge
in the source: no length changes, so the beat grid is preserved. The window is centred a little
before the beat, so that its attack is cut as a whole. The two sides' gains are divided by
sqrt(1 + 2 rho g1 g2), rho being their correlation in the window: the level stays, and cross-fading
identical audio is the identity.

A `Render` is read in stretches: measuring and writing hold one block at a time, so that an hour
costs no more memory than its source, and blocks stay in the cache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from rlhf_core.audio.io import BLOCK_FRAMES, Audio, write_audio, write_blocks
from rlhf_core.audio.levels import plan_loudness
from rlhf_core.audio.loudness import MARGIN, KWeighted, PeakMeter, to_db
from rlhf_core.audio.pieces import Piece, plan_pieces
from rlhf_core.editing.edl import EDL, concatenate_edls
from rlhf_core.errors import AudioError
from rlhf_core.types import FloatArray, IntArray

CROSSFADE_S: Final = 0.05
EDGE_IN_S: Final = 0.003
EDGE_OUT_S: Final = 0.008
CEILING_DBTP: Final = -1.0
_PEAK_SLACK_DB: Final = 0.1  # what 4x interpolation can miss against an ideal one, if clipped
_RHO_RANGE: Final = (-0.5, 1.0)


def crossfade(before: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gains (frames, 1) for two sides of a join, both given in full over the window."""
    place = (np.arange(len(before), dtype=np.float64) + 0.5) / len(before)
    out, into = np.cos(0.5 * np.pi * place), np.sin(0.5 * np.pi * place)
    power = float(np.vdot(before, before)) * float(np.vdot(after, after))
    rho = float(np.vdot(before, after)) / np.sqrt(power) if power > 1e-20 else 0.0
    level = np.sqrt(1.0 + 2.0 * np.clip(rho, *_RHO_RANGE) * out * into)
    return (out / level).astype(np.float32)[:, None], (into / level).astype(np.float32)[:, None]


class Render:
    """A plan ready to be read, any stretch of it at a time: what is long is never held whole.

    Attributes: samples (frames, channels) of the source; pieces; rate; frames of the output.
    """

    def __init__(
        self, samples: FloatArray, pieces: Sequence[Piece], rate: int, fade_s: float = CROSSFADE_S
    ) -> None:
        self.samples, self.pieces, self.rate = samples, pieces, rate
        self.frames, self.channels = pieces[-1].end, samples.shape[1]
        self._starts = [piece.start for piece in pieces]
        self._joins = [
            join for pair in pairwise(pieces) if (join := self._join(*pair, fade_s)) is not None
        ]
        self._join_ends = [start + len(window) for start, window in self._joins]

    @property
    def join_places(self) -> list[int]:
        """Output samples at which one stretch gives way to the next."""
        return self._starts[1:]

    def _join(self, before: Piece, after: Piece, fade_s: float) -> tuple[int, FloatArray] | None:
        """Where the cross-fade between two pieces starts, and its samples."""
        room = min(before.end - before.start, after.end - after.start) // 2
        half = min(round(fade_s * self.rate / 2), room)
        if half == 0:
            return None
        start, end = after.start - half, after.start + half
        old = before.source(start, end, self.samples)
        new = after.source(start, end, self.samples)
        fall, rise = crossfade(old, new)
        window = old * (fall * before.gains(start, end))
        window += new * (rise * after.gains(start, end))
        return start, window

    def read(self, start: int, end: int, out: FloatArray | None = None) -> FloatArray:
        """(end - start, channels) of the output; into `out` where that is given."""
        if out is None:
            out = np.empty((end - start, self.channels), dtype=np.float32)
        for piece in self.pieces[max(bisect_right(self._starts, start) - 1, 0) :]:
            low, high = max(piece.start, start), min(piece.end, end)
            if piece.start >= end:
                break
            run, part = piece.source(low, high, self.samples), out[low - start : high - start]
            gain = np.float32(piece.gain_start) if piece.flat else piece.gains(low, high)
            np.multiply(run, gain, out=part)
        for place, window in self._joins[bisect_right(self._join_ends, start) :]:
            if place >= end:
                break
            low, high = max(place, start), min(place + len(window), end)
            out[low - start : high - start] = window[low - place : high - place]
        self._fade_edges(start, end, out)
        return out

    def _fade_edges(self, start: int, end: int, out: FloatArray) -> None:
        """A few milliseconds at both ends of the whole edit, so that it neither starts nor stops
        with a click."""
        count = min(round(EDGE_IN_S * self.rate), self.frames // 2)
        if start < count:
            part = out[: min(count, end) - start]
            part *= _ramp(np.arange(start, start + len(part)), count)
        count = min(round(EDGE_OUT_S * self.rate), self.frames // 2)
        if end > self.frames - count:
            low = max(start, self.frames - count)
            out[low - start :] *= _ramp(self.frames - 1 - np.arange(low, end), count)

    def blocks(self, gain: float = 1.0) -> Iterator[FloatArray]:
        """The whole output in turn, times a gain. Each block is overwritten by the next."""
        room = np.empty((min(BLOCK_FRAMES, self.frames), self.channels), dtype=np.float32)
        for start in range(0, self.frames, BLOCK_FRAMES):
            end = min(start + BLOCK_FRAMES, self.frames)
            block = self.read(start, end, room[: end - start])
            block *= np.float32(gain)
            yield block

    def true_peak(self) -> float:
        """Largest magnitude of the output between samples as well as on them, linear."""
        meter = PeakMeter()
        for start in range(0, self.frames, BLOCK_FRAMES):
            end = min(start + BLOCK_FRAMES, self.frames)
            low, high = max(start - MARGIN, 0), min(end + MARGIN, self.frames)
            meter.add(self.read(low, high), start - low, high - end)
        return meter.peak


def _ramp(places: IntArray, count: int) -> FloatArray:
    """(n, 1): a squared sine over `count` samples."""
    ramp = np.sin(0.5 * np.pi * (places + 0.5) / count) ** 2
    return ramp.astype(np.float32)[:, None]


def render_edl(
    audio: Audio, edl: EDL | Sequence[EDL], crossfade_s: float = CROSSFADE_S
) -> FloatArray:
    """The edit as (frames, channels) float32 at the source's rate; round(duration * rate) frames.

    edl: one, or those of neighbouring passages, in song order, which are rendered as one.
    Raises AudioError where the edit reaches beyond the file.
    """
    render = _plan(audio, edl, crossfade_s)
    return render.read(0, render.frames)


def _plan(audio: Audio, edl: EDL | Sequence[EDL], crossfade_s: float) -> Render:
    if not isinstance(edl, EDL):
        edl = concatenate_edls(edl)
    if edl.beat_times[-1] > audio.duration_s + 0.05 or edl.beat_times[0] < 0:
        raise AudioError(
            f"{audio.path}: the edit reaches to {edl.beat_times[-1]:.2f} s but the file ends at "
            f"{audio.duration_s:.2f} s; it was made for another file"
        )
    pieces = plan_pieces(edl, audio.sample_rate, audio.samples)
    return Render(audio.samples, pieces, audio.sample_rate, crossfade_s)


@dataclass(frozen=True)
class Matched:
    """Renders that play at one loudness. gains_db: what each is changed by.

    loudness_lufs: None where the reference is silent.
    """

    renders: dict[str, Render]
    gains_db: dict[str, float]
    loudness_lufs: float | None

    def array(self, name: str) -> FloatArray:
        """(frames, channels) of one of them, whole."""
        render = self.renders[name]
        samples = render.read(0, render.frames)
        samples *= np.float32(10 ** (self.gains_db[name] / 20))
        return samples

    def write(self, folder: Path, suffix: str = ".flac") -> dict[str, Path]:
        """Each as folder/name.suffix, block by block, never held whole; returns the paths."""
        paths = {}
        for name, render in self.renders.items():
            paths[name] = folder / f"{name}{suffix}"
            gain = 10 ** (self.gains_db[name] / 20)
            write_blocks(paths[name], render.blocks(gain), render.rate, render.channels)
        return paths


def match_loudness(
    audio: Audio,
    edls: Mapping[str, EDL | Sequence[EDL]],
    reference: str = "original",
    crossfade_s: float = CROSSFADE_S,
) -> Matched:
    """Edits of one file at the loudness of one of them, lowered together until none exceeds
    CEILING_DBTP. Nothing is limited. A silent one keeps its level."""
    renders = {name: _plan(audio, edl, crossfade_s) for name, edl in edls.items()}
    weighted, first = _weigh(audio, [render.pieces for render in renders.values()])
    loudness = {
        name: plan_loudness(render.pieces, weighted, first, render.read)
        for name, render in renders.items()
    }
    target = loudness[reference]
    gains = {
        name: target - value if np.isfinite(value) and np.isfinite(target) else 0.0
        for name, value in loudness.items()
    }
    highest = max(to_db(render.true_peak()) + gains[name] for name, render in renders.items())
    lower = min(0.0, CEILING_DBTP - _PEAK_SLACK_DB - highest)
    return Matched(
        renders,
        {name: gain + lower for name, gain in gains.items()},
        float(target + lower) if np.isfinite(target) else None,
    )


@dataclass(frozen=True)
class RenderedPair:
    """Two edits and the original passage, at one loudness. gains_db: what each was changed by.

    loudness_lufs: None where the passage is silent.
    """

    a: FloatArray
    b: FloatArray
    original: FloatArray
    rate: int
    gains_db: dict[str, float]
    loudness_lufs: float | None

    def write(self, folder: Path, suffix: str = ".flac") -> dict[str, Path]:
        """Write a, b and original into a folder; returns their paths by name."""
        paths = {}
        for name in ("a", "b", "original"):
            paths[name] = folder / f"{name}{suffix}"
            write_audio(paths[name], getattr(self, name), self.rate)
        return paths


def _weigh(audio: Audio, plans: Sequence[Sequence[Piece]]) -> tuple[KWeighted, int]:
    """K-weighted energy of the stretch that the plans use, and where it starts. Half a second is
    added in front for the filter to settle."""
    ranges = [piece.boundaries(piece.start, piece.end) for plan in plans for piece in plan]
    low = max(0, min(low for low, _ in ranges) - audio.sample_rate // 2)
    high = min(len(audio.samples), max(high for _, high in ranges))
    return KWeighted.of(audio.samples[low:high], audio.sample_rate), low


def render_pair(
    audio: Audio,
    edl_a: EDL | Sequence[EDL],
    edl_b: EDL | Sequence[EDL],
    edl_original: EDL | Sequence[EDL],
    crossfade_s: float = CROSSFADE_S,
) -> RenderedPair:
    """Both edits and the original as `match_loudness` has them, whole."""
    edls = {"a": edl_a, "b": edl_b, "original": edl_original}
    matched = match_loudness(audio, edls, crossfade_s=crossfade_s)
    return RenderedPair(
        matched.array("a"),
        matched.array("b"),
        matched.array("original"),
        audio.sample_rate,
        matched.gains_db,
        matched.loudness_lufs,
    )
