"""The fast features against plain librosa, on silence, and on sounds whose values are known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio.beats import fixed_grid, track_beats
from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES, STEMS
from rlhf_core.audio.features import beat_features, beat_means
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio, to_analysis
from rlhf_core.errors import ConfigError

# Largest difference over all beats, in standard deviations of the column over the song.
TOLERANCE = dict.fromkeys(FEATURE_SLICES, 1e-3) | {
    "spectral_contrast": 0.25,  # float32, where a band falls to librosa's 80 dB clamp
    "temporal_delta": 0.25,
}


def test_fast_equals_librosa(demo_audio: Callable[[int], Audio]) -> None:
    mono = to_analysis(demo_audio(0))[: 25 * ANALYSIS_RATE]
    grid = track_beats(mono, ANALYSIS_RATE)
    fast = beat_features(mono, ANALYSIS_RATE, grid)
    reference = beat_features(mono, ANALYSIS_RATE, grid, featuriser="librosa")
    assert fast.shape == reference.shape == (grid.n_beats, BEAT_FEATURES)
    for name, part in FEATURE_SLICES.items():
        spread = reference[:, part].std(axis=0) + 1e-6
        worst = float((np.abs(fast[:, part] - reference[:, part]) / spread).max())
        assert worst < TOLERANCE[name], (name, worst)


def test_silence_and_full_scale_are_finite() -> None:
    grid = fixed_grid(6.0)
    for mono in (np.zeros(6 * ANALYSIS_RATE), np.ones(6 * ANALYSIS_RATE), np.eye(1, 132300)[0]):
        features = beat_features(mono.astype(np.float32), ANALYSIS_RATE, grid)
        assert np.isfinite(features).all()


def test_values_of_a_sine() -> None:
    time = np.arange(8 * ANALYSIS_RATE) / ANALYSIS_RATE
    mono = (0.5 * np.sin(2 * np.pi * 1760 * time)).astype(np.float32)  # an A
    row = beat_features(mono, ANALYSIS_RATE, fixed_grid(8.0))[8]

    def value(name: str) -> float:
        return float(row[FEATURE_SLICES[name]][0])

    assert value("rms") == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert value("zero_crossing_rate") == pytest.approx(2 * 1760 / ANALYSIS_RATE, rel=0.01)
    assert value("spectral_centroid") == pytest.approx(1760, rel=0.02)
    assert value("flatness") < 1e-3
    assert int(np.argmax(row[FEATURE_SLICES["chroma"]])) == 9
    assert value("onset_strength") < 0.01


def test_grid_columns_by_hand() -> None:
    mono = np.random.default_rng(0).standard_normal(10 * ANALYSIS_RATE).astype(np.float32)
    features = beat_features(mono, ANALYSIS_RATE, fixed_grid(10.0))
    phase = features[:, FEATURE_SLICES["beat_phase"]]
    np.testing.assert_allclose(phase[:5, 0], [0, 0.25, 0.5, 0.75, 0])
    np.testing.assert_allclose(phase[:5, 1], [1, 0, 0, 0, 1])
    np.testing.assert_allclose(phase[:9, 2], [*np.arange(8) / 8, 0])
    assert np.allclose(features[:, FEATURE_SLICES["tempo_deviation"]], 0)
    assert np.allclose(features[:, FEATURE_SLICES["interval_ratio"]], 1)
    delta = features[:, FEATURE_SLICES["temporal_delta"]]
    np.testing.assert_allclose(delta[1:], np.diff(features[:, :52], axis=0), atol=1e-3)
    assert not delta[0].any()


def test_beat_means_by_hand() -> None:
    grid = fixed_grid(4.0)  # beats at 0, 0.5, ...
    values = np.arange(40, dtype=np.float32)[:, None]  # ten frames a second
    np.testing.assert_allclose(beat_means(values, grid, 10.0)[:, 0], np.arange(8) * 5 + 2)
    sparse = beat_means(np.arange(4, dtype=np.float32)[:, None], grid, 1.0)
    assert np.isfinite(sparse).all()  # fewer frames than beats: each still gets one


@pytest.mark.parametrize("seed", [0, 3])
def test_stem_proxies_follow_the_true_stems(
    seed: int, demo: Callable[[int], DemoSong], demo_audio: Callable[[int], Audio]
) -> None:
    song = demo(seed)
    features = beat_features(to_analysis(demo_audio(seed)), ANALYSIS_RATE, song.grid)
    found = features[:, FEATURE_SLICES["stem_energy"]]
    truth = song.truth()["stem_energy_db"]
    for column, name in enumerate(STEMS):
        known = np.maximum(truth[name], -50)
        r = float(np.corrcoef(np.maximum(found[:, column], -30), known)[0, 1])
        assert r > 0.4, (name, r)
    share = features[:, FEATURE_SLICES["stem_ratio"]]
    sounding = share.sum(axis=1) > 0
    np.testing.assert_allclose(share[sounding].sum(axis=1), 1.0, atol=1e-4)


def test_unknown_featuriser_is_refused() -> None:
    with pytest.raises(ConfigError, match="fast, librosa"):
        beat_features(
            np.zeros(132300, np.float32), ANALYSIS_RATE, fixed_grid(6.0), featuriser="slow"
        )


def test_the_fast_path_needs_neither_librosa_nor_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from rlhf_core.audio.library import analyse\n"
        "from rlhf_core.audio.io import Audio\n"
        "from pathlib import Path\n"
        "x = np.random.default_rng(0).standard_normal((88200, 1)).astype('f')\n"
        "analyse(Audio(x, 22050, Path('x.wav')), 'x')\n"
        "print([m for m in ('librosa', 'numba', 'torch') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_songs_have_finite_features(real_songs: list[Path]) -> None:
    for path in real_songs:
        mono = to_analysis(read_audio(path))
        grid = track_beats(mono, ANALYSIS_RATE)
        features = beat_features(mono, ANALYSIS_RATE, grid)
        assert np.isfinite(features).all()
        assert (features.std(axis=0) > 0).sum() > 115
