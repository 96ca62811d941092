"""Loudness against pyloudnorm, true peak against a long interpolation and a known sine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import resample

from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.loudness import integrated_loudness, to_db, true_peak
from tests.audio.edits import ideal_true_peak_db


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_songs_as_pyloudnorm(seed: int, demo_audio: Callable[[int], Audio]) -> None:
    audio = demo_audio(seed)
    wanted = pyloudnorm.Meter(audio.sample_rate).integrated_loudness(audio.samples)
    assert integrated_loudness(audio.samples, audio.sample_rate) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_noise_with_a_quiet_stretch_as_pyloudnorm(rate: int, channels: int) -> None:
    rng = np.random.default_rng(rate)
    noise = 0.1 * rng.standard_normal((12 * rate, channels)).astype(np.float32)
    noise[: 5 * rate] *= 0.01
    wanted = pyloudnorm.Meter(rate).integrated_loudness(noise)
    assert integrated_loudness(noise, rate) == pytest.approx(wanted, abs=0.05)


def test_silence_has_no_loudness() -> None:
    assert integrated_loudness(np.zeros((48000, 2), dtype=np.float32), 48000) == -np.inf
    assert integrated_loudness(np.zeros((10, 2), dtype=np.float32), 48000) == -np.inf


def test_twice_the_amplitude_is_six_db() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal((96000, 2)).astype(np.float32)
    louder = integrated_loudness(2 * noise, 48000) - integrated_loudness(noise, 48000)
    assert louder == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_true_peak_of_a_sine_between_samples() -> None:
    time = np.arange(48000)
    sine = 0.5 * np.sin(np.pi / 2 * time + np.pi / 4)  # samples only at 0.3536
    sine *= np.minimum(1.0, np.minimum(time, time[::-1]) / 4800)  # an abrupt start would ring
    assert np.abs(sine).max() < 0.36
    assert true_peak(sine[:, None].astype(np.float32)) == pytest.approx(0.5, rel=0.005)


def test_true_peak_of_a_song(demo_audio: Callable[[int], Audio]) -> None:
    samples = demo_audio(5).samples[: 44100 * 6]
    wanted = np.abs(resample(samples.astype(np.float64), 4 * len(samples), axis=0)).max()
    assert to_db(true_peak(samples)) == pytest.approx(to_db(float(wanted)), abs=0.1)
    assert true_peak(samples) >= np.abs(samples).max()
    assert true_peak(np.zeros((100, 2), dtype=np.float32)) == 0.0


def test_real_songs_as_pyloudnorm(real_songs: list[Path]) -> None:
    for path in real_songs:
        audio = read_audio(path)
        wanted = pyloudnorm.Meter(audio.sample_rate).integrated_loudness(audio.samples)
        found = integrated_loudness(audio.samples, audio.sample_rate)
        assert found == pytest.approx(wanted, abs=0.02), path.name


def test_true_peak_of_the_hardest_signals() -> None:
    """White noise and noise clipped flat, both full of energy right up to half the rate."""
    noise = np.random.default_rng(0).standard_normal((100_000, 2))
    for samples in (0.2 * noise, np.clip(noise, -0.8, 0.8)):
        found = to_db(true_peak(samples.astype(np.float32)))
        assert found == pytest.approx(ideal_true_peak_db(samples), abs=0.1)
