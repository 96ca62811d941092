"""Every kind of file: read as soundfile reads it, or refused with a message that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlhf_core.audio.io import ANALYSIS_RATE, Audio, read_audio, to_analysis, write_audio
from rlhf_core.errors import AudioError


def tone(seconds: float, rate: int, channels: int, hz: float = 440.0) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * hz * time)] * channels, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options"),
    [
        ("mono.wav", 44100, 1, {"subtype": "PCM_16"}),
        ("eight.wav", 8000, 2, {"subtype": "PCM_16"}),
        ("high.flac", 96000, 2, {"subtype": "PCM_24"}),
        ("deep.wav", 48000, 2, {"subtype": "PCM_24"}),
        ("float.wav", 44100, 2, {"subtype": "FLOAT"}),
        ("vorbis.ogg", 44100, 2, {"format": "OGG", "subtype": "VORBIS"}),
        ("mpeg.mp3", 44100, 2, {"format": "MP3"}),
        ("LOUD.WAV", 22050, 1, {"subtype": "PCM_U8", "format": "WAV"}),
        ('it\'s "odd" <script>alert(1)</script>.wav'.replace("/", "∕"), 44100, 2, {}),
        ("песня 歌 🎵.flac", 44100, 1, {}),
    ],
)
def test_reads_what_was_written(
    tmp_path: Path, name: str, rate: int, channels: int, options: dict[str, str]
) -> None:
    path = tmp_path / name
    wanted = tone(4.0, rate, channels)
    soundfile.write(path, wanted, rate, **options)
    audio = read_audio(path)
    assert (audio.sample_rate, audio.channels) == (rate, channels)
    assert abs(audio.duration_s - 4.0) < 0.1
    assert audio.samples.dtype == np.float32
    assert abs(float(np.sqrt(np.mean(audio.samples**2))) - 0.4 / np.sqrt(2)) < 0.01
    mono = to_analysis(audio)
    assert mono.ndim == 1 and abs(len(mono) / ANALYSIS_RATE - audio.duration_s) < 0.01
    spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
    assert abs(np.argmax(spectrum) * ANALYSIS_RATE / len(mono) - 440.0) < 1.0


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> (path, a word of the message)."""
    (folder / "text.wav").write_text("this is not audio, whatever its name says\n" * 50)
    (folder / "empty.flac").touch()
    soundfile.write(folder / "short.wav", tone(1.0, 44100, 1), 44100)
    (folder / "song.m4a").write_bytes(b"\0" * 100)
    broken = tone(4.0, 8000, 1)
    broken[100] = np.nan
    soundfile.write(folder / "nan.wav", broken, 8000, subtype="FLOAT")
    soundfile.write(folder / "surround.wav", tone(4.0, 8000, 6), 8000)
    soundfile.write(folder / "whole.flac", tone(4.0, 8000, 1) + 0.01, 8000)
    soundfile.write(folder / "no_frames.wav", tone(0.0, 8000, 1), 8000)
    (folder / "directory.wav").mkdir()
    return {
        "text": (folder / "text.wav", "decoded"),
        "empty": (folder / "empty.flac", "empty"),
        "missing": (folder / "nowhere.wav", "no such file"),
        "short": (folder / "short.wav", "too short"),
        "no frames": (folder / "no_frames.wav", "too short"),
        "kind": (folder / "song.m4a", "convert"),
        "nan": (folder / "nan.wav", "not numbers"),
        "surround": (folder / "surround.wav", "6 channels"),
        "directory": (folder / "directory.wav", "not a file"),
    }


def test_bad_files_are_named_and_explained(tmp_path: Path) -> None:
    for what, (path, word) in bad_files(tmp_path).items():
        with pytest.raises(AudioError) as caught:
            read_audio(path)
        assert str(path) in str(caught.value), what
        assert word in str(caught.value), what


def test_too_long_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", samplerate=8000, channels=1, format="FLAC") as file:
        for _ in range(122):
            file.write(np.zeros(8000 * 60, dtype=np.int16))
    with pytest.raises(AudioError, match="122 minutes"):
        read_audio(path)


@pytest.mark.parametrize("damage", ["cut", "hole"])
@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_part_of_a_song_is_not_taken_for_the_whole(
    suffix: str, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / f"whole{suffix}"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, 44100 * 8).astype(np.float32), 44100)
    whole = path.read_bytes()
    half = len(whole) // 2
    if damage == "cut":
        path.write_bytes(whole[:half])
    elif suffix == ".flac":  # a hole in a WAV file is just other samples
        path.write_bytes(whole[:half] + b"\0" * 50000 + whole[half + 50000 :])
    else:
        return
    with pytest.raises(AudioError, match="damaged"):
        read_audio(path)


def test_sixteen_bit_round_trip_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    source = (rng.integers(-32768, 32768, (20000 * 4, 2)) / 32768).astype(np.float32)
    for name in ("x.wav", "x.flac"):
        write_audio(tmp_path / name, source, 22050)
        np.testing.assert_array_equal(read_audio(tmp_path / name).samples, source)
    assert not list(tmp_path.glob(".x*"))


def test_writing_refuses_what_would_clip(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="beyond full scale"):
        write_audio(tmp_path / "x.wav", tone(1, 8000, 1) * 4, 8000)
    with pytest.raises(AudioError, match="beyond full scale"):
        write_audio(tmp_path / "x.wav", np.full((10, 1), np.nan, dtype=np.float32), 8000)
    with pytest.raises(AudioError, match=r"\.wav and \.flac"):
        write_audio(tmp_path / "x.mp3", tone(1, 8000, 1), 8000)
    assert not list(tmp_path.iterdir())


def test_opposite_phase_does_not_vanish() -> None:
    left = tone(3, 44100, 1)
    audio = Audio(np.concatenate([left, -left], axis=1), 44100, Path("x.wav"))
    assert float(np.abs(to_analysis(audio)).max()) > 0.3
