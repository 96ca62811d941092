"""Drawings of songs and edits as SVG text: the waveform with its beats, and what an edit does.

Time runs to the right in seconds; the view box is `SPAN` units wide whatever the length, so edits
of one pair are drawn to one scale by passing the longer one's length. Colours as in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from feedback_app.ui.text import Html, duration, esc, number

SPAN = 1000
PIXELS_PER_SECOND = 12  # wide enough to see single beats; the figure scrolls
KINDS = {
    "kept": "as it was",
    "repeat": "played again",
    "moved": "changed places",
    "louder": "louder",
    "quieter": "quieter",
    "fade": "fade",
    "reverse": "backwards",
    "cut": "cut out (in the original)",
}


def waveform(
    peaks: Sequence[float],
    duration_s: float,
    beats: Sequence[float],
    bar_phase: Sequence[int],
    *,
    title: str,
) -> Html:
    """The peaks (0..1) mirrored round a middle line, a stroke on every beat, taller on downbeats.

    beats: seconds; bar_phase: per beat, 0 = downbeat (may be shorter than beats: then no downbeat).
    """
    if not peaks or duration_s <= 0:
        return Html('<div class="fa-empty">This song has not been analysed.</div>')
    middle, half = 60.0, 44.0
    step = SPAN / len(peaks)
    top = [f"{i * step:.1f} {middle - half * _unit(p):.1f}" for i, p in enumerate(peaks)]
    bottom = [f"{i * step:.1f} {middle + half * _unit(p):.1f}" for i, p in enumerate(peaks)]
    outline = f"M{' L'.join(top)} L{' L'.join(reversed(bottom))}Z"
    marks = {True: "", False: ""}
    for i, beat in enumerate(beats):
        if 0 <= beat <= duration_s:
            down = i < len(bar_phase) and bar_phase[i] == 0
            x = f"{SPAN * beat / duration_s:.1f}"
            marks[down] += f"M{x} 6V114" if down else f"M{x} 98V114"
    times = "".join(
        f'<span style="left:{100 * s / duration_s:.2f}%">{duration(s)}</span>'
        for s in _marks(duration_s)
    )
    told = f"Waveform of {title}, {duration(duration_s)}, {len(beats)} beats"
    return Html(
        f'<figure class="fa-wave fa-scroll" tabindex="0"><div style="min-width:'
        f'{PIXELS_PER_SECOND * duration_s:.0f}px"><svg xmlns="http://www.w3.org/2000/svg" '
        f'role="img" viewBox="0 0 {SPAN} 120" preserveAspectRatio="none" aria-label="{esc(told)}">'
        f'<path class="wave" d="{outline}"/><path class="beat" d="{marks[False] or "M0 0"}"/>'
        f'<path class="downbeat" d="{marks[True] or "M0 0"}"/><path class="tapped" d="M0 0"/>'
        f'<path class="cursor" d="M0 0"/></svg>'
        f'<div class="fa-times">{times}</div></div></figure>'
    )


def _unit(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)


def _marks(duration_s: float) -> list[int]:
    step = next((s for s in (5, 10, 15, 30, 60, 120, 300) if duration_s / s <= 8), 600)
    return list(range(0, int(duration_s) + 1, step))


class Stretch(NamedTuple):
    """Output beats of one kind that follow each other in the source; linear gains at its ends."""

    kind: str
    first_beat: int
    last_beat: int
    out_start_s: float
    out_end_s: float
    gain_start: float = 1.0
    gain_end: float = 1.0


def _level(segment: Mapping[str, Any]) -> str:
    """What a segment does to the sound itself; '' where it only plays."""
    if segment["reverse"]:
        return "reverse"
    start, end = float(segment["gain_start"]), float(segment["gain_end"])
    if start != end:
        return "fade"
    return "" if start == 1.0 else ("louder" if start > 1.0 else "quieter")


def _order_kinds(sources: Sequence[int]) -> list[str]:
    """kept, repeat (sounded before) or moved (changed places with another), per output beat."""
    lowest_after: list[float] = [float("inf")] * (len(sources) + 1)
    for i in range(len(sources) - 1, -1, -1):
        again = sources[i] in sources[:i]
        lowest_after[i] = lowest_after[i + 1] if again else min(sources[i], lowest_after[i + 1])
    kinds: list[str] = []
    played: set[int] = set()
    furthest = -1
    for i, beat in enumerate(sources):
        if beat in played:
            kinds.append("repeat")
            continue
        kinds.append("moved" if beat < furthest or beat > lowest_after[i + 1] else "kept")
        played.add(beat)
        furthest = max(furthest, beat)
    return kinds


def stretches(edl: Mapping[str, Any]) -> list[Stretch]:
    """An edit as a listener would tell it, from `EDL.to_json`, in playing order."""
    levels = [(_level(segment), *gains) for segment in edl["segments"] for gains in _gains(segment)]
    order = _order_kinds([int(beat[0]) for beat in edl["beats"]])
    found: list[Stretch] = []
    for (level, low, high), placed, (source, start, length, _) in zip(
        levels, order, edl["beats"], strict=True
    ):
        kind, beat = level or placed, int(source)
        last = found[-1] if found else None
        if last is not None and last.kind == kind and last.last_beat + 1 == beat:
            found[-1] = last._replace(last_beat=beat, out_end_s=start + length, gain_end=high)
        else:
            found.append(Stretch(kind, beat, beat, start, start + length, low, high))
    return found


def _gains(segment: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The gains at both ends of each beat of a segment."""
    count = int(segment["end_beat"]) - int(segment["start_beat"])
    start, end = float(segment["gain_start"]), float(segment["gain_end"])
    at = [start + (end - start) * i / count for i in range(count + 1)]
    return list(pairwise(at))


