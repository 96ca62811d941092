"""Writing the demo songs: styles, keys, chord progressions, form, melodies. No audio here.

A `Score` is notes and drum hits at (fractional) beat positions. Everything follows from one random
generator, so the same seed writes the same song for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np


class Hit(NamedTuple):
    """A drum hit. beat: position over the whole song; level: 0..1."""

    beat: float
    drum: str
    level: float


class Note(NamedTuple):
    """A note of one part ("bass", "chords", "lead"). length in beats; level 0..1."""

    beat: float
    part: str
    midi: int
    length: float
    level: float


class Section(NamedTuple):
    """A part of the form, in beats over the whole song."""

    name: str
    start_beat: int
    end_beat: int


@dataclass(frozen=True)
class Style:
    """A way of playing. Patterns have four steps a beat: X accent, x normal, o soft, . nothing."""

    name: str
    bpm: tuple[float, float]
    drums: dict[str, str]
    chorus: dict[str, str]
    comp: str
    bass: str
    timbres: dict[str, tuple[str, ...]]
    beats_per_bar: int = 4
    kit: int = 0
    swing: float = 0.5  # where the second half of a beat falls
    sixteenths: float = 0.5  # where the second quarter of a half beat falls
    sevenths: bool = False
    minor: bool = False
    room_s: float = 1.1


STYLES: Final[tuple[Style, ...]] = (
    Style(
        "pop",
        (104, 124),
        {"kick": "X.....x.X.......", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
        {"kick": "X..x..x.X.x.....", "snare": "....X.......X..o", "open": "..x...x...x...x."},
        "x.....x...x.....",
        "x.....x.x...x.x.",
        {"chords": ("piano", "guitar"), "bass": ("fingerbass",), "lead": ("synth", "brass")},
    ),
    Style(
        "swing",
        (118, 148),
        {"kick": "o.......o.......", "rim": "....x.......x...", "ride": "X...x.o.X...x.o."},
        {"kick": "x.......x.....o.", "brush": "....X.......X.o.", "ride": "X...X.o.X...X.o."},
        "....x.....x.....",
        "walking",
        {"chords": ("piano", "vibes"), "bass": ("upright",), "lead": ("clarinet", "brass")},
        kit=2,
        swing=0.64,
        sevenths=True,
        room_s=1.4,
    ),
    Style(
        "waltz",
        (116, 150),
        {"kick": "X...........", "brush": "....x...x...", "hat": "..o...o...o."},
        {"kick": "X...........", "snare": "....o...o...", "ride": "x...x...x..."},
        "....x...x...",
        "x...........",
        {"chords": ("piano", "guitar"), "bass": ("upright",), "lead": ("flute", "strings")},
        beats_per_bar=3,
        kit=2,
        room_s=1.8,
    ),
    Style(
        "house",
        (118, 127),
        {"kick": "X...X...X...X...", "clap": "....X.......X...", "hat": "..x...x...x...x."},
        {"kick": "X...X...X...X...", "clap": "....X.......X...", "open": "..X...X...X...X."},
        "..x..x....x..x..",
        "..x...x...x...x.",
        {"chords": ("pad", "organ"), "bass": ("synthbass",), "lead": ("synth", "square")},
        kit=1,
        minor=True,
    ),
    Style(
        "hip-hop",
        (86, 98),
        {"kick": "X......o..x.....", "snare": "....X.......X...", "hat": "x.x.x.xox.x.x.x."},
        {"kick": "X..o...o..x.....", "snare": "....X.......X..o", "hat": "x.xox.x.x.xox.xx"},
        "x.........x.....",
        "x......x..x.....",
        {"chords": ("epiano", "vibes"), "bass": ("synthbass",), "lead": ("square", "flute")},
        kit=1,
        sixteenths=0.6,
        sevenths=True,
        minor=True,
    ),
    Style(
        "rock",
        (124, 146),
        {"kick": "X.....x.X.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
        {"kick": "X...x...X.x.x...", "snare": "....X.......X...", "open": "X...X...X...X..."},
        "X.x.X.x.X.x.X.x.",
        "x.x.x.x.x.x.x.x.",
        {"chords": ("guitar", "organ"), "bass": ("fingerbass",), "lead": ("brass", "synth")},
        minor=True,
    ),
    Style(
        "bossa",
        (112, 132),
        {"kick": "X.....o.X.....o.", "rim": "x.....x.....x...", "shaker": "X.o.X.o.X.o.X.o."},
        {"kick": "X.....o.X.....o.", "rim": "x.....x...x..x..", "ride": "X.o.X.o.X.o.X.o."},
        "x...x.o...x.x...",
        "x.....o.x...o.o.",
        {"chords": ("guitar", "epiano"), "bass": ("upright",), "lead": ("flute", "vibes")},
        kit=2,
        sevenths=True,
        room_s=1.5,
    ),
    Style(
        "ballad",
        (84, 94),
        {"kick": "X.......x.......", "rim": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
        {"kick": "X.....x.X.......", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
        "x.o.x.o.x.o.x.o.",
        "x.......x...x...",
        {"chords": ("piano", "strings"), "bass": ("fingerbass",), "lead": ("strings", "clarinet")},
        room_s=2.2,
    ),
)

_MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
_MINOR: Final = (0, 2, 3, 5, 7, 8, 10)
_KEYS: Final = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
# Scale degrees (0 = tonic), one chord a bar.
_PROGRESSIONS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "verse": ((0, 4, 5, 3), (0, 5, 1, 4), (0, 3, 0, 4), (0, 2, 3, 4), (0, 5, 3, 4)),
    "chorus": ((3, 4, 0, 5), (5, 3, 0, 4), (0, 3, 5, 4), (1, 4, 0, 5)),
    "bridge": ((1, 4, 2, 5), (3, 0, 3, 4), (5, 2, 3, 4)),
}
_PROGRESSIONS_MINOR: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "verse": ((0, 5, 2, 6), (0, 3, 0, 6), (0, 6, 5, 6), (0, 3, 6, 2)),
    "chorus": ((5, 6, 0, 0), (0, 5, 2, 6), (3, 0, 6, 2), (5, 2, 6, 0)),
    "bridge": ((3, 6, 2, 5), (5, 5, 3, 6), (3, 0, 3, 6)),
}
_LEVELS: Final = {"X": 1.0, "x": 0.75, "o": 0.42}
_LEAD_RHYTHMS: Final = ("x.x.x...", "x...x.x.", "x.....x.", "..x.x.x.", "x.xxx.x.", "x.......")


@dataclass
class Score:
    """A written song. `times` and flaws come later (demo_songs)."""

    style: Style
    key: int
    bpm: float
    sections: list[Section]
    timbres: dict[str, str]
    hits: list[Hit] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def n_beats(self) -> int:
        return self.sections[-1].end_beat

    @property
    def key_name(self) -> str:
        return f"{_KEYS[self.key]} {'minor' if self.style.minor else 'major'}"

    @property
    def scale(self) -> tuple[int, ...]:
        return _MINOR if self.style.minor else _MAJOR


def _form(style: Style, bpm: float, rng: np.random.Generator) -> list[Section]:
    """Intro, verses and choruses, perhaps a bridge, outro: about 70 seconds."""
    bars = round(rng.uniform(66, 78) / (style.beats_per_bar * 60 / bpm))
    unit = 8 if bars >= 28 else 4
    names = ["verse", "chorus", "verse", "chorus", "bridge", "chorus", "verse", "chorus"]
    plan, left = [("intro", 4)], bars - 4
    for name in names:
        if left < unit + 2:
            break
        plan.append((name, unit))
        left -= unit
    plan.append(("outro", max(2, left)))
    sections, beat = [], 0
    for name, length in plan:
        end = beat + length * style.beats_per_bar
        sections.append(Section(name, beat, end))
        beat = end
    return sections


def _chord(score: Score, degree: int) -> list[int]:
    """Pitch classes above C of the chord on a scale degree, root first."""
    steps = (0, 2, 4, 6) if score.style.sevenths else (0, 2, 4)
    return [(score.key + score.scale[(degree + step) % 7]) % 12 for step in steps]


def _voice(classes: list[int], previous: list[int]) -> list[int]:
    """Chord tones near the middle of the keyboard, each near where the last chord was."""
    centre = float(np.mean(previous)) if previous else 60.0
    centre = 0.7 * centre + 0.3 * 60.0
    notes = [round((centre - pitch) / 12) * 12 + pitch for pitch in classes]
    return sorted(notes)


def _pattern(text: str) -> list[tuple[float, float]]:
    """(beat within the bar, level) of a pattern's steps."""
    return [(i / 4, _LEVELS[step]) for i, step in enumerate(text) if step in _LEVELS]


