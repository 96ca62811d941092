"""Votes withheld from a policy's reward teach it nothing; too few votes are told."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlhf_core.errors import DataError
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.withholding import parts_of, split_votes
from rlhf_core.train_reward import made_from, parser, write_training_reward
from rlhf_core.types import AudioState
from tests.reward.judged import judged_rows, snapshot

OTHER = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}


def options(folder: Path, *more: str) -> Namespace:
    return parser().parse_args(
        ["--preferences", "v", "--data_dir", "d", "--output_dir", str(folder), *more]
    )


def test_the_training_s_reward_does_not_know_the_withheld_votes(
    songs: list[AudioState],
    checkpoint: RewardCheckpoint,
    bootstrap_path: Path,
    tmp_path: Path,
) -> None:
    """Turning every withheld vote round changes no bit of it; turning the others does."""
    rows = judged_rows(songs, "tight", 60, 0.5, 1)
    votes = read_snapshot(snapshot(tmp_path / "v.parquet", rows)).usable(include_simulated=True)
    learned, withheld = split_votes(votes)
    parts = {
        "as they are": set(),
        "withheld turned": {vote.vote_id for vote in withheld},
        "learned turned": {vote.vote_id for vote in learned},
    }
    means = {}
    for name, turned in parts.items():
        changed = [
            row | {"choice": OTHER[str(row["choice"])]} if row["vote_id"] in turned else row
            for row in rows
        ]
        data = read_snapshot(snapshot(tmp_path / f"{name}.parquet", changed))
        given = options(tmp_path / name)
        result = write_training_reward(
            given, data.usable(include_simulated=True), {s.song_id: s for s in songs}, checkpoint,
            partial(made_from, given, data, given=bootstrap_path),
        )  # fmt: skip
        made = load_reward(Path(result["checkpoint"]))
        assert result["votes"] == len(withheld)
        assert made.lineage["settings"]["votes"] == len(learned)
        means[name] = made.mean
    assert torch.equal(means["as they are"], means["withheld turned"])
    assert not torch.allclose(means["as they are"], means["learned turned"])


def test_too_few_votes_and_votes_on_one_song_are_told(
    songs: list[AudioState], checkpoint: RewardCheckpoint, tmp_path: Path
) -> None:
    few = read_snapshot(snapshot(tmp_path / "f.parquet", judged_rows(songs, "tight", 12, 0.5, 1)))
    with pytest.raises(DataError, match="each part needs at least 10"):
        parts_of(few.usable(include_simulated=True), 0.3)
    one = read_snapshot(
        snapshot(tmp_path / "o.parquet", judged_rows(songs[:1], "tight", 40, 0.5, 1))
    )
    states = {song.song_id: song for song in songs}
    votes = one.usable(include_simulated=True)
    told = write_training_reward(options(tmp_path), votes, states, checkpoint, dict)
    assert told["checkpoint"] is None and "two songs" in told["why_not"]
    off = options(tmp_path, "--withheld_share", "0")
    assert write_training_reward(off, votes, states, checkpoint, dict)["checkpoint"] is None
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("songs", "each", "share", "wanted"),
    [
        (20, 10, 0.15, 30), (20, 10, 0.3, 60), (20, 10, 0.5, 100),
        (10, 4, 0.15, 12),  # 4 or 8 would be too few to judge by: up to three in ten
        (10, 3, 0.15, 9),  # with 12 of 30 it would be four in ten
        (2, 10, 0.15, 10), (3, 100, 0.15, 100),  # one song at least
    ],
)  # fmt: skip
def test_so_many_are_withheld(songs: int, each: int, share: float, wanted: int) -> None:
    votes = [SimpleNamespace(song_id=f"s{i % songs}") for i in range(songs * each)]
    learned, withheld = split_votes(votes, share)
    assert len(withheld) == wanted and len(learned) == songs * each - wanted
    assert not {v.song_id for v in learned} & {v.song_id for v in withheld}


def test_a_smaller_share_is_among_a_larger_one() -> None:
    """So a policy that was trained with more withheld is still judged by votes it never saw."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        songs = rng.integers(2, 12)
        votes = [SimpleNamespace(song_id=f"s{i}") for i in rng.integers(songs, size=60)]
        parts = [{v.song_id for v in split_votes(votes, x)[1]} for x in (0.05, 0.15, 0.3, 0.6)]
        assert all(less <= more for less, more in pairwise(parts))
