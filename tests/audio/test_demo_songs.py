"""The demo songs are what they say: same seed same song, flaws where the truth puts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlhf_core.audio.demo_songs import FLAW_KINDS, DemoSong, demo_song, main
from rlhf_core.audio.demo_synth import RATE
from rlhf_core.audio.io import read_audio

Demo = Callable[[int], DemoSong]


def test_same_seed_same_song_other_seed_other_song(demo: Demo) -> None:
    again = demo_song(3)
    np.testing.assert_array_equal(again.samples, demo(3).samples)
    assert again.truth() == demo(3).truth()
    later = demo_song(11)  # the same style, eight seeds on
    assert later.style == again.style
    assert later.truth()["beat_times"] != again.truth()["beat_times"]


def test_eight_different_songs(demo: Demo) -> None:
    songs = [demo(seed) for seed in range(8)]
    assert len({song.style for song in songs}) == 8
    assert {song.grid.beats_per_bar for song in songs} == {3, 4}
    assert {flaw.kind for song in songs for flaw in song.flaws} == set(FLAW_KINDS)
    for song in songs:
        assert 60 <= len(song.samples) / RATE <= 90
        assert song.samples.shape[1] == 2 and np.abs(song.samples).max() < 1.0
        assert len(song.flaws) >= 2
        assert song.sections[-1].end_beat == song.grid.n_beats
        left, right = song.samples.T
        assert 0.3 < np.corrcoef(left, right)[0, 1] < 0.999  # stereo, but one song


def test_drop_outs_are_silent_and_nothing_else_is(demo: Demo) -> None:
    seen = 0
    for seed in range(8):
        song = demo(seed)
        silent = np.zeros(song.grid.n_beats, dtype=bool)
        for flaw in song.flaws:
            if flaw.kind == "silence":
                silent[flaw.start_beat : flaw.end_beat] = True
                seen += 1
        edges = (song.grid.times * RATE).astype(int)
        for beat in range(song.grid.n_beats):
            part = song.samples[edges[beat] + 500 : edges[beat + 1] - 500]
            level = float(np.sqrt(np.mean(part**2)))
            assert (level < 1e-4) == silent[beat], (seed, beat, level)
    assert seen


def test_command_writes_songs_with_their_truth(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--count", "1", "--seed", "5"]) == 0
    (song,) = tmp_path.glob("*.flac")
    truth = json.loads((tmp_path / f"{song.stem}.truth.json").read_text())
    audio = read_audio(song)
    assert truth["synthetic"] is True
    assert truth["beat_times"][-1] < audio.duration_s
    assert len(truth["bar_phase"]) == len(truth["beat_times"]) - 1
    assert {len(v) for v in truth["stem_energy_db"].values()} == {len(truth["bar_phase"])}
    assert main([str(tmp_path), "--count", "0"]) == 2