def _write_drums(score: Score, section: Section, rng: np.random.Generator) -> None:
    style, bar = score.style, score.style.beats_per_bar
    patterns = style.chorus if section.name in ("chorus", "bridge") else style.drums
    if section.name == "intro":
        patterns = {k: v for k, v in patterns.items() if k not in ("snare", "clap")}
    starts = range(section.start_beat, section.end_beat, bar)
    for start in starts:
        last = start + bar >= section.end_beat and section.name != "outro"
        for name, pattern in patterns.items():
            for step, level in _pattern(pattern):
                if last and step >= bar - 1 and name in ("hat", "open", "ride"):
                    continue
                score.hits.append(Hit(start + step, name, level * rng.uniform(0.85, 1.0)))
        if last:
            fill = "tom" if style.kit != 2 else "rim"
            for i in range(4):
                score.hits.append(Hit(start + bar - 1 + i / 4, fill, 0.45 + 0.12 * i))
    if section.name in ("chorus", "outro"):
        score.hits.append(Hit(section.start_beat, "crash", 0.8))


def _write_bass(score: Score, start: int, chord: list[int], following: list[int]) -> None:
    style, bar = score.style, score.style.beats_per_bar
    low = 36 + (chord[0] - 4) % 12 - 8
    if style.bass == "walking":
        target = low + (following[0] - chord[0] + 6) % 12 - 6
        line = [low, low + (chord[1] - chord[0]) % 12, low + (chord[2] - chord[0]) % 12, target - 1]
        for i in range(bar):
            score.notes.append(Note(start + i, "bass", line[i % 4], 0.9, 0.9 if i % 2 else 1.0))
        return
    steps = _pattern(style.bass)
    for i, (step, level) in enumerate(steps):
        end = steps[i + 1][0] if i + 1 < len(steps) else bar
        midi = low + (7 if i == len(steps) - 1 and len(steps) > 2 else 0)
        score.notes.append(Note(start + step, "bass", midi, min(end - step, 2.0) * 0.92, level))


