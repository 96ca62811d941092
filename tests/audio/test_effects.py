"""FADE, GAIN and REVERSE do what they say and nothing else: on tones, where artefacts show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import hilbert

from rlhf_core.audio.io import Audio
from rlhf_core.audio.render import CROSSFADE_S, render_edl
from rlhf_core.editing.actions import Action
from rlhf_core.types import BeatGrid
from tests.audio.edits import edit

RATE, HZ, LEVEL = 22050, 441.0, 0.3
GRID = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, 120.0, source="known")
CHANGES = {
    "fade in": {8: Action.FADE_IN, 9: Action.FADE_IN},
    "fade out": {10: Action.FADE_OUT, 11: Action.FADE_OUT, 12: Action.FADE_OUT},
    "quiet bar": dict.fromkeys(range(8, 12), Action.GAIN_DOWN),
    "loud beat": {13: Action.GAIN_UP},
    "backwards": {9: Action.REVERSE, 14: Action.REVERSE},
    "all at once": {5: Action.FADE_OUT, 6: Action.GAIN_UP, 7: Action.REVERSE, 9: Action.FADE_IN},
}


def tone() -> Audio:
    time = np.arange(17 * RATE) / RATE
    samples = LEVEL * np.sin(2 * np.pi * HZ * time + 0.3)
    return Audio(samples.astype(np.float32)[:, None], RATE, Path("tone.wav"))


def inner(name: str) -> np.ndarray:
    """The render without the fades at its very ends."""
    out: np.ndarray = render_edl(tone(), edit(GRID, CHANGES[name]))[:, 0].astype(np.float64)
    return out[500:-500]


def envelope(name: str) -> np.ndarray:
    analytic: np.ndarray = np.abs(hilbert(render_edl(tone(), edit(GRID, CHANGES[name]))[:, 0]))
    return analytic / LEVEL


def at(beat: float) -> int:
    return round(beat * 0.5 * RATE)


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_jumps(name: str) -> None:
    """A step in the signal or its slope shows in the second difference; a tone's own is known."""
    bend = LEVEL * (2 * np.pi * HZ / RATE) ** 2
    loudest = 10 ** (4 / 20) if Action.GAIN_UP in CHANGES[name].values() else 1.0
    crossing = 1.5 if Action.REVERSE in CHANGES[name].values() else 1.08
    assert np.abs(np.diff(inner(name), 2)).max() < crossing * loudest * bend


def highest_artefact(name: str, crossfade_s: float) -> float:
    """dB under the tone of the loudest thing beyond 250 Hz from it, wherever one looks."""
    out = render_edl(tone(), edit(GRID, CHANGES[name]), crossfade_s)[500:-500, 0]
    size = 4096
    window = np.blackman(size)
    far = np.abs(np.fft.rfftfreq(size, 1 / RATE) - HZ) > 250
    frames = np.lib.stride_tricks.sliding_window_view(out, size)[:: size // 8]
    spectra = np.abs(np.fft.rfft(window * frames, axis=1))[:, far]
    return float(20 * np.log10(spectra.max() / (LEVEL * window.sum() / 2)))


@pytest.mark.parametrize("name", CHANGES)
def test_no_frequency_comes_in(name: str) -> None:
    soft = highest_artefact(name, CROSSFADE_S)
    assert soft < -65
    assert highest_artefact(name, 0.0) > soft + 25  # the measure sees what a hard change does


def test_a_run_of_fades_is_one_straight_ramp() -> None:
    up, down = envelope("fade in"), envelope("fade out")
    for part in (0.2, 0.5, 0.9):
        assert up[at(8 + 2 * part)] == pytest.approx(part, abs=0.02)
        assert down[at(10 + 3 * part)] == pytest.approx(1 - part, abs=0.02)
    assert up[at(7.5)] == pytest.approx(1.0, abs=0.01)
    assert up[at(11)] == pytest.approx(1.0, abs=0.01)
    assert np.all(np.diff(up[at(8.1) : at(9.9) : 500]) > 0)


def test_gains_are_exactly_theirs() -> None:
    quiet, loud = envelope("quiet bar"), envelope("loud beat")
    for beat in (8.5, 10.0, 11.5):
        assert 20 * np.log10(quiet[at(beat)]) == pytest.approx(-6.0, abs=0.05)
    assert 20 * np.log10(loud[at(13.5)]) == pytest.approx(4.0, abs=0.05)
    for beat in (7.5, 12.5):
        assert quiet[at(beat)] == pytest.approx(1.0, abs=0.01)


def test_levels_never_overshoot_on_their_way() -> None:
    quiet, loud = envelope("quiet bar"), envelope("loud beat")
    assert quiet[at(1) : at(31)].max() < 1.01
    assert loud[at(1) : at(31)].max() < 10 ** (4 / 20) + 0.01
    assert loud[at(1) : at(31)].min() > 0.99


def test_a_backward_tone_is_still_that_tone() -> None:
    level = envelope("backwards")[at(1) : at(31)]
    assert level.max() < 1.05  # cross-fades with another phase may dip, never swell
    assert np.median(level) == pytest.approx(1.0, abs=0.002)
