"""Each dense component against the same quality measured on rendered, re-analysed audio.

    python benchmarks/dense_reward.py [SONGS_FOLDER] [--edits 350] [--seed 0]

Half of the edits are the heuristic editor's (all presets in turn), half random with rates of
change from 2 to 50 %, spread evenly over the songs' passages. Without a folder, demo songs
(synthetic) are made. Prints Pearson's and Spearman's correlation of every component over all
edits, and within songs (each song's own mean taken off both sides); "-" where one side is
constant. Then the distance of single joins, beat level against audio.

An edit on the beat grid cannot change the tempo of a steady song, so the tempo is measured once
more on versions of the same songs that swing by +-35 % over 24 s (resampled), with a metronome's
click on every beat mixed in before rendering; the clicks are found again in the rendered edit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.signal import fftconvolve, find_peaks
from scipy.stats import rankdata

from rlhf_core.audio.demo_songs import make_demo_library
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio
from rlhf_core.audio.library import find_songs, load_song
from rlhf_core.editing.dense_reward import DENSE_COMPONENTS, dense_components, join_distances
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.editing.output_order import output_order
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.passages import split_passages
from rlhf_core.editing.rendered import Listener
from rlhf_core.errors import CoreError
from rlhf_core.types import DoubleArray, FloatArray, IntArray

DEMO_SONGS = 6
LOWEST_RATE, HIGHEST_RATE = 0.02, 0.5
SWING, SWING_S = 0.35, 24.0  # share of the tempo, seconds a turn
_TIME = np.arange(round(0.02 * ANALYSIS_RATE)) / ANALYSIS_RATE
CLICK = np.sin(2 * np.pi * 7000 * _TIME) * np.exp(-_TIME / 0.004)


def listeners(folder: Path, cache: Path) -> list[Listener]:
    """One for every passage of every song that can be used."""
    found = []
    for path in find_songs(folder):
        try:
            state, audio = load_song(path, cache).state, read_audio(path)
        except CoreError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found += [Listener.of(audio, state, passage) for passage in split_passages(state.grid)]
    return found


def collect(
    places: list[Listener], edits: int, seed: int
) -> tuple[DoubleArray, DoubleArray, list[str], DoubleArray]:
    """Components (edits, 4) from beat-level data and from audio, whose song each edit is of, and
    the distance of every join from beat-level data and from audio (2, joins).
    """
    rng = np.random.default_rng(seed)
    beat_level, heard, songs, joins = [], [], [], []
    for i in range(edits):
        place = places[i % len(places)]
        actions = an_edit(place, (i // len(places)) % 2 == 1, rng)
        measured = place.measure(actions)
        beat_level.append(components(place, actions))
        heard.append(measured[:4])
        songs.append(place.audio.path.stem)
        own = discontinuities(place, actions)
        joins += [
            (own[j], d) for j, d in zip(measured.joins.place, measured.joins.distance, strict=True)
        ]
    pairs = np.array(joins).T
    return np.array(beat_level, dtype=float), np.array(heard), songs, pairs


def an_edit(place: Listener, heuristic: bool, rng: np.random.Generator) -> IntArray:
    item = (place.state, place.passage)
    if heuristic:
        return heuristic_edit(*item, list(PRESETS)[int(rng.integers(len(PRESETS)))], rng)
    return random_edit(*item, rng, float(rng.uniform(LOWEST_RATE, HIGHEST_RATE)))


def components(place: Listener, actions: IntArray) -> DoubleArray:
    batch = PassageBatch.from_passages([(place.state, place.passage)])
    return dense_components(batch, torch.from_numpy(actions)[None])[0].double().numpy()


def discontinuities(place: Listener, actions: IntArray) -> DoubleArray:
    """Beat-level distance of every output beat, meaningful at joins."""
    batch = PassageBatch.from_passages([(place.state, place.passage)])
    order = output_order(batch, torch.from_numpy(actions)[None])
    return join_distances(batch, order)[1][0].double().numpy()


def swung(place: Listener) -> Listener:
    """The passage's song at a swinging tempo, its beats (known) marked by clicks."""
    rate, grid = ANALYSIS_RATE, place.state.grid
    mono = place.audio.samples[:, 0]
    turn = 2 * np.pi / SWING_S

    def warp(seconds: DoubleArray) -> DoubleArray:
        return np.asarray(seconds + SWING / turn * (1 - np.cos(turn * seconds)))

    own = np.arange(len(mono)) / rate
    frames = np.arange(0, warp(own)[-1], 1 / rate)
    samples = np.interp(np.interp(frames, warp(own), own), own, mono)
    times = warp(grid.times)
    for start in (times[:-1] * rate).astype(int):
        samples[start : start + len(CLICK)] += CLICK[: len(samples) - start]
    state = replace(place.state, grid=replace(grid, times=times, source="known"))
    audio = Audio(samples.astype(np.float32)[:, None], rate, place.audio.path)
    return Listener.of(audio, state, place.passage)


