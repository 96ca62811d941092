"""Judges like what they say that they like; their votes have the stated noise. All simulated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_core import simulate_votes
from rlhf_core.audio.feature_table import BEAT_FEATURES, FEATURE_SLICES, STEMS
from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import ConfigError
from rlhf_core.judges import JUDGES, Manner, cast_vote, judge_named
from rlhf_core.judging import Annotator
from rlhf_core.reward.synthetic import draw_edits
from rlhf_core.types import AudioState, BeatGrid, Passage


def edits(*rows: dict[int, Action]) -> torch.Tensor:
    actions = torch.zeros(len(rows), 64, dtype=torch.long)
    for row, places in enumerate(rows):
        for beat, action in places.items():
            actions[row, beat] = action
    return actions


def scores(name: str, song: AudioState, actions: torch.Tensor) -> list[float]:
    batch = PassageBatch.from_passages([(song, Passage(0, 64))] * len(actions))
    result: list[float] = JUDGES[name].score(batch, actions).tolist()
    return result


def cut(start: int, end: int) -> dict[int, Action]:
    return dict.fromkeys(range(start, end), Action.CUT)


def test_tight_and_long_disagree_about_length(songs: list[AudioState]) -> None:
    actions = edits({}, cut(32, 60))
    plain, short = scores("tight", songs[0], actions)
    assert short > plain
    plain, short = scores("long", songs[0], actions)
    assert plain > short


def test_bar_true_counts_the_bar(songs: list[AudioState]) -> None:
    whole, broken = scores("bar_true", songs[0], edits(cut(16, 24), cut(16, 23)))
    assert whole > broken


def test_hates_repetition_hears_a_loop(songs: list[AudioState]) -> None:
    looped = dict.fromkeys(range(0, 64, 2), Action.LOOP)
    plain, again = scores("hates_repetition", songs[0], edits({}, looped))
    assert plain > again


def test_clean_joins_prefers_none_to_many(songs: list[AudioState]) -> None:
    many = dict.fromkeys(range(1, 64, 4), Action.CUT)
    plain, rough = scores("clean_joins", songs[0], edits({}, many))
    assert plain > rough


def test_energy_build_wants_the_quiet_half_first(songs: list[AudioState]) -> None:
    early = dict.fromkeys(range(32), Action.GAIN_DOWN)
    late = dict.fromkeys(range(32, 64), Action.GAIN_DOWN)
    rising, falling = scores("energy_build", songs[0], edits(early, late))
    assert rising > falling


def test_all_judges_score_any_edit_whatever_the_padding(songs: list[AudioState]) -> None:
    assert len(JUDGES) >= 8
    short, long = (songs[0], Passage(0, 32)), (songs[1], Passage(0, 80))
    actions = torch.randint(0, 10, (2, 80), generator=torch.Generator().manual_seed(0))
    for judge in JUDGES.values():
        together = judge.score(PassageBatch.from_passages([short, long]), actions)
        alone = judge.score(PassageBatch.from_passages([short]), actions[:1, :32])
        assert torch.isfinite(together).all()
        torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=1e-4)


def test_votes_follow_the_stated_noise() -> None:
    rng = np.random.default_rng(0)
    assert cast_vote(1.0, 0.0, rng, 0.0) == ("a", 2)
    assert cast_vote(1.0, 1.0, rng, 0.0) == ("tie", None)
    votes = [cast_vote(1.0, 0.0, rng, 1.0) for _ in range(4000)]
    choices = [choice for choice, _ in votes]
    decisive = choices.count("a") + choices.count("b")
    assert choices.count("a") / decisive == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.03)
    assert 0 < choices.count("tie") / 4000 < 0.2
    assert {strength for _, strength in votes} == {None, 1, 2, 3}


def test_unknown_judges_are_named() -> None:
    with pytest.raises(ConfigError, match="tight"):
        judge_named("nobody")


def test_keeps_chorus_misses_what_comes_back(songs: list[AudioState]) -> None:
    features = np.random.default_rng(0).normal(size=songs[0].features[:64].shape)
    features[32:48] = features[:16]  # a stretch that comes back
    grid = songs[0].grid
    part = BeatGrid(grid.times[:65], grid.bar_phase[:64], grid.tempo_bpm, source="known")
    song = AudioState("synthetic", part, features.astype(np.float32))
    without_verse, without_chorus = scores("keeps_chorus", song, edits(cut(16, 32), cut(32, 48)))
    assert without_verse > without_chorus


def test_no_flaws_wants_the_odd_bar_gone(songs: list[AudioState]) -> None:
    bars = np.random.default_rng(1).normal(size=(4, songs[0].features.shape[1]))
    features = np.tile(bars, (16, 1))
    features[24:28] += 6 * np.random.default_rng(2).normal(size=features[24:28].shape)
    grid = songs[0].grid
    part = BeatGrid(grid.times[:65], grid.bar_phase[:64], grid.tempo_bpm, source="known")
    song = AudioState("synthetic", part, features.astype(np.float32))
    mended, other = scores("no_flaws", song, edits(cut(24, 28), cut(40, 44)))
    assert mended > other


def test_a_manner_skips_lapses_and_leans_to_a_side() -> None:
    rng = np.random.default_rng(0)
    manner = Manner(noise=1.0, skip=0.1, side_bias=1.0, tie_margin=0.0, lapse=0.0)
    n = 4000
    given = [manner.answer(0.0, 0.0, rng, a_left=True)[0] for _ in range(n)]
    assert given.count("skip") / n == pytest.approx(0.1, abs=0.02)
    decisive = given.count("a") + given.count("b")
    assert given.count("a") / decisive == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.03)
    careless = Manner(noise=1e-3, lapse=0.2, tie_margin=0.0)
    right = [careless.answer(1.0, 0.0, rng)[0] == "a" for _ in range(n)]
    assert np.mean(right) == pytest.approx(0.9, abs=0.02)
    harsh = Manner(both_bad=0.25, lapse=0.0)
    floor = harsh.floor(np.arange(8.0))
    assert floor == 2.0 and Manner().floor(np.arange(8.0)) is None
    assert harsh.answer(1.9, -2.0, rng, floor=floor) == ("both_bad", None)
    assert harsh.answer(9.0, 2.1, rng, floor=floor)[0] != "both_bad"
    with pytest.raises(ConfigError, match="shares"):
        Manner(skip=1.5)


def made_up(features: np.ndarray) -> AudioState:
    """A synthetic song of 64 beats of half a second, bars of four."""
    grid = BeatGrid(np.arange(65) * 0.5, np.arange(64) % 4, 120.0, source="known")
    return AudioState("synthetic", grid, features.astype(np.float32))


@pytest.mark.parametrize(("judge", "stem"), [("vocals_first", "vocals"), ("steady_drums", "drums")])
def test_who_listens_for_a_stem_keeps_where_it_is(judge: str, stem: str) -> None:
    features = np.random.default_rng(0).normal(size=(64, BEAT_FEATURES))
    column = FEATURE_SLICES["stem_energy"].start + STEMS.index(stem)
    features[:, column] = np.where(np.arange(64) < 32, 1.0, 5.0)
    with_it, without = scores(judge, made_up(features), edits(cut(0, 32), cut(32, 64)))
    assert with_it > without + 1


def test_steady_drums_minds_a_broken_bar_and_vocals_first_does_not_count() -> None:
    song = made_up(np.zeros((64, BEAT_FEATURES)))
    whole, broken = scores("steady_drums", song, edits(cut(16, 24), cut(16, 23)))
    assert whole > broken
    whole, broken = scores("vocals_first", song, edits(cut(16, 24), cut(16, 23)))
    assert whole == pytest.approx(broken, abs=0.01)


def test_dynamic_hears_how_far_loud_and_soft_lie_apart() -> None:
    song = made_up(np.zeros((64, BEAT_FEATURES)))
    half = dict.fromkeys(range(32), Action.GAIN_DOWN)
    flat, quiet, apart = scores(
        "dynamic", song, edits({}, dict.fromkeys(range(64), Action.GAIN_DOWN), half)
    )
    assert flat == pytest.approx(quiet, abs=1e-3) and apart > flat + 1


def test_a_mixture_minds_length_bars_and_repetition() -> None:
    song = made_up(np.random.default_rng(3).normal(size=(64, BEAT_FEATURES)))
    shorter, all_of_it, very_short, broken, again = scores(
        "mixture",
        song,
        edits(cut(24, 40), {}, cut(8, 60), cut(24, 39), {16: Action.LOOP, **cut(24, 40)}),
    )
    assert shorter > all_of_it > very_short and shorter > broken and shorter > again


def test_tastes_are_clearly_different(songs: list[AudioState]) -> None:
    """No two judges rank the edits of a passage alike: correlation within passages."""
    rng, passage, found = np.random.default_rng(0), Passage(0, 64), []
    for song in songs[:3]:
        features = song.features[:64].copy()
        features[24:28] += 1.5 * rng.normal(size=features[24:28].shape)  # a bar with a flaw
        flawed = made_up(features)
        drawn = [edit for _ in range(2) for edit in draw_edits(flawed, passage, rng)]
        batch = PassageBatch.from_passages([(flawed, passage)] * len(drawn))
        actions = torch.from_numpy(np.stack(drawn))
        scores = np.array([judge.score(batch, actions).tolist() for judge in JUDGES.values()])
        found.append(scores - scores.mean(1, keepdims=True))
    alike = np.corrcoef(np.concatenate(found, 1))[np.triu_indices(len(JUDGES), 1)]
    assert alike.max() < 0.9 and alike.min() < 0


def test_simulated_votes_say_so_and_come_again_with_their_seed(songs: list[AudioState]) -> None:
    library: Any = [SimpleNamespace(state=song) for song in songs[:2]]
    sides = [{"actions": [0] * 32}, {"actions": [1] * 8 + [0] * 24}]
    rows = [
        {
            "pair_id": f"pair{i}", "song_id": songs[i % 2].song_id,
            "passage": {"start_beat": 0, "end_beat": 32},
            "edit_a": sides[i % 3 == 0], "edit_b": sides[i % 3 != 0],
        }
        for i in range(24)
    ]  # fmt: skip
    first, again, other = (
        simulate_votes.votes(rows, library, Annotator("long"), seed, Manner(skip=0.2))
        for seed in (0, 0, 1)
    )
    assert first == again
    assert [vote["choice"] for vote in first] != [vote["choice"] for vote in other]
    assert not {vote["vote_id"] for vote in first} & {vote["vote_id"] for vote in other}
    for vote in (*first, *other):
        assert vote["simulated"] is True and vote["annotator"] == "judge:long"
