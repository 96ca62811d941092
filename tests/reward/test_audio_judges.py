"""Judges who hear rendered audio like what they say. All simulated; the sounds are made here."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import rlhf_core
from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.audio.io import Audio
from rlhf_core.audio_judges import AUDIO_JUDGES, RATE, Sound, heard
from rlhf_core.editing.actions import Action
from rlhf_core.errors import ConfigError
from rlhf_core.types import AudioState, BeatGrid, Passage

BEAT_S, N_BEATS = 0.5, 32
PACKAGE = Path(rlhf_core.__file__).parent


def tone(hz: float, seconds: float, level: float = 0.2) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def song(samples: np.ndarray) -> tuple[Audio, AudioState, Passage]:
    grid = BeatGrid(np.arange(N_BEATS + 1) * BEAT_S, np.arange(N_BEATS) % 4, 120.0, source="known")
    state = AudioState("synthetic", grid, np.zeros((N_BEATS, BEAT_FEATURES), np.float32))
    return Audio(samples[:, None], RATE, Path("synthetic.wav")), state, Passage(0, N_BEATS)


def cut(start: int, end: int) -> np.ndarray:
    actions = np.zeros(N_BEATS, dtype=np.int64)
    actions[start:end] = Action.CUT
    return actions


def score(name: str, samples: np.ndarray, *edits: np.ndarray) -> list[float]:
    return AUDIO_JUDGES[name].score(*song(samples), edits).tolist()


def imported(module: str, known: set[str]) -> set[str]:
    """The modules of this project that a module needs, read from their text, itself included."""
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    if module in known or not module.startswith("rlhf_core.") or not path.is_file():
        return known
    known.add(module)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                imported(name, known)
    return known


def test_at_least_three_listen_and_share_no_code_with_the_pretraining() -> None:
    assert len(AUDIO_JUDGES) >= 3
    theirs = imported("rlhf_core.audio_judges", set())
    ours = imported("rlhf_core.reward.pretraining", set())
    assert {"rlhf_core.editing.attributes", "rlhf_core.reward.descriptors"} <= ours
    shared = theirs & ours
    measures = ("rlhf_core.reward", "rlhf_core.editing", "rlhf_core.audio.features")
    assert {name for name in shared if name.startswith(measures)} == {"rlhf_core.editing.actions"}


def test_a_seam_between_unlike_sounds_is_heard() -> None:
    halves = np.concatenate([tone(200, 8.0), tone(3000, 8.1)])
    whole, alike, unlike = score("heard_seamless", halves, cut(0, 0), cut(4, 8), cut(12, 20))
    assert whole == 0
    assert whole > alike > unlike


def test_the_end_is_louder() -> None:
    swell = np.concatenate([tone(300, 8.0, 0.05), tone(300, 8.1, 0.4)])
    plain, flat = score("heard_big_finish", swell, cut(0, 0), cut(0, 16))
    assert plain > 12 and abs(flat) < 1


def test_bright_and_dark() -> None:
    halves = np.concatenate([tone(200, 8.0), tone(3000, 8.1)])
    dark, bright = score("heard_bright", halves, cut(16, 32), cut(0, 16))
    assert bright > dark


def test_the_same_again_is_not_varied() -> None:
    steps = np.concatenate([tone(hz, 4.0) for hz in (150, 500, 1500, 5000)] + [tone(150, 0.1)])
    varied, again = score("heard_varied", steps, cut(0, 0), cut(8, 32))
    assert varied > again


def test_a_hole_is_not_even() -> None:
    hole = np.concatenate([tone(300, 6.0), tone(300, 4.0, 0.001), tone(300, 6.1)])
    holed, mended = score("heard_even", hole, cut(0, 0), cut(12, 20))
    assert mended > holed + 10


def test_a_very_short_sound_and_wrong_audio() -> None:
    for judge in AUDIO_JUDGES.values():
        assert np.isfinite(judge.rule(Sound(np.zeros(10, np.float32), np.zeros(0))))
    audio, state, passage = song(tone(300, 16.1))
    with pytest.raises(ConfigError, match="mono"):
        heard(Audio(audio.samples, 44100, audio.path), state, passage, cut(0, 0))
