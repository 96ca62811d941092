"""From an edit decision list to audio: contiguous runs copied, joins cross-faded, levels matched.

Samples are (frames, channels) at the source's rate. A join overwrites a short window by an
equal-power cross-fade of what comes before and what comes after, each continued beyond its own edge
in the source: no length changes, so the beat grid is preserved. The window is centred a little
before the beat, so that its attack is cut as a whole. The two sides' gains are divided by
sqrt(1 + 2 rho g1 g2), rho being their correlation in the window: the level stays, and cross-fading
identical audio is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from rlhf_core.audio.io import Audio, write_audio
from rlhf_core.audio.levels import plan_loudness
from rlhf_core.audio.loudness import KWeighted, to_db, true_peak
from rlhf_core.audio.pieces import Piece, plan_pieces
from rlhf_core.editing.edl import EDL
from rlhf_core.errors import AudioError
from rlhf_core.types import FloatArray

CROSSFADE_S: Final = 0.05
EDGE_IN_S: Final = 0.003
EDGE_OUT_S: Final = 0.008
CEILING_DBTP: Final = -1.0
_RHO_RANGE: Final = (-0.5, 1.0)


def crossfade(before: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gains (frames, 1) for two sides of a join, both given in full over the window."""
    place = (np.arange(len(before), dtype=np.float64) + 0.5) / len(before)
    out, into = np.cos(0.5 * np.pi * place), np.sin(0.5 * np.pi * place)
    power = float(np.vdot(before, before)) * float(np.vdot(after, after))
    rho = float(np.vdot(before, after)) / np.sqrt(power) if power > 1e-20 else 0.0
    level = np.sqrt(1.0 + 2.0 * np.clip(rho, *_RHO_RANGE) * out * into)
    return (out / level).astype(np.float32)[:, None], (into / level).astype(np.float32)[:, None]


def render_pieces(
    samples: FloatArray, pieces: Sequence[Piece], rate: int, fade_s: float
) -> FloatArray:
    """(frames, channels) of a plan."""
    length = pieces[-1].end
    result = np.empty((length, samples.shape[1]), dtype=np.float32)
    for piece in pieces:
        run = piece.source(piece.start, piece.end, samples)
        if piece.flat:
            np.multiply(run, np.float32(piece.gain_start), out=result[piece.start : piece.end])
        else:
            gains = piece.gains(piece.start, piece.end)
            np.multiply(run, gains, out=result[piece.start : piece.end])
    for before, after in pairwise(pieces):
        room = min(before.end - before.start, after.end - after.start) // 2
        half = min(round(fade_s * rate / 2), room)
        start, end = after.start - half, after.start + half
        if half == 0:
            continue
        old, new = before.source(start, end, samples), after.source(start, end, samples)
        fall, rise = crossfade(old, new)
        result[start:end] = old * fall * before.gains(start, end)
        result[start:end] += new * rise * after.gains(start, end)
    _fade_edges(result, rate)
    return result


def _fade_edges(result: FloatArray, rate: int) -> None:
    """A few milliseconds at both ends of the whole edit, so that it neither starts nor stops with
    a click."""
    for seconds, edge in ((EDGE_IN_S, result), (EDGE_OUT_S, result[::-1])):
        count = min(round(seconds * rate), len(result) // 2)
        ramp = np.sin(0.5 * np.pi * (np.arange(count) + 0.5) / max(count, 1)) ** 2
        edge[:count] *= ramp.astype(np.float32)[:, None]


def render_edl(audio: Audio, edl: EDL, crossfade_s: float = CROSSFADE_S) -> FloatArray:
    """The edit as (frames, channels) float32 at the source's rate; round(duration * rate) frames.

    Raises AudioError where the edit reaches beyond the file.
    """
    return render_pieces(audio.samples, _plan(audio, edl), audio.sample_rate, crossfade_s)


def _plan(audio: Audio, edl: EDL) -> list[Piece]:
    if edl.beat_times[-1] > audio.duration_s + 0.05 or edl.beat_times[0] < 0:
        raise AudioError(
            f"{audio.path}: the edit reaches to {edl.beat_times[-1]:.2f} s but the file ends at "
            f"{audio.duration_s:.2f} s; it was made for another file"
        )
    return plan_pieces(edl, audio.sample_rate)


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
    audio: Audio, edl_a: EDL, edl_b: EDL, edl_original: EDL, crossfade_s: float = CROSSFADE_S
) -> RenderedPair:
    """Both edits and the original, at the original's loudness, all three lowered together until
    none exceeds CEILING_DBTP. Nothing is limited. A silent one keeps its level."""
    names, edls = ("a", "b", "original"), (edl_a, edl_b, edl_original)
    rate = audio.sample_rate
    plans = [_plan(audio, edl) for edl in edls]
    weighted, first = _weigh(audio, plans)
    rendered = [render_pieces(audio.samples, plan, rate, crossfade_s) for plan in plans]
    loudness = [
        plan_loudness(plan, weighted, first, samples)
        for plan, samples in zip(plans, rendered, strict=True)
    ]
    target = loudness[2]
    gains = [
        target - value if np.isfinite(value) and np.isfinite(target) else 0.0 for value in loudness
    ]
    highest = max(
        to_db(true_peak(samples)) + gain for samples, gain in zip(rendered, gains, strict=True)
    )
    lower = min(0.0, CEILING_DBTP - highest)
    for samples, gain in zip(rendered, gains, strict=True):
        samples *= np.float32(10 ** ((gain + lower) / 20))
    return RenderedPair(
        rendered[0],
        rendered[1],
        rendered[2],
        rate,
        {name: gain + lower for name, gain in zip(names, gains, strict=True)},
        float(target + lower) if np.isfinite(target) else None,
    )
