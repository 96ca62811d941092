"""Clicks at joins: how many stand out from what the untouched recording has anyway.

    python benchmarks/joins.py [--songs FOLDER] [--demo 4] [--edits 4]

Prints for each song the share of joins whose click level (rlhf_core/audio/clicks.py) is at most
the original's 99th percentile, over random edits and over heuristic ones; hard cuts at the same
places stand beside it, to show that the measure sees clicks. Bar: at least 97 % of all joins.
Without --songs only demo songs (synthesised) are tried.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlhf_core.audio.clicks import click_levels
from rlhf_core.audio.demo_songs import demo_song
from rlhf_core.audio.demo_synth import RATE
from rlhf_core.audio.io import AUDIO_SUFFIXES, Audio, read_audio
from rlhf_core.audio.library import analyse
from rlhf_core.audio.pieces import plan_pieces
from rlhf_core.audio.render import Render
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit, random_edit
from rlhf_core.types import AudioState, Passage

BAR = 0.97


def songs(folder: Path | None, demos: int) -> Iterator[tuple[str, Audio]]:
    for seed in range(demos):
        yield f"demo song {seed}", Audio(demo_song(seed).samples, RATE, Path(f"demo{seed}.wav"))
    for path in sorted(folder.iterdir()) if folder else []:
        if path.suffix.lower() in AUDIO_SUFFIXES:
            yield path.stem, read_audio(path)


def edits(state: AudioState, kind: str, count: int) -> Iterator[EDL]:
    """Whole-song edits, so that passages' own borders are not counted as joins."""
    whole = Passage(0, state.grid.n_beats)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        if kind == "random":
            actions = random_edit(state, whole, rng, 0.4)
        else:
            actions = heuristic_edit(state, whole, list(PRESETS)[seed % len(PRESETS)], rng)
        yield build_edl(actions, state.grid, whole)


def above(audio: Audio, edl: EDL, limit: float, fade_s: float) -> tuple[int, int]:
    """Joins above the limit, and joins."""
    pieces = plan_pieces(edl, audio.sample_rate, audio.samples)
    render = Render(audio.samples, pieces, audio.sample_rate, fade_s)
    mono = render.read(0, render.frames).mean(axis=1)
    places = np.array(render.join_places, dtype=np.int64)
    return int(np.sum(click_levels(mono, places, audio.sample_rate) > limit)), len(places)


def measure(audio: Audio, count: int) -> dict[str, tuple[int, int]]:
    """(above, joins) by kind of edit."""
    state = analyse(audio, "benchmark")
    rng, mono = np.random.default_rng(0), audio.samples.mean(axis=1)
    margin = audio.sample_rate // 2
    places = rng.integers(margin, len(mono) - margin, 1000)
    limit = float(np.percentile(click_levels(mono, places, audio.sample_rate), 99))
    found = {}
    for kind in ("random", "heuristic"):
        for name, fade_s in ((kind, 0.05), (f"{kind}, hard cuts", 0.0)):
            counts = [above(audio, edl, limit, fade_s) for edl in edits(state, kind, count)]
            found[name] = (sum(c[0] for c in counts), sum(c[1] for c in counts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=Path, help="folder of real songs")
    parser.add_argument("--demo", type=int, default=4, help="how many demo songs")
    parser.add_argument("--edits", type=int, default=4, help="edits of each kind and song")
    args = parser.parse_args()
    totals: dict[str, list[int]] = {}
    for title, audio in songs(args.songs, args.demo):
        for kind, (over, joins) in measure(audio, args.edits).items():
            total = totals.setdefault(kind, [0, 0])
            total[0] += over
            total[1] += joins
            print(f"{title[:40]:40}  {kind:22}  {1 - over / max(joins, 1):6.1%} of {joins}")
    for kind, (over, joins) in totals.items():
        share = 1 - over / max(joins, 1)
        ratio = "" if "hard" in kind else f", {share / BAR:.3f} of the bar ({BAR:.0%})"
        print(f"{'all':40}  {kind:22}  {share:6.1%} of {joins}{ratio}")


if __name__ == "__main__":
    main()
