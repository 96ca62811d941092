"""Instruments for the synthesised demo songs: wavetable notes, drum hits, a reverb.

Everything is mono float32 at `RATE`, vectorised, and cached where a song plays a sound again and
again. Two wavetables per timbre (a dark and a bright one) are mixed by a decaying envelope: that
gives the movement that a fixed spectrum lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from scipy.signal import butter, oaconvolve, sosfilt

from rlhf_core.types import FloatArray

Wave = Any  # an array of NumPy's own choice of precision; `drum` makes it float32

RATE: Final = 44100
_TABLE: Final = 2048
_TOP_HZ: Final = 15000.0


@dataclass(frozen=True)
class Timbre:
    """How an instrument sounds.

    dark, bright: harmonic k's amplitude is k ** -slope, odd harmonics only where `odd`.
    brightness_s, decay_s: time constants (seconds) of the bright part and of the whole note.
    vibrato: depth in semitones; detune: cents between the left and the right voice.
    """

    dark: float
    bright: float
    attack_s: float = 0.005
    decay_s: float = 2.0
    release_s: float = 0.08
    brightness_s: float = 0.3
    sustain: float = 0.0
    odd: bool = False
    vibrato: float = 0.0
    detune: float = 0.0


TIMBRES: Final[dict[str, Timbre]] = {
    "piano": Timbre(2.0, 1.1, 0.003, 1.1, 0.12, 0.25, detune=3),
    "epiano": Timbre(3.2, 1.6, 0.004, 1.4, 0.15, 0.12, detune=5),
    "guitar": Timbre(1.8, 0.9, 0.002, 0.7, 0.08, 0.09, detune=2),
    "organ": Timbre(1.7, 1.3, 0.012, 9.0, 0.05, 5.0, 0.9, odd=True, vibrato=0.04, detune=6),
    "pad": Timbre(1.6, 1.1, 0.12, 6.0, 0.30, 1.5, 0.8, detune=14),
    "strings": Timbre(1.3, 0.9, 0.09, 6.0, 0.25, 2.0, 0.85, vibrato=0.08, detune=10),
    "flute": Timbre(2.8, 2.0, 0.035, 5.0, 0.06, 0.10, 0.85, vibrato=0.16),
    "clarinet": Timbre(1.7, 1.2, 0.025, 5.0, 0.06, 0.20, 0.85, odd=True, vibrato=0.10),
    "brass": Timbre(1.3, 0.7, 0.030, 3.0, 0.07, 0.35, 0.75, vibrato=0.10),
    "synth": Timbre(1.1, 0.8, 0.006, 1.5, 0.06, 0.25, 0.5, vibrato=0.06, detune=9),
    "square": Timbre(1.4, 1.0, 0.004, 2.0, 0.05, 0.20, 0.6, odd=True, vibrato=0.08, detune=5),
    "vibes": Timbre(3.5, 2.2, 0.002, 1.8, 0.20, 0.06, vibrato=0.03, detune=3),
    "fingerbass": Timbre(1.7, 1.0, 0.006, 0.9, 0.05, 0.12, 0.2),
    "upright": Timbre(2.1, 1.3, 0.008, 0.6, 0.06, 0.07, 0.05),
    "synthbass": Timbre(1.3, 0.8, 0.004, 1.2, 0.04, 0.18, 0.45),
}


@lru_cache(maxsize=512)
def _table(slope: float, odd: bool, harmonics: int) -> FloatArray:
    """One cycle, band-limited to so many harmonics, with unit root mean square."""
    number = np.arange(1, harmonics + 1)
    amplitude = number ** -float(slope)
    if odd:
        amplitude = np.where(number % 2 == 0, amplitude * 0.12, amplitude)
    phases = np.random.default_rng(7).uniform(0, 2 * np.pi, harmonics)
    spectrum = np.zeros(_TABLE // 2 + 1, dtype=complex)
    spectrum[1 : harmonics + 1] = amplitude * np.exp(1j * phases)
    cycle = np.fft.irfft(spectrum, _TABLE)
    return np.asarray(cycle / np.sqrt(np.mean(cycle**2)), dtype=np.float32)


@lru_cache(maxsize=2048)
def note(timbre: str, midi: float, milliseconds: int, cents: float = 0.0) -> FloatArray:
    """A note of the given length plus its release, at about -18 dBFS."""
    sound = TIMBRES[timbre]
    seconds = milliseconds / 1000
    count = int((seconds + sound.release_s) * RATE)
    time = np.arange(count, dtype=np.float32) / np.float32(RATE)
    pitch = 440.0 * 2 ** ((midi - 69 + cents / 100) / 12)
    cycles = np.arange(count, dtype=np.float64) * (pitch / RATE)
    if sound.vibrato:
        depth = pitch * (2 ** (sound.vibrato / 12) - 1) / (2 * np.pi * 5.3)
        swell = np.clip((time - 0.15) / 0.3, 0.0, 1.0)
        cycles += depth * swell * (1 - np.cos(2 * np.pi * 5.3 * time))
    index = (cycles * _TABLE).astype(np.int64) & (_TABLE - 1)
    harmonics = int(np.clip(_TOP_HZ / pitch, 1, 28))
    glow = np.exp(-time / sound.brightness_s)
    tone = _table(sound.dark, sound.odd, harmonics)[index] * (1 - glow)
    tone += _table(sound.bright, sound.odd, harmonics)[index] * glow
    return np.asarray(0.12 * tone * _envelope(sound, time, seconds), dtype=np.float32)


def _envelope(sound: Timbre, time: FloatArray, seconds: float) -> FloatArray:
    attack = np.minimum(time / sound.attack_s, 1.0)
    body = sound.sustain + (1 - sound.sustain) * np.exp(-time / sound.decay_s)
    release = np.clip(1 - (time - seconds) / sound.release_s, 0.0, 1.0) ** 2
    return np.asarray(attack * body * release, dtype=np.float32)


def _times(seconds: float) -> FloatArray:
    return np.arange(int(seconds * RATE), dtype=np.float32) / np.float32(RATE)


def _noise(seconds: float, low: float, high: float | None, seed: int) -> FloatArray:
    """Noise above `low` Hz (and below `high`)."""
    white = np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)
    band = low if high is None else (low, high)
    sections = butter(2, band, "highpass" if high is None else "bandpass", fs=RATE, output="sos")
    return np.asarray(sosfilt(sections, white), dtype=np.float32)


def _kick(kit: int, take: int) -> Wave:
    time = _times(0.30)
    base, sweep = (48.0, 120.0) if kit == 0 else ((43.0, 170.0) if kit == 1 else (58.0, 70.0))
    phase = base * time - sweep * 0.028 * np.exp(-time / 0.028)
    body = np.sin(2 * np.pi * phase) * np.exp(-time / (0.10 + 0.03 * kit))
    click = _noise(0.30, 1500.0, 6000.0, take) * np.exp(-time / 0.004)
    return 0.9 * body + 0.18 * click


def _snare(kit: int, take: int) -> Wave:
    time = _times(0.22)
    tone = np.sin(2 * np.pi * (185 + 12 * kit) * time) * np.exp(-time / 0.05)
    rattle = _noise(0.22, 1300.0, 9000.0, 50 + take) * np.exp(-time / (0.06 + 0.02 * kit))
    return 0.35 * tone + 0.42 * rattle


def _brush(kit: int, take: int) -> Wave:
    time = _times(0.20)
    return 0.22 * _noise(0.20, 1800.0, 7000.0, 90 + take) * np.exp(-time / 0.07)


def _clap(kit: int, take: int) -> Wave:
    time = _times(0.22)
    bursts = sum(np.where(time > at, np.exp(-(time - at) / 0.006), 0.0) for at in (0, 0.011, 0.021))
    tail = np.where(time > 0.03, np.exp(-(time - 0.03) / 0.06), 0.0)
    return 0.3 * _noise(0.22, 900.0, 5000.0, 130 + take) * (bursts + tail)


def _rim(kit: int, take: int) -> Wave:
    time = _times(0.06)
    return 0.35 * np.sin(2 * np.pi * 1650 * time) * np.exp(-time / 0.010)


def _hat(kit: int, take: int) -> Wave:
    time = _times(0.09)
    return 0.15 * _noise(0.09, 7500.0, None, 170 + take) * np.exp(-time / (0.018 + 0.006 * kit))


def _open_hat(kit: int, take: int) -> Wave:
    time = _times(0.35)
    return 0.13 * _noise(0.35, 6800.0, None, 210 + take) * np.exp(-time / 0.12)


def _ride(kit: int, take: int) -> Wave:
    time = _times(0.6)
    bell = sum(np.sin(2 * np.pi * hz * time + hz) for hz in (3170, 4210, 5390, 7130))
    wash = _noise(0.6, 5000.0, None, 250 + take)
    return (0.018 * bell + 0.05 * wash) * np.exp(-time / 0.16)


def _shaker(kit: int, take: int) -> Wave:
    time = _times(0.08)
    return 0.16 * _noise(0.08, 5200.0, 12000.0, 290 + take) * np.sin(np.pi * time / 0.08)


def _tom(kit: int, take: int) -> Wave:
    time = _times(0.35)
    phase = (95 + 18 * (take % 3)) * time - 0.9 * np.exp(-time / 0.03)
    return 0.6 * np.sin(2 * np.pi * phase) * np.exp(-time / 0.12)


def _crash(kit: int, take: int) -> Wave:
    time = _times(1.8)
    return 0.16 * _noise(1.8, 3500.0, None, 330 + take) * np.exp(-time / 0.45)


def _stick(kit: int, take: int) -> Wave:
    time = _times(0.05)
    return 0.3 * np.sin(2 * np.pi * 2500 * time) * np.exp(-time / 0.008)


DRUMS: Final[dict[str, Callable[[int, int], Wave]]] = {
    "kick": _kick,
    "snare": _snare,
    "brush": _brush,
    "clap": _clap,
    "rim": _rim,
    "hat": _hat,
    "open": _open_hat,
    "ride": _ride,
    "shaker": _shaker,
    "tom": _tom,
    "crash": _crash,
    "stick": _stick,
}
TAKES: Final = 4  # recordings of each drum, so that no two hits in a row are the same


@lru_cache(maxsize=256)
def drum(name: str, kit: int, take: int) -> FloatArray:
    """One take of one drum of one kit."""
    hit = np.asarray(DRUMS[name](kit, take % TAKES), dtype=np.float32)
    fade = min(len(hit), 256)
    hit[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return hit


def reverb(send: FloatArray, seconds: float, seed: int) -> FloatArray:
    """A room: each channel of send (2, frames) through its own decaying noise."""
    rng = np.random.default_rng(seed)
    count = int(1.2 * seconds * RATE)
    decay = np.exp(-np.arange(count) / (seconds * RATE / 6.9)) * np.minimum(
        np.arange(count) / (0.012 * RATE), 1.0
    )
    sections = butter(1, (180.0, 5200.0), "bandpass", fs=RATE, output="sos")
    wet = np.empty_like(send)
    for channel in range(2):
        impulse = sosfilt(sections, rng.standard_normal(count)) * decay
        impulse = (impulse / np.sqrt(np.sum(impulse**2))).astype(np.float32)
        wet[channel] = oaconvolve(send[channel], impulse)[: send.shape[1]]
    return wet
