"""Songs made up for tests: random but plausible features on a known beat grid (synthetic data)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES
from rlhf_core.types import AudioState, BeatGrid

StateFactory = Callable[..., AudioState]


def synthetic_state(
    seed: int = 0, n_beats: int = 64, beats_per_bar: int = 4, first_phase: int = 0
) -> AudioState:
    """A synthetic song: bar phases from `first_phase` on, about 120 BPM, smooth features."""
    rng = np.random.default_rng(seed)
    durations = rng.uniform(0.4, 0.6) * (1 + 0.01 * rng.standard_normal(n_beats))
    times = np.concatenate([[0.0], np.cumsum(durations)]) + rng.uniform(0, 1)
    phase = (np.arange(n_beats) + first_phase) % beats_per_bar
    features = np.abs(rng.standard_normal((n_beats, BEAT_FEATURES)).cumsum(0) * 0.3) + 0.1
    features[:, FEATURE_SLICES["rms"].start] = 0.02 + 0.2 * rng.random(n_beats)
    grid = BeatGrid(times, phase, 60 / float(durations.mean()), beats_per_bar, source="known")
    return AudioState(f"synthetic{seed:07d}", grid, features.astype(np.float32))


@pytest.fixture
def make_state() -> StateFactory:
    """make_state(seed, n_beats, beats_per_bar, first_phase=0) -> AudioState."""
    return synthetic_state