def clicks(mono: FloatArray) -> DoubleArray:
    """Seconds at which the clicks sound, faded ones too, found by matched filter."""
    match = np.abs(fftconvolve(mono.astype(np.float64), CLICK[::-1], mode="full"))
    match = match[len(CLICK) - 1 :] / float(CLICK @ CLICK)
    places, _ = find_peaks(match, height=0.15, distance=round(0.12 * ANALYSIS_RATE))
    return np.asarray(places / ANALYSIS_RATE)


def clicked_tempo(place: Listener, actions: IntArray) -> float | None:
    """Mean penalty of 8-click tempi against 8 beats of the swung song from the same moment on."""
    edl, samples = place.render(actions)
    heard = clicks(samples)
    if len(heard) < 9:
        return None
    got = 480 / (heard[8:] - heard[:-8])
    own = edl.beat_times - edl.beat_times[0]
    source = np.array([b.source_beat for b in edl.beats]) - place.passage.start_beat
    starts = np.interp(heard[:-8], edl.output_times[:-1], own[source])
    begin = np.clip(starts, 0, own[-9])
    count = np.arange(len(own))
    want = 480 / (np.interp(np.interp(begin, own, count) + 8, count, own) - begin)
    return float(np.mean(np.exp(-np.maximum(0, np.abs(got - want) - 5) / 10)))


def tempo_report(places: list[Listener], edits: int, seed: int) -> None:
    rng, values = np.random.default_rng(seed), []
    chosen = [swung(place) for place in places[::3]]
    for i in range(edits):
        place = chosen[i % len(chosen)]
        actions = an_edit(place, (i // len(chosen)) % 2 == 1, rng)
        audio = clicked_tempo(place, actions)
        if audio is not None:
            values.append((components(place, actions)[0], audio))
    a, b = np.array(values).T
    print(f"tempo_consistency, {len(values)} edits of swung songs with clicks: ", end="")
    print(
        f"Pearson {correlation(a, b):.2f}, Spearman {correlation(rankdata(a), rankdata(b)):.2f}",
        end="",
    )
    print(f"; beat-level {a.mean():.2f} ±{a.std():.2f}, on audio {b.mean():.2f} ±{b.std():.2f}")


def correlation(a: DoubleArray, b: DoubleArray) -> float:
    if a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def within(values: DoubleArray, songs: list[str]) -> DoubleArray:
    """Values less the mean of their own song."""
    names = np.array(songs)
    return np.asarray(values - [values[names == name].mean() for name in songs])


def report(
    beat_level: DoubleArray, heard: DoubleArray, songs: list[str], joins: DoubleArray
) -> None:
    head = ("Pearson", "Spearman", "within songs", "beat-level", "on audio")
    print(f"{len(songs)} edits of {len(set(songs))} songs")
    print(f"{'':22s}" + "".join(f"{name:>14s}" for name in head))
    for k, name in enumerate(DENSE_COMPONENTS):
        a, b = beat_level[:, k], heard[:, k]
        figures = (
            correlation(a, b),
            correlation(rankdata(a), rankdata(b)),
            correlation(within(a, songs), within(b, songs)),
        )
        shown = ["-" if np.isnan(f) else f"{f:.2f}" for f in figures]
        shown += [f"{v.mean():.2f} ±{v.std():.2f}" for v in (a, b)]
        print(f"{name:22s}" + "".join(f"{text:>14s}" for text in shown))
    ranks = correlation(*map(rankdata, joins))
    print(f"{joins.shape[1]} single joins: Pearson {correlation(*joins):.2f}, Spearman {ranks:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", type=Path, nargs="?", help="folder of songs; default: demo songs")
    parser.add_argument("--edits", type=int, default=350)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        folder = args.songs or Path(work) / "demo"
        if args.songs is None:
            make_demo_library(folder, DEMO_SONGS, seed=100)
        places = listeners(folder, Path(work) / "cache")
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        report(*collect(places, args.edits, args.seed))
        tempo_report(places, args.edits // 2, args.seed)


if __name__ == "__main__":
    main()
