"""Joins: no clicks, attacks whole, the level kept, the beat grid kept over a whole edit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rlhf_core.audio.clicks import click_levels
from rlhf_core.audio.demo_songs import DemoSong
from rlhf_core.audio.io import Audio, read_audio
from rlhf_core.audio.pieces import plan_pieces
from rlhf_core.audio.render import Render, render_edl
from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import EDL, concatenate_edls
from rlhf_core.errors import EditError
from rlhf_core.types import BeatGrid
from tests.audio.edits import edit, random_edl

RATE = 22050


def usual_limit(audio: Audio) -> float:
    """The untouched recording's 99th percentile."""
    places = np.random.default_rng(0).integers(
        audio.sample_rate, len(audio.samples) - audio.sample_rate, 500
    )
    levels = click_levels(audio.samples.mean(axis=1), places, audio.sample_rate)
    return float(np.percentile(levels, 99))


def clicks(audio: Audio, edl: EDL, limit: float, fade_s: float = 0.05) -> tuple[int, int]:
    """Joins whose click level is above the limit, and all joins."""
    rate = audio.sample_rate
    render = Render(audio.samples, plan_pieces(edl, rate, audio.samples), rate, fade_s)
    mono, places = render.read(0, render.frames).mean(axis=1), np.array(render.join_places)
    return int(np.sum(click_levels(mono, places, rate) > limit)), len(places)


