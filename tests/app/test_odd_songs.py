"""Files that people really have: each is taken in, or refused in words, and harms no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

ODD_NAME = "“quoted” '<script>alert(1)<|script>\" Ваня 日本.wav"


def beaten(rate: int, seconds: float, channels: int) -> np.ndarray:
    """(frames, channels) bursts of noise at 120 BPM."""
    frames = np.arange(int(rate * seconds))
    noise = np.random.default_rng(0).standard_normal((len(frames), channels))
    return 0.1 * noise * (0.05 + (frames % (rate // 2) < rate // 20))[:, None]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the library says of every odd file after one `songs add`, by title."""
    folder, workspace = (tmp_path_factory.mktemp(name) for name in ("odd", "workspace"))
    (folder / "text.wav").write_text("this is no audio\n" * 50)
    (folder / "empty.flac").touch()
    soundfile.write(folder / "short.wav", beaten(44100, 3, 1), 44100)
    soundfile.write(folder / "silence.wav", np.zeros((44100 * 20, 2)), 44100)
    soundfile.write(folder / "mono.wav", beaten(22050, 20, 1), 22050)
    soundfile.write(folder / "8k.wav", beaten(8000, 20, 1), 8000)
    soundfile.write(folder / "96k.wav", beaten(96000, 20, 2), 96000)
    soundfile.write(folder / "24bit.flac", beaten(48000, 20, 2), 48000, subtype="PCM_24")
    soundfile.write(folder / ODD_NAME, beaten(44100, 20, 2), 44100)
    whole = (folder / "24bit.flac").read_bytes()
    (folder / "torn.flac").write_bytes(whole[: len(whole) // 2])
    environment = os.environ | {"FEEDBACK_APP_AUTO_PREPARE": "false"}
    app = [sys.executable, "-m", "feedback_app"]
    for arguments in (["songs", "add", str(folder)], ["songs", "list"]):
        command = [*app, *arguments, "--workspace", str(workspace)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    from feedback_app.services import open_services

    services = open_services(workspace)
    try:
        songs = services.operations.list_songs()
        return {song["title"]: json.loads(json.dumps(song, default=str)) for song in songs}
    finally:
        services.close()


@pytest.mark.parametrize(
    "title", ["silence.wav", "mono.wav", "8k.wav", "96k.wav", "24bit.flac", ODD_NAME]
)
def test_usable_files_are_ready(listed: dict[str, dict[str, str]], title: str) -> None:
    assert listed[title]["status"] == "ready", listed[title]["error"]


def test_silence_gets_a_fixed_grid_and_says_so(listed: dict[str, dict[str, str]]) -> None:
    assert listed["silence.wav"]["beat_source"] == "fixed"


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("text.wav", "cannot be decoded"),
        ("empty.flac", "is empty"),
        ("short.wav", "longer recording"),
        ("torn.flac", "damaged"),
    ],
)
def test_unusable_files_are_refused_in_words(
    listed: dict[str, dict[str, str]], title: str, words: str
) -> None:
    assert listed[title]["status"] == "failed"
    assert words in listed[title]["error"]
