"""The fast features against plain librosa, on silence, and on sounds whose values are known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio import spectra
from rlhf_core.audio.beats import fixed_grid, track_beats
from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES, STEMS
from rlhf_core.audio.features import beat_features, beat_means
from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio, to_analysis
from rlhf_core.errors import ConfigError
from tests.audio.plain_librosa import plain_features

# Largest difference from plain librosa over all beats, in standard deviations of the column over
# the song, and where it comes from. Columns that are not named here may differ by FLOAT32.
FLOAT32 = 1e-4  # float32 sums in another order; beat means are taken in float64 on both sides
TOP_BAND = "bins that a low-pass filter emptied hold the rounding noise of a float32 transform"
DEVIATIONS: dict[str, tuple[float, str]] = {
    "rolloff": (1e-2, "one bin, in a frame whose running sum meets 85 % within float32 rounding"),
    "bandwidth": (1e-3, "computed as a difference of moments instead of squares of differences"),
    "flatness": (2e-3, "a geometric mean of nearly empty bins, in float32"),
    "spectral_contrast[0:6]": (5e-3, "valleys of one or two nearly empty bins, in float32"),
    "spectral_contrast[6]": (0.4, TOP_BAND),
    "stem_energy": (1e-3, "what is left of a difference of two nearly equal powers"),
    "stem_centroid": (2e-3, "as stem_energy"),
    "stem_ratio": (2e-3, "as stem_energy"),
}
# temporal_delta of a column is a difference of two beats, each as far off as the column itself may
# be; a difference may vary less than what it is a difference of.
DELTA_FACTOR = 3.0


def column_tolerances() -> dict[int, tuple[str, float]]:
    """{column: (name, tolerance)} for every one of the 121."""
    table: dict[int, tuple[str, float]] = {}
    for name, part in FEATURE_SLICES.items():
        for i, column in enumerate(range(part.start, part.stop)):
            key = name
            if name == "spectral_contrast":
                key = f"{name}[6]" if i == 6 else f"{name}[0:6]"
            table[column] = (f"{name}[{i}]", DEVIATIONS.get(key, (FLOAT32, ""))[0])
    for i, column in enumerate(range(*FEATURE_SLICES["temporal_delta"].indices(BEAT_FEATURES))):
        name, tolerance = table[i]
        table[column] = (f"change of {name}", DELTA_FACTOR * tolerance)
    return table


def assert_agrees(fast: np.ndarray, plain: np.ndarray, what: str) -> None:
    """Column by column; a column that never changes must agree to 1e-5 of its value."""
    assert fast.shape == plain.shape and fast.shape[1] == BEAT_FEATURES
    tolerances = column_tolerances()
    assert sorted(tolerances) == list(range(BEAT_FEATURES))
    for column, (name, tolerance) in tolerances.items():
        spread = max(float(plain[:, column].std()), 1e-5 * float(np.abs(plain[:, column]).max()))
        worst = float(np.abs(fast[:, column] - plain[:, column]).max())
        assert worst <= tolerance * spread + 1e-7, (what, name, worst / (spread + 1e-12))


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_every_column_equals_plain_librosa_on_synthetic_songs(
    seed: int, demo_audio: Callable[[int], Audio]
) -> None:
    mono = to_analysis(demo_audio(seed))[: 40 * ANALYSIS_RATE]
    grid = track_beats(mono, ANALYSIS_RATE)
    fast = beat_features(mono, ANALYSIS_RATE, grid)
    assert_agrees(fast, plain_features(mono, ANALYSIS_RATE, grid), f"demo {seed}")


def test_every_column_equals_plain_librosa_on_real_songs(real_songs: list[Path]) -> None:
    for path in real_songs:
        mono = to_analysis(read_audio(path))[: 60 * ANALYSIS_RATE]
        grid = track_beats(mono, ANALYSIS_RATE)
        fast = beat_features(mono, ANALYSIS_RATE, grid)
        assert_agrees(fast, plain_features(mono, ANALYSIS_RATE, grid), path.name)


def test_the_selectable_librosa_featuriser_is_plain_librosa(
    demo_audio: Callable[[int], Audio],
) -> None:
    mono = to_analysis(demo_audio(0))[: 25 * ANALYSIS_RATE]
    grid = track_beats(mono, ANALYSIS_RATE)
    reference = beat_features(mono, ANALYSIS_RATE, grid, featuriser="librosa")
    assert_agrees(reference, plain_features(mono, ANALYSIS_RATE, grid), "featuriser librosa")


def test_the_top_contrast_band_differs_by_transform_noise_alone(
    demo_audio: Callable[[int], Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one large tolerance above has the reason that is given there, and no other."""

    def exact(mono: np.ndarray, n_fft: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
        padded = np.pad(mono.astype(np.float64), n_fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        yield 0, np.abs(np.fft.rfft(frames * window)) ** 2

    mono = to_analysis(demo_audio(0))[: 15 * ANALYSIS_RATE]
    grid = track_beats(mono, ANALYSIS_RATE)
    plain = plain_features(mono, ANALYSIS_RATE, grid)
    monkeypatch.setattr(spectra, "power_blocks", exact)
    columns = FEATURE_SLICES["spectral_contrast"]
    double = beat_features(mono, ANALYSIS_RATE, grid)[:, columns]
    spread = plain[:, columns].std(axis=0)
    assert float((np.abs(double - plain[:, columns]) / spread).max()) < 1e-3


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


def test_analysis_needs_neither_librosa_nor_numba_nor_torch(tmp_path: Path) -> None:
    """The whole command, cache and all: what is slow to load is not loaded."""
    code = (
        "import sys, numpy as np, soundfile\n"
        "from rlhf_core import precache_stems\n"
        "x = np.random.default_rng(0).uniform(-1, 1, (88200, 2))\n"
        "soundfile.write(sys.argv[1] + '/x.wav', x, 22050)\n"
        "assert precache_stems.main([sys.argv[1], '--workers', '1']) == 0\n"
        "print([m for m in ('librosa', 'numba', 'torch', 'demucs') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert list((tmp_path / ".cache").glob("*.npz"))


def test_real_songs_have_finite_features(real_songs: list[Path]) -> None:
    for path in real_songs:
        mono = to_analysis(read_audio(path))
        grid = track_beats(mono, ANALYSIS_RATE)
        features = beat_features(mono, ANALYSIS_RATE, grid)
        assert np.isfinite(features).all()
        assert (features.std(axis=0) > 0).sum() > 115