def total(found: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(over for over, _ in found), sum(joins for _, joins in found)


def test_joins_of_demo_songs_do_not_click(
    demo: Callable[[int], DemoSong], demo_audio: Callable[[int], Audio]
) -> None:
    soft, hard = [], []
    for seed in (0, 3, 7):
        audio, edl = demo_audio(seed), random_edl(demo(seed).grid, seed)
        limit = usual_limit(audio)
        soft.append(clicks(audio, edl, limit))
        hard.append(clicks(audio, edl, limit, 0.0))
    (over, joins), (hard_over, _) = total(soft), total(hard)
    assert joins > 100
    assert over <= 0.03 * joins
    assert hard_over > 0.2 * joins  # the measure sees what a cross-fade removes


def test_joins_of_real_songs_do_not_click(real_songs: list[Path]) -> None:
    from rlhf_core.audio.library import analyse

    found = []
    for path in real_songs:
        audio = read_audio(path)
        grid = analyse(audio, "x").grid
        found.append(clicks(audio, random_edl(grid, 1), usual_limit(audio)))
    over, joins = total(found)
    assert joins > 200
    assert over <= 0.03 * joins


def attacks(
    beats: int, seed: int, spread_s: float, rate: int = RATE
) -> tuple[Audio, BeatGrid, np.ndarray, np.ndarray]:
    """A drifting grid with one sharp, decaying burst near each beat, each of its own noise.

    Returns audio, grid, each burst's distance from its beat in samples, the bursts.
    """
    rng = np.random.default_rng(seed)
    times = 0.3 + np.concatenate([[0], np.cumsum(0.5 + 0.02 * np.sin(np.arange(beats) / 7))])
    away = np.round(rng.uniform(-spread_s, spread_s, beats) * rate).astype(int)
    decay = np.exp(-np.arange(rate // 20) / (0.01 * rate))
    bursts = 0.5 * rng.standard_normal((beats, len(decay))) * decay
    samples = np.zeros((round((times[-1] + 0.5) * rate), 1), dtype=np.float32)
    for beat in range(beats):
        at = round(times[beat] * rate) + away[beat]
        samples[at : at + len(decay), 0] += bursts[beat]
    grid = BeatGrid(times, np.arange(beats) % 4, 120.0, source="known")
    return Audio(samples, rate, Path("bursts.wav")), grid, away, bursts


@pytest.mark.parametrize("seed", range(3))
def test_every_attack_is_where_the_edl_says_over_a_whole_edit(seed: int) -> None:
    audio, grid, away, bursts = attacks(300, seed, 0.015)
    edl = random_edl(grid, seed)
    out, times, found = render_edl(audio, edl)[:, 0], edl.output_times, 0
    reach = RATE // 100
    for index, beat in enumerate(edl.beats):
        at = round(times[index] * RATE) + away[beat.source_beat]
        if beat.reverse or min(beat.gain_start, beat.gain_end) < 0.2 or index == 0:
            continue
        heard = out[at - reach : at + bursts.shape[1] + reach]
        match = np.correlate(heard, bursts[beat.source_beat][: RATE // 50])
        assert abs(int(np.argmax(np.abs(match))) - reach) <= 0.001 * RATE, (index, beat)
        found += 1
    assert found > 200
    assert abs(len(out) / RATE - edl.duration_s) <= 0.5 / RATE + 1e-9


def test_an_attack_that_comes_early_or_late_is_not_cut_in_two() -> None:
    audio, grid, away, bursts = attacks(64, 5, 0.018)
    edl = edit(grid, dict.fromkeys(range(8, 60, 4), Action.CUT), 0, 64)
    out, times, kept, stray = render_edl(audio, edl)[:, 0], edl.output_times, [], []
    for index in range(1, len(edl.beats)):
        before, beat = edl.beats[index - 1].source_beat, edl.beats[index].source_beat
        if beat == before + 1:
            continue
        at = round(times[index] * RATE)
        burst, gone = bursts[beat], bursts[before + 1]
        heard = out[at + away[beat] : at + away[beat] + len(burst)]
        kept.append(float(heard @ burst / (burst @ burst)))
        heard = out[at + away[before + 1] : at + away[before + 1] + len(gone)]
        stray.append(abs(float(heard @ gone / (gone @ gone))))
    assert len(kept) == 13
    assert min(kept) > 0.7  # the attack that belongs here
    assert np.median(stray) < 0.45  # the one that was cut away


def test_a_join_keeps_the_level_of_what_it_joins() -> None:
    rng = np.random.default_rng(2)
    samples = (0.1 * rng.standard_normal((30 * RATE, 2))).astype(np.float32)
    grid = BeatGrid(np.arange(57) * 0.5, np.arange(56) % 4, 120.0)
    audio = Audio(samples, RATE, Path("noise.wav"))
    edl = edit(grid, dict.fromkeys(range(4, 50, 2), Action.CUT), 0, 56)
    out = render_edl(audio, edl)
    places = np.array(
        [piece.start for piece in plan_pieces(edl, RATE, samples)[1:]], dtype=np.int64
    )
    at_joins = np.sqrt(np.mean([np.mean(out[p - 300 : p + 300] ** 2) for p in places]))
    assert 20 * np.log10(at_joins / 0.1) == pytest.approx(0.0, abs=0.25)


def test_passages_edited_one_by_one_render_as_one_song(
    demo: Callable[[int], DemoSong], demo_audio: Callable[[int], Audio]
) -> None:
    audio, grid = demo_audio(0), demo(0).grid
    borders = [0, 32, 64, 96]
    kept = [edit(grid, {}, a, b) for a, b in pairwise(borders)]
    np.testing.assert_array_equal(render_edl(audio, kept), render_edl(audio, edit(grid, {}, 0, 96)))
    cut = [edit(grid, {0: Action.CUT, 31: Action.CUT}, a, b) for a, b in pairwise(borders)]
    whole = concatenate_edls(cut)
    assert whole.duration_s == pytest.approx(sum(edl.duration_s for edl in cut), abs=1e-9)
    assert [len(edl.segments) for edl in (*kept, concatenate_edls(kept))] == [1, 1, 1, 1]
    assert len(whole.segments) == 3
    out = render_edl(audio, cut)
    limit = usual_limit(audio)
    places = np.array(
        [piece.start for piece in plan_pieces(whole, 44100, audio.samples)[1:]], dtype=np.int64
    )
    assert (click_levels(out.mean(axis=1), places, 44100) <= limit).all()


def test_passages_that_do_not_meet_are_refused(demo: Callable[[int], DemoSong]) -> None:
    grid = demo(0).grid
    first, second = edit(grid, {}, 0, 32), edit(grid, {}, 40, 72)
    with pytest.raises(EditError, match="song order"):
        concatenate_edls([first, second])
    with pytest.raises(EditError, match="at least one"):
        concatenate_edls([])
    moved = BeatGrid(grid.times + 0.1, grid.bar_phase, grid.tempo_bpm)
    with pytest.raises(EditError, match="same beat grid"):
        concatenate_edls([first, edit(moved, {}, 32, 64)])
