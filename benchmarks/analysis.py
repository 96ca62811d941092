"""Speed and memory of the analysis: beats, 121 features, stem proxies; decoding left out.

    OMP_NUM_THREADS=1 python benchmarks/analysis.py [SONGS_FOLDER] [--songs 4] [--repeats 3]

Without a folder it takes synthetic demo songs. All figures come from one run, in CPU seconds
of this process over all its threads (so work elsewhere on the machine counts little); the least
of a few repeats counts on both sides. "Plain librosa" is what a script would call for the same
features: `beat_track`, one `librosa.feature` call each, `util.sync`, and for the stems
`effects.hpss` with band splits of what is left. librosa's compiled parts are warmed up first, on
ten seconds that are not measured. The second librosa figure is stricter: the oracle of the tests,
which gives the very same values (its stems by `decompose.hpss` on 64 mel bands).
"""

from __future__ import annotations

import argparse
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from rlhf_core.audio.beats import track_beats
from rlhf_core.audio.demo_songs import demo_song
from rlhf_core.audio.demo_synth import RATE
from rlhf_core.audio.features import beat_features
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio, to_analysis
from rlhf_core.audio.library import find_songs

REAL_TIME_BAR, LIBROSA_BAR = 400.0, 30.0
MINUTES = (1, 2, 4, 8, 16)


def analyse(mono: np.ndarray) -> np.ndarray:
    return beat_features(mono, ANALYSIS_RATE, track_beats(mono, ANALYSIS_RATE))


def spent(work: Callable[[np.ndarray], object], mono: np.ndarray, repeats: int) -> float:
    """Least CPU seconds of a few repeats."""
    best = np.inf
    for _ in range(repeats):
        started = process_time()
        work(mono)
        best = min(best, process_time() - started)
    return float(best)


def plain_librosa(mono: np.ndarray) -> np.ndarray:
    """(k, beats): tracked beats, spectral features and four stems, as a script would write it."""
    import librosa

    feature: Any = librosa.feature
    rate = ANALYSIS_RATE
    _, beats = librosa.beat.beat_track(y=mono, sr=rate)
    mfcc = feature.mfcc(y=mono, sr=rate, n_mfcc=13, n_mels=64)
    rows = [
        librosa.onset.onset_strength(y=mono, sr=rate)[None],
        feature.rms(y=mono),
        feature.spectral_centroid(y=mono, sr=rate),
        feature.zero_crossing_rate(mono),
        feature.spectral_rolloff(y=mono, sr=rate),
        feature.spectral_bandwidth(y=mono, sr=rate),
        feature.spectral_flatness(y=mono),
        feature.spectral_contrast(y=mono, sr=rate),
        mfcc,
        feature.delta(mfcc),
        feature.chroma_stft(y=mono, sr=rate, tuning=0.0),
    ]
    harmonic, percussive = librosa.effects.hpss(mono)
    mel = feature.melspectrogram(y=harmonic, sr=rate, n_mels=64)
    centres = librosa.mel_frequencies(n_mels=64, fmax=rate / 2)[:, None]
    drums = feature.melspectrogram(y=percussive, sr=rate, n_mels=64)
    voice = np.exp(-0.5 * (np.log2(np.maximum(centres, 1) / 900) / 1.3) ** 2)
    bass, upper = mel * (centres < 200), mel * (centres >= 200)
    stems = (drums, bass, upper * voice, upper * (1 - voice))
    total = sum(stem.sum(axis=0) for stem in stems) + 1e-10
    for stem in stems:
        energy = stem.sum(axis=0)
        rows += [librosa.power_to_db(energy)[None], (stem * centres).sum(axis=0)[None]]
        rows += [(energy / total)[None]]
    synced = librosa.util.sync(np.concatenate(rows), beats)
    return np.concatenate([synced, np.diff(synced[:52], axis=1, prepend=synced[:52, :1])])


