"""The library and its cache: hits, damage, other versions, corrections; the command around it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlhf_core import precache_stems
from rlhf_core.audio import library
from rlhf_core.audio.corrections import add_correction, corrections_path, read_corrections
from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import Audio
from rlhf_core.audio.library import find_songs, load_library, load_song, peaks, song_id_of
from rlhf_core.errors import AudioError, DataError
from rlhf_core.runs import read_lines


@pytest.fixture(scope="session")
def song_file(demo: Callable[[int], DemoSong], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of a demo song."""
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    soundfile.write(path, demo(3).samples[: 20 * 44100], 44100)
    return path


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really analysed."""
    seen: list[str] = []
    original = library.analyse

    def counted(audio: Audio, *args: object) -> object:
        seen.append(audio.path.name)
        return original(audio, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(library, "analyse", counted)
    return seen


def test_second_time_comes_from_the_cache(
    song_file: Path, tmp_path: Path, analyses: list[str]
) -> None:
    first = load_song(song_file, tmp_path)
    renamed = shutil.copy(song_file, tmp_path / "other name.flac")
    second = load_song(renamed, tmp_path, split="test")
    assert analyses == ["song.flac"]
    assert first.song_id == second.song_id == song_id_of(song_file)
    assert second.path == renamed and second.split == "test"
    np.testing.assert_array_equal(first.state.features, second.state.features)
    np.testing.assert_array_equal(first.state.grid.times, second.state.grid.times)
    np.testing.assert_array_equal(first.waveform, second.waveform)
    for name in ("sample_rate", "duration_s", "channels", "loudness_lufs"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("tempo_bpm", "beats_per_bar", "confidence", "source"):
        assert getattr(first.state.grid, name) == getattr(second.state.grid, name)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "wrong shape"])
def test_damaged_cache_is_made_again_with_a_warning(
    damage: str,
    song_file: Path,
    tmp_path: Path,
    analyses: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = load_song(song_file, tmp_path)
    cache = tmp_path / f"{first.song_id}.npz"
    whole = cache.read_bytes()
    if damage == "wrong shape":
        with np.load(cache) as data:
            parts = dict(data)
        np.savez(cache, **parts | {"features": parts["features"][:-1]})
    else:
        cache.write_bytes({"cut": whole[:-500], "garbage": b"x" * 900, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        again = load_song(song_file, tmp_path)
    assert len(analyses) == 2 and str(cache) in caplog.text
    np.testing.assert_array_equal(first.state.features, again.state.features)
    load_song(song_file, tmp_path)
    assert len(analyses) == 2


def test_other_version_is_made_again(
    song_file: Path, tmp_path: Path, analyses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_song(song_file, tmp_path)
    monkeypatch.setattr(library, "FEATURE_VERSION", "beat-features-0")
    load_song(song_file, tmp_path)
    assert len(analyses) == 2


def test_corrections_are_noticed(song_file: Path, tmp_path: Path, analyses: list[str]) -> None:
    plain = load_song(song_file, tmp_path)
    add_correction(tmp_path, plain.song_id, "double")
    double = load_song(song_file, tmp_path)
    assert double.state.grid.n_beats == 2 * plain.state.grid.n_beats
    assert double.state.grid.source == "corrected"
    add_correction(tmp_path, plain.song_id, "offset:1")
    add_correction(tmp_path, plain.song_id, "bars:3")
    moved = load_song(song_file, tmp_path)
    assert moved.state.grid.beats_per_bar == 3
    assert np.argmax(moved.state.grid.bar_phase == 0) == (
        1 + np.argmax(double.state.grid.bar_phase == 0)
    )
    load_song(song_file, tmp_path)
    assert len(analyses) == 3
    assert add_correction(tmp_path, plain.song_id, "reset") == ()
    back = load_song(song_file, tmp_path)
    np.testing.assert_array_equal(back.state.grid.times, plain.state.grid.times)


def test_bad_corrections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="double, halve"):
        add_correction(tmp_path, "abc", "times_two")
    corrections_path(tmp_path, "abc").write_text("{not json")
    with pytest.raises(AudioError, match=r"abc\.beats\.json"):
        read_corrections(tmp_path, "abc")


def test_library_skips_bad_files_and_says_so(
    song_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = tmp_path / "train"
    train.mkdir()
    shutil.copy(song_file, train / "b.flac")
    (train / "a.wav").write_text("no audio")
    (train / "notes.txt").write_text("not looked at")
    calls: list[tuple[int, int, str]] = []
    with caplog.at_level(logging.WARNING):
        songs = load_library(tmp_path, progress=lambda *call: calls.append(call))
    assert [song.title for song in songs] == ["b"] and songs[0].split == "train"
    assert "a.wav" in caplog.text
    assert calls == [(1, 2, "a"), (2, 2, "b")]
    assert (tmp_path / ".cache" / f"{songs[0].song_id}.npz").exists()
    with pytest.raises(DataError, match="test"):
        load_library(tmp_path, split="test")
    (train / "b.flac").unlink()
    with pytest.raises(DataError, match=r"no usable song .*a\.wav"):
        load_library(tmp_path)


def test_find_songs(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp3", ".hidden.flac", "c.txt", "d.ogg"):
        (tmp_path / name).touch()
    (tmp_path / "e.wav").mkdir()
    assert [path.name for path in find_songs(tmp_path)] == ["a.mp3", "b.WAV", "d.ogg"]
    with pytest.raises(DataError, match="no such folder"):
        find_songs(tmp_path / "missing")


def test_silence_is_a_song_on_a_fixed_grid(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros((5 * 8000, 1)), 8000)
    for _ in range(2):  # analysed, then cached
        song = load_song(path, tmp_path / "cache")
        assert song.state.grid.source == "fixed" and song.loudness_lufs is None


def test_peaks_by_hand() -> None:
    samples = np.zeros((1000, 2), dtype=np.float32)
    samples[250, 1] = -0.5
    points = peaks(samples, 10)
    np.testing.assert_allclose(points, [0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0])
    assert peaks(samples[:3], 10).shape == (10,)


def test_command_reports_each_song_and_resumes(
    song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "train").mkdir(parents=True)
    shutil.copy(song_file, data / "train" / "good.flac")
    (data / "train" / "bad.wav").write_text("no audio")
    argv = [str(data), "--output_dir", str(run), "--workers", "2"]
    assert precache_stems.main(argv) == 0
    rows = {row["title"]: row for row in read_lines(run / "songs.jsonl")}
    assert rows["good"]["error"] is None and "bad.wav" in rows["bad"]["error"]
    assert set(rows["good"]) == set(rows["bad"])
    good = rows["good"]
    assert len(good["waveform"]) == 400 and max(good["waveform"]) <= 1
    assert len(good["beat_times"]) == good["n_beats"] + 1 == len(good["bar_phase"]) + 1
    assert json.loads((run / "results.json").read_text())["songs"] == 1
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    cache = data / ".cache" / f"{good['song_id']}.npz"
    stamp = cache.stat().st_mtime_ns
    assert precache_stems.main([str(data), "--workers", "1"]) == 0
    assert cache.stat().st_mtime_ns == stamp
    assert "bad.wav" in capsys.readouterr().err


def test_command_fails_when_nothing_is_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert precache_stems.main([str(tmp_path / "missing.wav")]) == 2
    assert precache_stems.main([str(tmp_path)]) == 2
    (tmp_path / "bad.wav").write_text("no audio")
    run = tmp_path / "run"
    assert precache_stems.main([str(tmp_path / "bad.wav"), "--output_dir", str(run)]) == 2
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert "error: " in capsys.readouterr().err


def test_real_songs_load(real_songs: list[Path], tmp_path: Path) -> None:
    for path in real_songs:
        song = load_song(path, tmp_path)
        assert song.state.grid.n_beats >= 8 and song.loudness_lufs is not None
