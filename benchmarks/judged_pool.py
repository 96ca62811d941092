"""Edits of songs with every judge's opinion of them, and simulated votes: shared by benchmarks.

A pool is made of windows with `GROUP` edits each (`rlhf_core.reward.synthetic`); a judge's score
of each edit is cached, because judges who listen to rendered audio take a while. All votes here
are simulated. Each judge's noise is set so that single votes agree with its order 70 % of the
time, whatever the units of its scores.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from tqdm import tqdm

from rlhf_core.audio.io import Audio, read_audio, to_analysis
from rlhf_core.audio.library import Song, load_library
from rlhf_core.audio_judges import AUDIO_JUDGES, RATE, heard
from rlhf_core.judges import JUDGES, Manner
from rlhf_core.reward.posterior import STRENGTH_WEIGHT, Votes
from rlhf_core.reward.synthetic import GROUP, SyntheticEdits, make_edits

Array = NDArray[np.float64]
CONSISTENCY = 0.70
SKIP, SIDE_BIAS = 0.03, 0.3  # share of votes not given; logits for the left side
OUTCOME = {"a": 1, "b": -1, "tie": 0, "both_bad": 0}
PAIRS = GROUP // 2  # disjoint pairs of a window


@dataclass
class Pool:
    """Edits of some songs. scores: judge -> (P, G). phi: (P, G, D) once embedded."""

    songs: list[Song]
    edits: SyntheticEdits
    scores: dict[str, Array] = field(default_factory=dict)

    def noise(self, name: str) -> float:
        """A judge's temperature, from all pairs of edits of a window."""
        score = self.scores[name]
        gaps = (score[:, :, None] - score[:, None, :])[:, *np.triu_indices(GROUP, 1)]
        return noise_for(gaps.ravel())

    def pairs(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 3) window, edit a, edit b: each window once, then again with other edits."""
        n = len(self.edits)
        rounds = [
            np.column_stack([rng.permutation(n), np.zeros((n, 2), dtype=np.int64)])
            for _ in range(-(-count // n))
        ]
        partners = np.array([rng.permutation(GROUP) for _ in range(n)])
        for number, part in enumerate(rounds[:PAIRS]):
            part[:, 1:] = partners[part[:, 0], 2 * number : 2 * number + 2]
        if count > PAIRS * n:
            raise SystemExit(f"{count} votes from {n} windows: give more --windows")
        return np.concatenate(rounds)[:count]


def of_songs(pool: Pool, windows: NDArray[np.bool_]) -> Pool:
    """The part of a pool with these windows (P,). Songs keep their numbers."""
    index = np.flatnonzero(windows)
    rows, edits = torch.from_numpy(index), pool.edits
    part = SyntheticEdits(
        edits.windows.select(rows),
        edits.actions[rows],
        edits.edit_features[rows],
        edits.attributes[rows],
        edits.dense[rows],
        edits.song[index],
        tuple(edits.passages[i] for i in index),
    )
    return Pool(pool.songs, part, {name: score[index] for name, score in pool.scores.items()})


def songs_of(folder: Path, first: int, last: int | None) -> list[Song]:
    """Songs number first to last of a folder's train/, in the order of their names."""
    return sorted(load_library(folder), key=lambda song: song.path.name)[first:last]


def load_pool(songs: list[Song], windows: int, seed: int, cache: Path, names: list[str]) -> Pool:
    """The pool with these judges' scores; what was computed before is read from `cache`."""
    key = hashlib.sha256(repr(([s.song_id for s in songs], windows, seed)).encode()).hexdigest()
    path = cache / f"pool-{key[:16]}.pkl"
    cache.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        pool = Pool(songs, *pickle.loads(path.read_bytes()))  # our own file
    else:
        rng = np.random.default_rng(seed)
        pool = Pool(songs, make_edits([song.state for song in songs], windows, rng))
    missing = [name for name in names if name not in pool.scores]
    for name in missing:
        if name in JUDGES:
            pool.scores[name] = judged(pool, name)
    pool.scores |= listened(pool, [name for name in missing if name in AUDIO_JUDGES])
    if missing:
        path.write_bytes(pickle.dumps((pool.edits, pool.scores)))
    return pool


def judged(pool: Pool, name: str) -> Array:
    """Scores (P, G) by one judge."""
    edits, flat = pool.edits, pool.edits.actions.flatten(0, 1)
    rows = torch.arange(len(edits)).repeat_interleave(GROUP)
    scores = [
        JUDGES[name].score(edits.windows.select(rows[part]), flat[part])
        for part in torch.arange(len(rows)).split(256)
    ]
    return torch.cat(scores).double().numpy().reshape(len(edits), GROUP)


def listened(pool: Pool, names: list[str]) -> dict[str, Array]:
    """Scores (P, G) by each judge of rendered audio; every edit is rendered once."""
    edits = pool.edits
    scores = {name: np.zeros((len(edits), GROUP)) for name in names}
    for song in tqdm(np.unique(edits.song) if names else [], desc="listening", disable=None):
        chosen = pool.songs[song]
        audio = Audio(to_analysis(read_audio(chosen.path))[:, None], RATE, chosen.path)
        for window in np.flatnonzero(edits.song == song):
            passage = edits.passages[window]
            for k in range(GROUP):
                actions = edits.actions[window, k, : passage.n_beats].numpy()
                sound = heard(audio, chosen.state, passage, actions)
                for name in names:
                    scores[name][window, k] = AUDIO_JUDGES[name].rule(sound)
    return scores


def noise_for(gaps: Array, consistency: float = CONSISTENCY) -> float:
    """Temperature at which votes on pairs so far apart (n,) agree with the order so often."""
    gaps = np.abs(gaps[gaps != 0])

    def excess(log_noise: float) -> float:
        return float(np.mean(1 / (1 + np.exp(-gaps / np.exp(log_noise)))) - consistency)

    return float(np.exp(brentq(excess, -12, 12)))


def vote(
    pool: Pool,
    phi: Array,
    name: str,
    pairs: NDArray[np.int64],
    rng: np.random.Generator,
) -> Votes:
    """A judge's simulated votes on pairs."""
    return answers(pool, phi, name, pairs, rng)[0]


def answers(
    pool: Pool,
    phi: Array,
    name: str,
    pairs: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Votes, NDArray[np.bool_]]:
    """A judge's simulated votes on pairs (n, 3), and which pairs (n,) were voted on."""
    window, a, b = pairs.T
    score = pool.scores[name]
    manner = Manner(pool.noise(name), skip=SKIP, side_bias=SIDE_BIAS)
    left = rng.random(len(pairs)) < 0.5
    given = [
        manner.answer(float(score[k, i]), float(score[k, j]), rng, bool(side))
        for (k, i, j), side in zip(pairs, left, strict=True)
    ]
    kept = np.array([choice != "skip" for choice, _ in given])
    votes = Votes(
        (phi[window, a] - phi[window, b])[kept],
        np.array([OUTCOME[choice] for choice, _ in given if choice != "skip"]),
        np.array([1.0 if s is None else STRENGTH_WEIGHT[s] for c, s in given if c != "skip"]),
        np.zeros(int(kept.sum()), dtype=np.int64),
        np.where(left, 1.0, -1.0)[kept],
    )
    return votes, kept
