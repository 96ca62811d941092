"""Rendering a pair, against the bar of half a second and against copying memory; memory of an hour.

    python benchmarks/render.py [--minutes 4] [--rounds 5] [--hour]

The song is synthesised (a demo song over and over, stereo, 44.1 kHz). A pair is two edits of the
whole song, matched in loudness, with true peaks measured, written as 16-bit WAV and synced to
disk; the original as a third file is timed beside it. Prints the median, its ratio to the bar and
to copying the source's samples twice. Then the same at 1, 2, 4 and 8 minutes: a straight line
through the computing times, and the exponent of growth. --hour: analysis and rendering of 60
minutes from a file, each in a process of its own, with its peak resident memory (bar: 2 GB). The
machine's load is printed: times on the clock are only worth comparing on an idle one.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from rlhf_core.audio.demo_songs import demo_song
from rlhf_core.audio.demo_synth import RATE
from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.render import match_loudness
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.types import BeatGrid, Passage

BAR_S = 0.5
BAR_BYTES = 2e9
WEIGHTS = [0.75, 0.1, 0.04, 0.03, 0.02, 0.01, 0.01, 0.02, 0.01, 0.01]


def long_song(minutes: float) -> tuple[Audio, BeatGrid]:
    """A demo song again and again, with its known beats."""
    song = demo_song(0)
    once = round(float(song.grid.times[-1]) * RATE)
    repeats = int(np.ceil(minutes * 60 * RATE / once))
    frames = round(minutes * 60 * RATE)
    samples = np.concatenate([song.samples[:once]] * repeats)[:frames]
    times = np.concatenate([song.grid.times[:-1] + i * once / RATE for i in range(repeats)])
    return Audio(samples, RATE, Path("benchmark.wav")), grid_of(times[times < frames / RATE])


def grid_of(times: np.ndarray) -> BeatGrid:
    return BeatGrid(times, np.arange(len(times) - 1) % 4, 120.0, source="known")


def edits(grid: BeatGrid) -> dict[str, EDL]:
    whole, rng = Passage(0, grid.n_beats), np.random.default_rng(0)
    chosen = {name: rng.choice(10, grid.n_beats, p=WEIGHTS) for name in ("a", "b")}
    chosen["original"] = np.zeros(grid.n_beats, dtype=np.int64)
    return {name: build_edl(actions, grid, whole) for name, actions in chosen.items()}


def timed(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds on the clock, and of this process's own computing; the first round is not
    counted. The second hardly depends on what else the machine does."""
    work()
    clock, own = [], []
    for _ in range(rounds):
        start, start_own = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        own.append(time.process_time() - start_own)
    return statistics.median(clock), statistics.median(own)


def seconds_of(audio: Audio, edls: dict[str, EDL], rounds: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:

        def work() -> None:
            match_loudness(audio, edls, list(edls)[-1]).write(Path(folder), ".wav")

        return timed(work, rounds)


def print_pair(minutes: float, rounds: int) -> None:
    audio, grid = long_song(minutes)
    edls = edits(grid)
    target = np.empty_like(audio.samples)
    floor = 2 * timed(lambda: np.copyto(target, audio.samples), rounds)[0]
    joins = [len(edls[name].segments) - 1 for name in ("a", "b")]
    print(f"{minutes:g} minutes, stereo, {RATE} Hz, {joins[0]} and {joins[1]} joins")
    print(f"two copies of the samples     {floor:.3f} s")
    for title, names in (("A and B", ("a", "b")), ("A, B and original", ("a", "b", "original"))):
        seconds, own = seconds_of(audio, {name: edls[name] for name in names}, rounds)
        print(
            f"{title + ', WAV':28}  {seconds:.3f} s = {seconds / BAR_S:.2f} of the bar "
            f"({BAR_S} s), {seconds / floor:.1f} x the copies; "
            f"computing {own:.3f} s"
        )


def print_growth(rounds: int) -> None:
    minutes, seconds = np.array([1.0, 2.0, 4.0, 8.0]), []
    for length in minutes:
        audio, grid = long_song(float(length))
        seconds.append(seconds_of(audio, edits(grid), rounds)[1])
    slope, start = np.polyfit(minutes, seconds, 1)
    exponent = np.polyfit(np.log(minutes), np.log(seconds), 1)[0]
    worst = np.abs(np.polyval([slope, start], minutes) / seconds - 1).max()
    listed = ", ".join(f"{m:g} min {s:.3f} s" for m, s in zip(minutes, seconds, strict=True))
    print(f"growth (computing): {listed}")
    print(
        f"fit: {start:.3f} s + {slope:.4f} s a minute (off by at most {worst:.0%}); "
        f"time grows with length to the power {exponent:.2f}"
    )


def write_hour(path: Path, minutes: float) -> None:
    song, rng = demo_song(0), np.random.default_rng(0)
    left = round(minutes * 60 * RATE)
    once = round(float(song.grid.times[-1]) * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16", format="WAV") as file:
        while left > 0:
            part = song.samples[: min(once, left)] * np.float32(rng.uniform(0.5, 0.9))
            file.write(part)
            left -= len(part)


def step(name: str, path: Path) -> None:
    """One step in this process, and its peak memory."""
    start = time.perf_counter()
    audio = read_audio(path)
    if name == "analysis":
        from rlhf_core.audio.library import analyse

        said = f"{analyse(audio, 'benchmark').grid.n_beats} beats"
    else:
        beats = np.arange(0, audio.duration_s - 1, 0.5)
        paths = match_loudness(audio, edits(grid_of(beats))).write(path.parent / "out", ".wav")
        said = f"{sum(p.stat().st_size for p in paths.values()) / 1e9:.2f} GB of WAV"
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{name:10} {audio.duration_s / 60:g} min: {seconds:.1f} s, {said}, peak memory "
        f"{peak / 1e9:.2f} GB = {peak / BAR_BYTES:.2f} of the bar (2 GB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hour", action="store_true", help="memory of 60 minutes; takes a while")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step(args.step[0], Path(args.step[1]))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print_pair(args.minutes, args.rounds)
    print_growth(max(args.rounds // 2, 1))
    if args.hour:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "hour.wav"
            write_hour(path, 60)
            for name in ("analysis", "rendering"):
                subprocess.run([sys.executable, __file__, "--step", name, str(path)], check=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