def edl_drawing(edl: Mapping[str, Any], *, span_s: float | None = None, name: str = "edit") -> Html:
    """An EDL (`EDL.to_json`): the passage with what was cut above, the edit as it plays below.

    A block's height is its level, so that louder, quieter and fades need no colour to be told.
    span_s: seconds that the drawing is wide (default: the longer of passage and edit).
    """
    passage = edl["passage"]
    source_s = float(passage["end_s"]) - float(passage["start_s"])
    total = span_s or max(source_s, float(edl["duration_s"]))
    scale = SPAN / total
    parts = [_block("kept faint", 0.0, source_s * scale, 4, 16, "original passage")]
    for start, end in _cut_out(edl):
        text = f"cut: {number(end - start)} s from {number(start)} s"
        parts.append(_block("cut", start * scale, (end - start) * scale, 4, 16, text))
    for part in stretches(edl):
        x, width = part.out_start_s * scale, (part.out_end_s - part.out_start_s) * scale
        beats = f"source beats {part.first_beat}–{part.last_beat}"
        text = f"{KINDS[part.kind]}: {beats}, at {number(part.out_start_s)} s"
        heights = (_height(part.gain_start), _height(part.gain_end))
        parts.append(_wedge(part.kind, x, width, heights, text))
    told = f"{name}: {len(edl['segments'])} segments, {duration(edl['duration_s'])}"
    return Html(
        f'<svg class="fa-edl" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SPAN} 66" '
        f'preserveAspectRatio="none" role="img" aria-label="{esc(told)}">{"".join(parts)}</svg>'
    )


def _block(kind: str, x: float, width: float, y: int, height: int, text: str) -> str:
    classes = " ".join(f"e-{part}" for part in kind.split())
    return (
        f'<rect class="{classes}" x="{x:.2f}" y="{y}" width="{max(width - 1.5, 1):.2f}" '
        f'height="{height}" rx="2"><title>{esc(text)}</title></rect>'
    )


def _height(gain: float) -> float:
    """Drawing units of a linear gain: 26 as it was, at most 40."""
    return min(40.0, 26.0 * float(max(gain, 0.0) ** 0.7))


def _wedge(kind: str, x: float, width: float, heights: tuple[float, float], text: str) -> str:
    end = x + max(width - 1.5, 1)
    left, right = (max(66 - height, 24) for height in heights)
    d = f"M{x:.2f} 66V{left:.1f}L{end:.2f} {right:.1f}V66Z"
    return f'<path class="e-{kind}" d="{d}"><title>{esc(text)}</title></path>'


def _cut_out(edl: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Stretches of the passage that never sound: seconds from the passage's start.

    Segments hold the times of their own ends, and between two heard stretches lies what was cut.
    """
    passage = edl["passage"]
    first, end = float(passage["start_s"]), float(passage["end_s"])
    heard = sorted((float(s["start_s"]), float(s["end_s"])) for s in edl["segments"])
    gaps: list[tuple[float, float]] = []
    reached = first
    for start, stop in heard:
        if start > reached + 1e-6:
            gaps.append((reached - first, start - first))
        reached = max(reached, stop)
    if end > reached + 1e-6:
        gaps.append((reached - first, end - first))
    return gaps


def edl_legend() -> Html:
    """What the colours of an EDL drawing mean."""
    items = "".join(
        f'<span class="key"><i class="e-{kind}"></i>{esc(words)}</span>'
        for kind, words in KINDS.items()
    )
    return Html(f'<div class="fa-legend">{items}</div>')