def _write_chords(score: Score, start: int, voicing: list[int], quiet: bool) -> None:
    steps, bar = _pattern(score.style.comp), score.style.beats_per_bar
    if quiet:
        steps = steps[:1]
    for i, (step, level) in enumerate(steps):
        end = steps[i + 1][0] if i + 1 < len(steps) else bar
        for midi in voicing:
            score.notes.append(
                Note(start + step, "chords", midi, max(0.3, (end - step) * 0.95), level)
            )


def _motif(score: Score, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    """Two bars of melody: (beat, length in beats, scale step above the chord's root)."""
    bar, out, step = score.style.beats_per_bar, [], int(rng.choice([0, 2, 4]))
    position = 0.0
    while position < 2 * bar - 0.5:
        rhythm = _LEAD_RHYTHMS[rng.integers(len(_LEAD_RHYTHMS))]
        places = [i / 4 for i, mark in enumerate(rhythm) if mark == "x"] + [2.0]
        for here, after in pairwise(places):
            if position + here >= 2 * bar - 0.25:
                continue
            if (position + here) % bar == 0:
                step = int(rng.choice([0, 2, 4]))
            else:
                step = int(np.clip(step + rng.choice([-2, -1, -1, 1, 1, 2]), -3, 8))
            out.append((position + here, (after - here) * 0.9, step))
        position += 2.0
    return out


def _write_lead(
    score: Score, section: Section, degrees: list[int], rng: np.random.Generator
) -> None:
    """A A' B A over the section's bars, higher in a chorus; nothing in the intro."""
    bar, octave = score.style.beats_per_bar, 72 if section.name == "chorus" else 65
    motifs = [_motif(score, rng), _motif(score, rng)]
    for index, start in enumerate(range(section.start_beat, section.end_beat, 2 * bar)):
        motif = motifs[1] if index % 4 == 2 else motifs[0]
        for beat, length, step in motif:
            place = start + beat
            if place >= section.end_beat - 0.5:
                continue
            degree = degrees[min(int((place - section.start_beat) // bar), len(degrees) - 1)]
            if index % 4 == 1 and beat >= bar:
                step = max(-3, step - 1)
            scale_step = degree % 7 + step
            pitch = score.key + score.scale[scale_step % 7] + 12 * (scale_step // 7)
            midi = pitch + round((octave - pitch) / 12) * 12
            score.notes.append(Note(place, "lead", midi, length, float(rng.uniform(0.75, 1.0))))


def compose(seed: int) -> Score:
    """Write the song of a seed. Seeds 0..7 take each style once."""
    rng = np.random.default_rng([20240517, seed])
    style = STYLES[seed % len(STYLES)]
    bpm = float(np.round(rng.uniform(*style.bpm), 1))
    timbres = {part: names[rng.integers(len(names))] for part, names in style.timbres.items()}
    score = Score(style, int(rng.integers(12)), bpm, _form(style, bpm, rng), timbres)
    table = _PROGRESSIONS_MINOR if style.minor else _PROGRESSIONS
    chosen = {name: options[rng.integers(len(options))] for name, options in table.items()}
    lead_seeds = {name: int(rng.integers(1 << 30)) for name in ("verse", "chorus", "bridge")}
    voicing: list[int] = []
    for section in score.sections:
        kind = section.name if section.name in table else "verse"
        bars = (section.end_beat - section.start_beat) // style.beats_per_bar
        degrees = [chosen[kind][i % 4] for i in range(bars)]
        if section.name == "outro":
            degrees[-1] = 0
        _write_drums(score, section, rng)
        for i, degree in enumerate(degrees):
            start = section.start_beat + i * style.beats_per_bar
            chord = _chord(score, degree)
            voicing = _voice(chord, voicing)
            _write_chords(score, start, voicing, section.name in ("intro", "outro"))
            if section.name != "intro" or i >= bars // 2:
                _write_bass(score, start, chord, _chord(score, degrees[(i + 1) % bars]))
        if section.name in lead_seeds:
            _write_lead(score, section, degrees, np.random.default_rng(lead_seeds[section.name]))
    return score
