"""Synthesised demo songs with known beats, sections, stems and planted flaws.

`python -m rlhf_core.audio.demo_songs FOLDER --count 8` writes FLAC files (44.1 kHz, stereo,
60-90 s), and beside each `<name>.truth.json`: what was synthesised, so that tests, judges and
benchmarks know the truth. Each song has flaws that a good edit removes: a flubbed bar, a drop-out,
off-key notes, a false start. Every song is a pure function of its seed, and labelled synthetic.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from rlhf_core.audio.demo_compose import Hit, Note, Score, Section, compose
from rlhf_core.audio.demo_synth import RATE, TAKES, drum, note, reverb
from rlhf_core.audio.demo_synth import TIMBRES as _TIMBRES
from rlhf_core.audio.io import write_audio
from rlhf_core.command_line import guarded
from rlhf_core.errors import AudioError, ConfigError
from rlhf_core.files import write_json
from rlhf_core.types import BeatGrid, DoubleArray, FloatArray

STEM_OF_PART: Final = {"drums": "drums", "bass": "bass", "lead": "vocals", "chords": "other"}
FLAW_KINDS: Final = ("flubbed_bar", "silence", "off_key", "false_start")
_GAIN: Final = {"drums": 0.85, "bass": 1.35, "chords": 0.62, "lead": 1.05}
_SEND: Final = {"drums": 0.05, "bass": 0.0, "chords": 0.20, "lead": 0.24}
_PAN: Final = {"hat": 0.35, "open": 0.35, "ride": -0.4, "shaker": -0.45, "tom": -0.2, "crash": 0.3}
_TAIL_S: Final = 2.0


@dataclass(frozen=True)
class Flaw:
    """A planted mistake, in beats of the song: [start_beat, end_beat)."""

    kind: str
    start_beat: int
    end_beat: int


@dataclass(frozen=True)
class DemoSong:
    """samples: (frames, 2) float32 at 44.1 kHz. stems: dry, by stem name, (frames, 2)."""

    name: str
    seed: int
    samples: FloatArray
    stems: dict[str, FloatArray]
    grid: BeatGrid
    sections: tuple[Section, ...]
    flaws: tuple[Flaw, ...]
    style: str
    key: str

    def truth(self) -> dict[str, Any]:
        """What is known about the song, as JSON."""
        times = self.grid.times
        return {
            "synthetic": True,
            "generator": "rlhf_core.audio.demo_songs",
            "name": self.name,
            "seed": self.seed,
            "style": self.style,
            "key": self.key,
            "tempo_bpm": self.grid.tempo_bpm,
            "beats_per_bar": self.grid.beats_per_bar,
            "beat_times": [round(float(t), 5) for t in times],
            "bar_phase": self.grid.bar_phase.tolist(),
            "sections": [section._asdict() for section in self.sections],
            "flaws": [
                {
                    "kind": flaw.kind,
                    "start_beat": flaw.start_beat,
                    "end_beat": flaw.end_beat,
                    "start_s": round(float(times[flaw.start_beat]), 5),
                    "end_s": round(float(times[flaw.end_beat]), 5),
                }
                for flaw in self.flaws
            ],
            "stem_energy_db": {
                name: _beat_energy(stem, times).tolist() for name, stem in self.stems.items()
            },
        }


def _beat_energy(stem: FloatArray, times: DoubleArray) -> DoubleArray:
    """(n,) mean power of each beat in dB, floored at -100."""
    edges = np.clip((times * RATE).astype(int), 0, len(stem))
    total = np.concatenate([[0.0], np.cumsum((stem.astype(np.float64) ** 2).mean(axis=1))])
    power = np.diff(total[edges]) / np.maximum(np.diff(edges), 1)
    return np.asarray(np.round(10 * np.log10(np.maximum(power, 1e-10)), 2))


def _false_start(score: Score) -> Flaw:
    """Put two bars in front: the beginning, broken off, then a count-in."""
    bar = score.style.beats_per_bar
    extra, stop = 2 * bar, bar - 0.6
    hits = [hit for hit in score.hits if hit.beat < stop]
    notes = [n for n in score.notes if n.beat < stop]
    score.hits[:] = [hit._replace(beat=hit.beat + extra) for hit in score.hits]
    score.notes[:] = [n._replace(beat=n.beat + extra) for n in score.notes]
    score.sections[:] = [
        section._replace(start_beat=section.start_beat + extra, end_beat=section.end_beat + extra)
        for section in score.sections
    ]
    score.sections.insert(0, Section("false_start", 0, extra))
    score.notes += notes
    score.hits += hits + [Hit(bar + i, "stick", 0.9) for i in range(bar)]
    return Flaw("false_start", 0, extra)


def _flub_bar(score: Score, start: int, rng: np.random.Generator) -> Flaw:
    """One bar in which the players lose each other: late, early, missing and wrong notes."""
    end = start + score.style.beats_per_bar

    def spoil_note(n: Note) -> Note | None:
        if not start <= n.beat < end:
            return n
        if rng.random() < 0.2:
            return None
        wrong = int(rng.choice([-1, 0, 1, 2])) if n.part != "bass" else int(rng.choice([0, 1]))
        return n._replace(beat=n.beat + rng.uniform(0, 0.35), midi=n.midi + wrong)

    def spoil_hit(hit: Hit) -> Hit | None:
        if not start <= hit.beat < end:
            return hit
        return None if rng.random() < 0.25 else hit._replace(beat=hit.beat + rng.uniform(0, 0.3))

    score.notes[:] = [n for n in map(spoil_note, score.notes) if n is not None]
    score.hits[:] = [hit for hit in map(spoil_hit, score.hits) if hit is not None]
    return Flaw("flubbed_bar", start, end)


def _off_key(score: Score, start: int) -> Flaw | None:
    """The melody lands a semitone off, louder than it should be, for half a bar or so."""
    end = start + 2
    count = 0
    for i, n in enumerate(score.notes):
        if n.part == "lead" and start <= n.beat < end:
            score.notes[i] = n._replace(midi=n.midi + 1, level=1.25, length=max(n.length, 0.8))
            count += 1
    return Flaw("off_key", start, end) if count else None


def _plant_flaws(score: Score, rng: np.random.Generator) -> tuple[Flaw, ...]:
    """Two or three flaws in different sections; which ones depends on the seed's generator."""
    bar = score.style.beats_per_bar
    kinds = list(rng.permutation(FLAW_KINDS))[: int(rng.integers(2, 4))]
    if "flubbed_bar" not in kinds and "silence" not in kinds:
        kinds[-1] = "flubbed_bar"
    flaws = [_false_start(score)] if "false_start" in kinds else []
    inner = [s for s in score.sections if s.name in ("verse", "chorus", "bridge")]
    places = list(rng.permutation(len(inner)))
    for kind in (k for k in FLAW_KINDS[:3] if k in kinds):
        section = inner[places.pop() if places else 0]
        bars = (section.end_beat - section.start_beat) // bar
        start = section.start_beat + int(rng.integers(1, bars - 1)) * bar
        if kind == "flubbed_bar":
            flaws.append(_flub_bar(score, start, rng))
        elif kind == "silence":
            flaws.append(Flaw("silence", start + 1, start + 1 + int(rng.integers(1, 3))))
        else:
            found = (_off_key(score, start + offset) for offset in (0, 1, -2, 2))
            flaw = next((f for f in found if f is not None), None)
            flaws += [flaw] if flaw is not None else []
    return tuple(sorted(flaws, key=lambda flaw: flaw.start_beat))


