"""Each dense component against the same quality measured on rendered, re-analysed audio.

    python benchmarks/dense_reward.py [SONGS_FOLDER] [--edits 350] [--seed 0]

Half of the edits are the heuristic editor's (all presets in turn), half random with rates of
change from 2 to 50 %, spread evenly over the songs' passages. Without a folder, demo songs
(synthetic) are made. Prints Pearson's and Spearman's correlation of every component over all
edits, and within songs (each song's own mean taken off both sides); "-" where one side is
constant. Deterministic but for the decoder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from rlhf_core.audio.demo_songs import make_demo_library
from rlhf_core.audio.io import read_audio
from rlhf_core.audio.library import find_songs, load_song
from rlhf_core.editing.dense_reward import DENSE_COMPONENTS, dense_components
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.editing.passage_batch import PassageBatch
from rlhf_core.editing.passages import split_passages
from rlhf_core.editing.rendered import Listener
from rlhf_core.errors import CoreError
from rlhf_core.types import DoubleArray

DEMO_SONGS = 6
LOWEST_RATE, HIGHEST_RATE = 0.02, 0.5


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
) -> tuple[DoubleArray, DoubleArray, list[str]]:
    """Components (edits, 4) from beat-level data and from audio, and whose song each edit is of."""
    rng = np.random.default_rng(seed)
    beat_level, heard, songs = [], [], []
    for i in range(edits):
        place = places[i % len(places)]
        item = (place.state, place.passage)
        if (i // len(places)) % 2:
            actions = heuristic_edit(*item, list(PRESETS)[int(rng.integers(len(PRESETS)))], rng)
        else:
            actions = random_edit(*item, rng, float(rng.uniform(LOWEST_RATE, HIGHEST_RATE)))
        batch = PassageBatch.from_passages([item])
        beat_level.append(dense_components(batch, torch.from_numpy(actions)[None])[0].numpy())
        heard.append(place.measure(actions)[:4])
        songs.append(place.audio.path.stem)
    return np.array(beat_level, dtype=float), np.array(heard), songs


def correlation(a: DoubleArray, b: DoubleArray) -> float:
    if a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def within(values: DoubleArray, songs: list[str]) -> DoubleArray:
    """Values less the mean of their own song."""
    names = np.array(songs)
    return np.asarray(values - [values[names == name].mean() for name in songs])


def report(beat_level: DoubleArray, heard: DoubleArray, songs: list[str]) -> None:
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
        report(*collect(listeners(folder, Path(work) / "cache"), args.edits, args.seed))


if __name__ == "__main__":
    main()