def same_values(mono: np.ndarray) -> np.ndarray:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.audio.plain_librosa import plain_features

    return plain_features(mono, ANALYSIS_RATE, track_beats(mono, ANALYSIS_RATE))


def songs_of(folder: Path | None, count: int) -> list[tuple[str, np.ndarray]]:
    if folder is not None:
        paths = find_songs(folder)[:count]
        return [(path.stem[:24], to_analysis(read_audio(path))) for path in paths]
    made = [(f"demo {seed} (synthetic)", demo_song(seed).samples) for seed in range(count)]
    return [(name, to_analysis(Audio(samples, RATE, Path(name)))) for name, samples in made]


def speeds(songs: list[tuple[str, np.ndarray]], repeats: int) -> None:
    print(f"{'song':26}{'seconds':>8}{'ours':>9}{'x real time':>12}{'librosa':>10}{'oracle':>9}")
    seconds = ours = plain = oracle = 0.0
    for name, mono in songs:
        length = len(mono) / ANALYSIS_RATE
        a = spent(analyse, mono, repeats)
        b, c = spent(plain_librosa, mono, 1), spent(same_values, mono, 1)
        print(f"{name:26}{length:8.1f}{a:9.3f}{length / a:12.0f}{b:10.2f}{c:9.2f}")
        seconds, ours, plain, oracle = seconds + length, ours + a, plain + b, oracle + c
    speed, ratio = seconds / ours, plain / ours
    print(
        f"\nreal time per core: {speed:.0f} x   bar {REAL_TIME_BAR:.0f}   {verdict(speed >= 400)}"
    )
    print(f"plain librosa with stems: {ratio:.1f} x   bar {LIBROSA_BAR:.0f}   "
          f"{verdict(ratio >= LIBROSA_BAR)}")  # fmt: skip
    print(f"the very same values by librosa: {oracle / ours:.1f} x (no bar)")


def verdict(held: bool) -> str:
    return "held" if held else "MISSED"


def growth(mono: np.ndarray, repeats: int) -> None:
    """Time and peak memory against length, with a straight line through each."""
    rng = np.random.default_rng(0)
    lengths, times, memory = [], [], []
    print(f"\n{'minutes':>8}{'CPU s':>9}{'peak MB':>9}")
    for minutes in MINUTES:
        samples = minutes * 60 * ANALYSIS_RATE
        tiled = np.tile(mono, samples // len(mono) + 1)[:samples]
        long = (tiled + 1e-4 * rng.standard_normal(samples)).astype(np.float32)
        times.append(spent(analyse, long, repeats))
        tracemalloc.start()
        analyse(long)
        memory.append((tracemalloc.get_traced_memory()[1] + long.nbytes) / 1e6)
        tracemalloc.stop()
        lengths.append(minutes)
        print(f"{minutes:8d}{times[-1]:9.3f}{memory[-1]:9.1f}")
    for what, values, unit in (("time", times, "s"), ("memory", memory, "MB")):
        slope, start = np.polyfit(lengths, values, 1)
        fitted = slope * np.array(lengths) + start
        r2 = 1 - np.sum((values - fitted) ** 2) / np.sum((values - np.mean(values)) ** 2)
        print(f"{what} = {start:.3f} + {slope:.4f} {unit} a minute, R^2 {r2:.4f}; "
              f"60 minutes: {start + 60 * slope:.1f} {unit}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="real songs (default: demo songs)")
    parser.add_argument("--songs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    songs = songs_of(args.folder, args.songs)
    longest = max(songs, key=lambda song: len(song[1]))[1]
    started = perf_counter()
    for work in (analyse, plain_librosa, same_values):
        work(longest[: 10 * ANALYSIS_RATE])
    print(f"warmed up in {perf_counter() - started:.1f} s (librosa's compiled parts, not measured)")
    print("load of the machine (1, 5, 15 min): {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    speeds(songs, args.repeats)
    growth(longest, args.repeats)


if __name__ == "__main__":
    main()