def _beat_times(score: Score, rng: np.random.Generator) -> DoubleArray:
    """(n + 1,) seconds: a steady tempo with slow drift of about one per cent."""
    count = score.n_beats
    knots = rng.normal(0, 0.006, count // 12 + 2)
    drift = np.interp(np.arange(count) / 12, np.arange(len(knots)), knots)
    durations = 60 / score.bpm * (1 + drift)
    start = rng.uniform(0.15, 0.5)
    return np.asarray(start + np.concatenate([[0.0], np.cumsum(durations)]))


def _seconds(beat: float, score: Score, times: DoubleArray) -> float:
    """Where a score position sounds, with the style's swing."""
    whole = int(np.floor(beat))
    part, style = beat - whole, score.style
    half, quarter = divmod(part, 0.5)
    quarter = 0.5 * float(np.interp(quarter / 0.5, [0, 0.5, 1], [0, style.sixteenths, 1]))  # 0..0.5
    swung = float(np.interp(half * 0.5 + quarter, [0, 0.5, 1], [0, style.swing, 1]))
    whole = min(whole, len(times) - 2)
    return float(times[whole] + swung * (times[whole + 1] - times[whole]))


def _place(bus: FloatArray, sound: FloatArray, start: int, left: float, right: float) -> None:
    start = max(start, 0)
    sound = sound[: bus.shape[1] - start]
    bus[0, start : start + len(sound)] += np.float32(left) * sound
    bus[1, start : start + len(sound)] += np.float32(right) * sound


def _perform_drums(
    score: Score, times: DoubleArray, bus: FloatArray, rng: np.random.Generator
) -> None:
    jitter = rng.normal(0, 0.003, len(score.hits))
    for i, hit in enumerate(score.hits):
        sound = drum(hit.drum, score.style.kit, int(rng.integers(TAKES)))
        start = int((_seconds(hit.beat, score, times) + jitter[i]) * RATE)
        pan = _PAN.get(hit.drum, 0.0)
        level = hit.level * rng.uniform(0.92, 1.0)
        _place(bus, sound, start, level * min(1, 1 - pan), level * min(1, 1 + pan))


def _perform_notes(
    score: Score, times: DoubleArray, buses: dict[str, FloatArray], rng: np.random.Generator
) -> None:
    jitter = rng.normal(0, 0.005, len(score.notes))
    pan = {"bass": 0.0, "chords": rng.choice([-0.25, 0.25]), "lead": rng.choice([-0.1, 0.1])}
    for i, n in enumerate(score.notes):
        timbre = score.timbres[n.part]
        at = _seconds(n.beat, score, times)
        length = _seconds(n.beat + n.length, score, times) - at
        milliseconds = max(100, 50 * round(length * 20))
        cents = _TIMBRES[timbre].detune
        start = int((at + jitter[i]) * RATE)
        left, right = n.level * (1 - pan[n.part]), n.level * (1 + pan[n.part])
        if cents:
            _place(buses[n.part], note(timbre, n.midi, milliseconds, -cents), start, left, 0.0)
            _place(buses[n.part], note(timbre, n.midi, milliseconds, cents), start, 0.0, right)
        else:
            _place(buses[n.part], note(timbre, n.midi, milliseconds), start, left, right)


def _gate(flaws: tuple[Flaw, ...], times: DoubleArray, frames: int) -> FloatArray:
    """(frames,) 1, and 0 in the drop-outs, with 5 ms slopes."""
    gate = np.ones(frames, dtype=np.float32)
    slope = int(0.005 * RATE)
    ramp = np.linspace(1, 0, slope, dtype=np.float32)
    for flaw in flaws:
        if flaw.kind == "silence":
            start, end = (int(times[b] * RATE) for b in (flaw.start_beat, flaw.end_beat))
            gate[start:end] = 0.0
            gate[start : start + slope] = ramp
            gate[end - slope : end] = ramp[::-1]
    return gate


def _mix(buses: dict[str, FloatArray], score: Score, seed: int, level_db: float) -> FloatArray:
    """(2, frames): the parts, a room, a faint noise floor, one gentle saturation."""
    dry = sum(_GAIN[part] * bus for part, bus in buses.items())
    send = np.asarray(sum(_SEND[part] * bus for part, bus in buses.items()), dtype=np.float32)
    mix = dry + 1.6 * reverb(send, score.style.room_s, seed)
    mix *= 10 ** (level_db / 20) / np.sqrt(np.mean(mix**2))
    mix += np.random.default_rng(seed).standard_normal(mix.shape, dtype=np.float32) * 2e-4
    return np.asarray(0.9 * np.tanh(mix / 0.9), dtype=np.float32)


def demo_song(seed: int) -> DemoSong:
    """The song of a seed (any integer from 0). Seeds 0..7 are of eight different styles."""
    if seed < 0:
        raise ConfigError(f"a demo song's seed is 0 or more, got {seed}")
    rng = np.random.default_rng([77, seed])
    score = compose(seed)
    flaws = _plant_flaws(score, rng)
    times = _beat_times(score, rng)
    frames = int((times[-1] + _TAIL_S) * RATE)
    buses = {part: np.zeros((2, frames), dtype=np.float32) for part in STEM_OF_PART}
    _perform_drums(score, times, buses["drums"], rng)
    _perform_notes(score, times, buses, rng)
    gate = _gate(flaws, times, frames)
    mix = _mix(buses, score, seed, float(rng.uniform(-19, -14))) * gate
    fade = np.linspace(1, 0, int(0.8 * RATE), dtype=np.float32)
    mix[:, -len(fade) :] *= fade
    bar = score.style.beats_per_bar
    slope = np.polyfit(np.arange(len(times)), times, 1)[0]
    grid = BeatGrid(times, np.arange(score.n_beats) % bar, 60 / float(slope), bar, 1.0, "known")
    name = f"demo_{seed:03d}_{score.style.name.replace('-', '_')}"
    stems = {STEM_OF_PART[part]: (bus * gate).T for part, bus in buses.items()}
    sections = tuple(score.sections)
    samples = np.ascontiguousarray(mix.T)
    return DemoSong(
        name, seed, samples, stems, grid, sections, flaws, score.style.name, score.key_name
    )


def write_demo_song(folder: Path, seed: int, suffix: str = ".flac") -> Path:
    """Write one song and its truth; the truth goes first, so a song is never without it."""
    song = demo_song(seed)
    path = folder / f"{song.name}{suffix}"
    write_json(folder / f"{song.name}.truth.json", song.truth())
    write_audio(path, song.samples, RATE)
    note.cache_clear()
    return path


def make_demo_library(
    folder: Path, n: int = 8, seed: int = 0, *, suffix: str = ".flac", show: bool = False
) -> list[Path]:
    """Write the songs of seeds seed..seed + n - 1 into a folder; returns their paths."""
    if n < 1:
        raise ConfigError(f"at least one demo song must be asked for, got {n}")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = tqdm(range(seed, seed + n), desc="demo songs", unit="song", disable=not show)
    return [write_demo_song(folder, each, suffix) for each in seeds]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.audio.demo_songs",
        description="Synthesise demo songs with known beats, sections and planted flaws.",
    )
    parser.add_argument("folder", type=Path, help="where the songs go (made when missing)")
    parser.add_argument("--count", type=int, default=8, help="how many songs (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first song (default 0)")
    parser.add_argument("--format", choices=("flac", "wav"), default="flac")
    args = parser.parse_args(argv)

    def body() -> None:
        try:
            paths = make_demo_library(
                args.folder, args.count, args.seed, suffix=f".{args.format}", show=True
            )
        except OSError as error:
            raise AudioError(str(error)) from error
        print(f"{len(paths)} synthetic songs in {args.folder}")

    return guarded(body)


if __name__ == "__main__":
    sys.exit(main())
