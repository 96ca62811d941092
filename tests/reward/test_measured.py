"""What a report's baselines may see of an edit: lengths by the EDL, no audio, no places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_core.editing.actions import Action
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.editing.edl import build_edl
from rlhf_core.editing.heuristic import PRESETS, heuristic_edit
from rlhf_core.reward.dataset import EditKey
from rlhf_core.reward.measured import Measured, embed_in_chunks
from rlhf_core.reward.model import LearnedRewardModel, RewardModelConfig
from rlhf_core.types import AudioState, Passage

PASSAGE = Passage(16, 64)
PLAIN = (int(Action.KEEP),) * PASSAGE.n_beats


@pytest.fixture(scope="module")
def twins(songs: list[AudioState]) -> list[AudioState]:
    """Two songs with the same beats and other sounds."""
    return [songs[0], replace(songs[1], grid=songs[0].grid)]


@pytest.fixture(scope="module")
def edits(twins: list[AudioState]) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    made = [heuristic_edit(twins[0], PASSAGE, name, rng) for name in sorted(PRESETS)]
    return [PLAIN, *(tuple(edit.tolist()) for edit in made)]


@pytest.fixture(scope="module")
def measured(twins: list[AudioState], edits: list[tuple[int, ...]]) -> Measured:
    torch.manual_seed(0)
    model = LearnedRewardModel(RewardModelConfig(d_model=32, n_layers=1, ff=32, embedding=24))
    features = torch.cat([torch.from_numpy(song.features) for song in twins])[None]
    model.normaliser.fit(features, torch.ones(features.shape[:2], dtype=torch.bool))
    keys = [EditKey(song.song_id, PASSAGE, edit) for song in twins for edit in edits]
    return embed_in_chunks(model.eval(), keys, {song.song_id: song for song in twins}, 0)


def test_length_and_keep_ratio_are_those_of_the_edit_decision_list(
    twins: list[AudioState], edits: list[tuple[int, ...]], measured: Measured
) -> None:
    place = ATTRIBUTE_NAMES.index("keep_ratio")
    for edit in edits:
        key, actions = EditKey(twins[0].song_id, PASSAGE, edit), np.array(edit)
        edl = build_edl(actions, twins[0].grid, PASSAGE)
        assert measured.length[key] == pytest.approx([len(edl.beats) / PASSAGE.n_beats])
        kept = float(np.mean(actions != Action.CUT))
        assert measured.keep[key] == pytest.approx([kept])
        assert measured.attributes[key][place] == pytest.approx(kept, abs=1e-6)
    assert len({float(value[0]) for value in measured.length.values()}) > 2


def test_without_audio_songs_are_alike_and_edits_are_not(
    twins: list[AudioState], edits: list[tuple[int, ...]], measured: Measured
) -> None:
    one, other = ([EditKey(song.song_id, PASSAGE, edit) for edit in edits] for song in twins)
    for here, there in zip(one, other, strict=True):
        np.testing.assert_allclose(measured.silent[here], measured.silent[there], atol=1e-5)
        assert np.abs(measured.phi[here] - measured.phi[there]).max() > 1e-2
    assert np.abs(measured.silent[one[0]] - measured.silent[one[1]]).max() > 1e-3


def test_shuffling_moves_what_was_done_and_nothing_else(
    twins: list[AudioState], edits: list[tuple[int, ...]], measured: Measured
) -> None:
    """A passage of nothing but KEEP is the same in any order."""
    plain, *changed = (EditKey(twins[0].song_id, PASSAGE, edit) for edit in edits)
    np.testing.assert_allclose(measured.shuffled[plain], measured.phi[plain], atol=1e-5)
    for key in changed:
        assert np.abs(measured.shuffled[key] - measured.phi[key]).max() > 1e-3
