"""Edits and measurements that several tests of rendering share."""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import resample

from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.types import BeatGrid, Passage


def edit(grid: BeatGrid, changes: dict[int, Action], start: int = 0, end: int = 32) -> EDL:
    actions = np.zeros(end - start, dtype=np.int64)
    for beat, action in changes.items():
        actions[beat] = action
    return build_edl(actions, grid, Passage(start, end))


def random_edl(grid: BeatGrid, seed: int, end: int | None = None, start: int = 0) -> EDL:
    rng, end = np.random.default_rng(seed), end or grid.n_beats
    weights = [0.6, 0.12, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.02, 0.02]
    return build_edl(rng.choice(10, end - start, p=weights), grid, Passage(start, end))


def ideal_true_peak_db(samples: np.ndarray) -> float:
    """dBTP by 4x interpolation of the whole with an ideal (FFT) filter."""
    long = next_fast_len(len(samples) + 20_000)
    padded = np.zeros((long, samples.shape[1]))
    padded[10_000 : 10_000 + len(samples)] = samples
    return float(20 * np.log10(np.abs(resample(padded, 4 * long, axis=0)).max()))
