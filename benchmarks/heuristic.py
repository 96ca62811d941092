"""What the heuristic editor's presets do, and how their joins sound against random edits.

    python benchmarks/heuristic.py [SONGS_FOLDER] [--edits 3] [--seed 0]

`edits` edits of every passage by every preset, and random ones at three rates of change. Measured
on rendered audio by `rlhf_core.editing.rendered`: the distance of what follows a join from how the
song would have gone on (1: unrelated), and the step in timbre right at it; joins beside a beat
played backwards stay in their place and are left out. Without a folder, demo songs (synthetic).
Last, whole songs edited passage by passage: joins at the borders against joins inside.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from dense_reward import DEMO_SONGS, listeners

from rlhf_core.audio.demo_songs import make_demo_library
from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import EDL, build_edl, concatenate_edls
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.editing.rendered import Listener
from rlhf_core.editing.whole_song import edit_song
from rlhf_core.types import AudioState, IntArray, Passage

RATES = (0.05, 0.2, 0.4)
WHOLE_SONG_PRESETS = ("gentle", "tight", "very_tight", "repetitive", "adventurous")


class Row(NamedTuple):
    """One editor's edits. keep, length, repetition, joins: per edit; distance, step: per join."""

    keep: list[float]
    length: list[float]
    repetition: list[float]
    joins: list[float]
    distance: list[float]
    step: list[float]


def table(
    places: list[Listener], editor: Callable[[AudioState, Passage], IntArray], edits: int
) -> Row:
    row = Row([], [], [], [], [], [])
    for place in places:
        for _ in range(edits):
            actions = editor(place.state, place.passage)
            edl = build_edl(actions, place.state.grid, place.passage)
            sources = [beat.source_beat for beat in edl.beats]
            heard, n = place.joins(actions), place.passage.n_beats
            row.keep.append(float(np.mean(actions != Action.CUT)))
            row.length.append(len(sources) / n)
            row.repetition.append(1 - len(set(sources)) / len(sources))
            row.joins.append(64 * len(heard.place) / n)
            row.distance.extend(heard.distance[~heard.backwards])
            row.step.extend(heard.step[~heard.backwards])
    return row


def spread(values: list[float]) -> str:
    low, mid, high = np.percentile(values, (10, 50, 90))
    return f"{mid:.2f} ({low:.2f}-{high:.2f})"


def border_figures(songs: list[Listener], rng: np.random.Generator) -> None:
    inside: list[float] = []
    borders: list[float] = []
    through = 0
    for song in songs:
        for preset in WHOLE_SONG_PRESETS:
            edits = edit_song(song.state, partial(heuristic_edit, preset=preset, rng=rng))
            edl = concatenate_edls([build_edl(a, song.state.grid, p) for p, a in edits])
            starts, own = [p.start_beat for p, _ in edits[1:]], len(borders)
            heard = song.joins_of(edl)
            for i, distance in zip(heard.place, heard.distance, strict=True):
                (borders if crosses(edl, int(i), starts) else inside).append(float(distance))
            through += len(starts) - (len(borders) - own)
    print(f"\nwhole songs, {len(borders) + through} borders: {through} play straight on,")
    if borders:
        print(f"{len(borders)} are joins of mean distance {np.mean(borders):.2f};", end=" ")
    print(f"the {len(inside)} joins inside passages: {np.mean(inside):.2f}")


def crosses(edl: EDL, place: int, starts: list[int]) -> bool:
    before, after = edl.beats[place - 1].source_beat, edl.beats[place].source_beat
    return any(before < start <= after for start in starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", type=Path, nargs="?", help="folder of songs; default: demo songs")
    parser.add_argument("--edits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as work:
        folder = args.songs or Path(work) / "demo"
        if args.songs is None:
            make_demo_library(folder, DEMO_SONGS, seed=100)
        places = listeners(folder, Path(work) / "cache")
        whole = {p.state.song_id: p for p in places}
        songs = [
            Listener.of(p.audio, p.state, Passage(0, p.state.grid.n_beats)) for p in whole.values()
        ]
        editors = {name: partial(heuristic_edit, preset=name, rng=rng) for name in PRESETS}
        editors |= {f"random {r}": partial(random_edit, rng=rng, change_rate=r) for r in RATES}
        rows = {name: table(places, editor, args.edits) for name, editor in editors.items()}
        print(f"{len(places)} passages of {len(songs)} songs, {args.edits} edits each;")
        print("median (10th-90th percentile) over edits; distance and step: mean over joins")
        head = ("keep", "length", "repetition", "joins/64 beats", "distance", "step")
        print(f"{'':14s}" + "".join(f"{text:>20s}" for text in head))
        for name, row in rows.items():
            shown = [spread(values) for values in row[:4]]
            shown += [f"{np.mean(values):.2f} n={len(values)}" for values in row[4:]]
            print(f"{name:14s}" + "".join(f"{text:>20s}" for text in shown))
        ours = [d for name in PRESETS for d in rows[name].distance]
        random = [d for name, row in rows.items() if name not in PRESETS for d in row.distance]
        print(f"\ndistance of a join, heuristic to random: {np.mean(ours) / np.mean(random):.2f}")
        border_figures(songs, rng)


if __name__ == "__main__":
    main()
