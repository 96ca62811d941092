"""Made-up songs with sections that come back, and a small bootstrap trained on them (synthetic)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.pretraining import PretrainingSettings, bootstrap
from rlhf_core.types import AudioState, BeatGrid


def sectioned_song(seed: int, n_sections: int = 12) -> AudioState:
    """A synthetic song of 16-beat sections A B A C …: each kind has its own sound and level."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(4, BEAT_FEATURES))
    in_bar = rng.normal(size=(4, BEAT_FEATURES)) * 0.5
    chords = rng.normal(size=(8, BEAT_FEATURES)) * 0.7
    order = rng.integers(0, 4, n_sections)
    n_beats = 16 * n_sections
    beat = np.arange(n_beats)
    features = kinds[order[beat // 16]] + in_bar[beat % 4] + chords[beat // 4 % 8]
    features += 0.3 * rng.normal(size=features.shape)
    rms = FEATURE_SLICES["rms"].start
    features[:, rms] = np.exp(0.4 * features[:, rms]) * 0.1
    durations = rng.uniform(0.4, 0.6) * (1 + 0.01 * rng.normal(size=n_beats))
    times = np.concatenate([[0.0], np.cumsum(durations)])
    grid = BeatGrid(times, beat % 4, 60 / float(durations.mean()), source="known")
    return AudioState(f"synthetic{seed:07d}", grid, features.astype(np.float32))


@pytest.fixture(scope="session")
def songs() -> list[AudioState]:
    """Twelve made-up songs."""
    return [sectioned_song(seed) for seed in range(12)]


@pytest.fixture(scope="session")
def bootstrap_path(songs: list[AudioState], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bootstrap pretrained for a few steps only: enough to tell edits apart."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("bootstrap") / "reward_model_final.pt"
    settings = PretrainingSettings(
        pairs=480, steps=130, time_limit=None, reference_windows=24, held_out_windows=8
    )
    bootstrap(songs[:6], path, settings, config=RewardModelConfig(d_model=64, ff=128, embedding=96))
    return path


@pytest.fixture
def checkpoint(bootstrap_path: Path) -> RewardCheckpoint:
    return load_reward(bootstrap_path)
