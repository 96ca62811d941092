"""The library and its cache: hits, damage, other versions, corrections; the command around it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlhf_core import precache_stems
from rlhf_core.audio import library
from rlhf_core.audio.cache import cache_status
from rlhf_core.audio.corrections import (
    add_correction,
    add_taps,
    corrections_path,
    read_corrections,
)
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
    original = library.read_audio

    def counted(path: Path) -> Audio:
        seen.append(path.name)
        return original(path)

    monkeypatch.setattr(library, "read_audio", counted)
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


def test_taps_are_stored_and_change_the_features(
    song_file: Path, tmp_path: Path, analyses: list[str]
) -> None:
    plain = load_song(song_file, tmp_path).state
    add_correction(tmp_path, plain.song_id, "offset:1")
    slow = plain.grid.times[3:20:2]
    operations = add_taps(tmp_path, plain.song_id, [float(time) for time in slow])
    assert len(operations) == 1 and read_corrections(tmp_path, plain.song_id) == operations
    tapped = load_song(song_file, tmp_path).state
    assert tapped.grid.source == "corrected"
    assert tapped.grid.tempo_bpm == pytest.approx(plain.grid.tempo_bpm / 2, rel=0.01)
    assert tapped.features.shape != plain.features.shape
    load_song(song_file, tmp_path)
    assert len(analyses) == 2
    with pytest.raises(AudioError, match="tap"):
        add_taps(tmp_path, plain.song_id, [1.0, 2.0])
    with pytest.raises(AudioError, match="tap"):
        add_correction(tmp_path, plain.song_id, "tap:1,2,x,4")


@pytest.mark.parametrize("operation", ["double", "halve", "three_halves", "offset:1", "bars:3"])
def test_every_correction_changes_the_features(
    operation: str, song_file: Path, tmp_path: Path
) -> None:
    plain = load_song(song_file, tmp_path).state
    add_correction(tmp_path, plain.song_id, operation)
    corrected = load_song(song_file, tmp_path).state
    assert corrected.grid.source == "corrected"
    assert not np.array_equal(corrected.features, plain.features)
    ratio = {"double": 2.0, "halve": 0.5, "three_halves": 1.5}.get(operation, 1.0)
    assert corrected.grid.n_beats == pytest.approx(ratio * plain.grid.n_beats, abs=1.5)


def test_another_beat_tracker_makes_the_analysis_again(
    song_file: Path, tmp_path: Path, analyses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_song(song_file, tmp_path)
    monkeypatch.setattr(library, "BEATS_VERSION", "beats-0")
    load_song(song_file, tmp_path)
    assert len(analyses) == 2


WORKER = """
import sys, time
from pathlib import Path
from rlhf_core.audio import library
original = library.read_audio
def noted(path):
    with open(sys.argv[2], "a") as file:
        file.write(path.name + "\\n")
    time.sleep(0.2)
    return original(path)
library.read_audio = noted
print("ready", flush=True)
sys.stdin.readline()
for song in library.load_library(Path(sys.argv[1])):
    assert song.state.features.shape[1] == 121
"""


def test_two_processes_share_the_work(song_file: Path, tmp_path: Path) -> None:
    train, notes = tmp_path / "train", tmp_path / "notes"
    train.mkdir()
    samples, rate = soundfile.read(song_file)
    for i in range(4):
        soundfile.write(train / f"{i}.wav", samples[: (8 + i) * rate], rate)
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(notes)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(20) for process in started] == [0, 0]
    for process in started:
        process.communicate()
    assert sorted(notes.read_text().split()) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    left = sorted(path.suffix for path in (tmp_path / ".cache").iterdir())
    assert left == [".npz"] * 4  # no locks and no halves


def test_each_machine_begins_with_its_share_and_goes_through_all(tmp_path: Path) -> None:
    songs = [precache_stems.Task(tmp_path / f"{i}.wav", tmp_path, "fast", None) for i in range(7)]
    orders = [precache_stems.in_turn(songs, (number, 3)) for number in (1, 2, 3)]
    assert [order[0].path.stem for order in orders] == ["0", "2", "4"]
    assert all(sorted(order, key=lambda task: task.path) == songs for order in orders)
    firsts = [task for order, size in zip(orders, (2, 2, 3), strict=True) for task in order[:size]]
    assert firsts == songs, "the shares are apart and leave nothing out"
    for wrong in ("0/2", "3/2", "a/b", "2"):
        with pytest.raises(SystemExit):
            precache_stems.parse([str(tmp_path), "--machine", wrong])


def test_a_lock_ends_with_its_process(song_file: Path, tmp_path: Path) -> None:
    song_id = song_id_of(song_file)
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from rlhf_core.audio.cache import song_lock\n"
        "with song_lock(Path(sys.argv[1]), sys.argv[2]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), song_id], check=False)
    assert done.returncode == -9 and (tmp_path / f".{song_id}.lock").exists()
    assert load_song(song_file, tmp_path).song_id == song_id
    assert not (tmp_path / f".{song_id}.lock").exists()


def test_the_cache_is_shown_and_cleared(
    song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(song_file, tmp_path / "song.flac")
    cache = tmp_path / ".cache"
    assert precache_stems.main([str(tmp_path), "--status"]) == 0
    assert "0 analysed songs" in capsys.readouterr().out and not cache.exists()
    song = load_song(tmp_path / "song.flac", cache)
    add_correction(cache, song.song_id, "offset:1")
    (cache / f".{song.song_id}.0123abcd.npz").write_bytes(b"x" * 1000)
    (cache / "notes.txt").write_text("somebody's")
    status = cache_status(cache)
    analysed = cache / f"{song.song_id}.npz"
    assert (status.songs, status.bytes) == (1, analysed.stat().st_size + 1000)
    assert (status.corrections, status.leftovers) == (1, 1)
    assert precache_stems.main([str(tmp_path), "--status"]) == 0
    shown = capsys.readouterr().out
    assert f"{cache}: 1 analysed songs, 0." in shown and "MB" in shown
    assert precache_stems.main([str(tmp_path), "--clear"]) == 0
    assert sorted(path.name for path in cache.iterdir()) == [
        f"{song.song_id}.beats.json",
        "notes.txt",
    ]
    assert load_song(tmp_path / "song.flac", cache).state.grid.source == "corrected"
    with pytest.raises(SystemExit):
        precache_stems.main([str(tmp_path), "--status", "--clear"])
