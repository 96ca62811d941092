"""Rank pairs that wait for a vote by what the vote is expected to tell a reward model.

    python -m rlhf_core.rank_pairs --pairs waiting.jsonl --data_dir DIR --reward_model MODEL \
        --output_dir RUN

Reads pairs in the format of `policy.generate` (pair_id, song_id, passage, and the actions of edit_a
and edit_b are enough) and writes RUN/scores.jsonl, best first: {pair_id, information, place}.
information: nats by itself. place: 0 is to be asked first, by what the vote makes surer on usual
pairs; every place is taken given those before it, so that two pairs that ask the same question do
not follow each other (`reward.selection`).
A pair whose song is not in the data folder is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf_core.audio.library import Song, load_library
from rlhf_core.command_line import guarded
from rlhf_core.devices import use_threads
from rlhf_core.editing.actions import check_actions
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import DataError
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
)
from rlhf_core.reward.selection import choose_batch, information_gain
from rlhf_core.runs import RunFolder, read_lines, running
from rlhf_core.types import DoubleArray, Passage

logger = logging.getLogger("rlhf_core.rank_pairs")
PAIRS_AT_ONCE = 32


def differences(
    rows: Sequence[dict[str, Any]], songs: dict[str, Song], reward: LearnedRewardIntegration
) -> Iterator[DoubleArray]:
    """phi(a) - phi(b), (n, D) for up to PAIRS_AT_ONCE rows at a time, in their order."""
    for first in range(0, len(rows), PAIRS_AT_ONCE):
        some = rows[first : first + PAIRS_AT_ONCE]
        phi = [_embedded(some, side, songs, reward) for side in ("edit_a", "edit_b")]
        yield phi[0] - phi[1]


def _embedded(
    rows: Sequence[dict[str, Any]],
    side: str,
    songs: dict[str, Song],
    reward: LearnedRewardIntegration,
) -> DoubleArray:
    passages = [
        Passage(int(row["passage"]["start_beat"]), int(row["passage"]["end_beat"])) for row in rows
    ]
    states = [songs[row["song_id"]].state for row in rows]
    batch = PassageBatch.from_passages(list(zip(states, passages, strict=True)))
    actions = np.zeros((len(rows), max(one.n_beats for one in passages)), dtype=np.int64)
    for index, (row, passage) in enumerate(zip(rows, passages, strict=True)):
        actions[index, : passage.n_beats] = check_actions(row[side]["actions"], passage.n_beats)
    phi = reward.embed(batch, torch.from_numpy(actions))
    return np.asarray(phi.double().cpu().numpy())


def ranked(
    rows: Sequence[dict[str, Any]], apart: DoubleArray, reward: LearnedRewardIntegration
) -> list[dict[str, Any]]:
    """{pair_id, information, place} of every pair, by place. apart: (n, D), see `differences`."""
    mean, covariance = reward.checkpoint.belief()
    alone = information_gain(
        apart @ mean, np.einsum("nd,de,ne->n", apart, covariance, apart, optimize=True)
    )
    usual = reward.checkpoint.reference.pair_covariance()
    order = choose_batch(apart, np.arange(len(rows)), mean, covariance, usual, len(rows))
    return [
        {
            "pair_id": rows[index]["pair_id"],
            "information": float(alone[index]),
            "place": place,
        }
        for place, index in enumerate(order.tolist())
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.rank_pairs",
        description="Rank pairs that wait for a vote by what it would tell a reward model.",
    )
    parser.add_argument("--pairs", type=Path, required=True, help="waiting pairs, JSON lines")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train/*.wav …")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (default: DATA_DIR/.cache)")
    parser.add_argument("--reward_model", type=Path, required=True, help="its checkpoint")
    parser.add_argument("--output_dir", type=Path, default=Path(), help="the run's folder (here)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _run(args: argparse.Namespace) -> None:
    use_threads(args.threads)
    if not args.pairs.is_file():
        raise DataError(f"{args.pairs}: there is no such file of pairs")
    try:
        given = read_lines(args.pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{args.pairs}: not JSON lines ({error})") from error
    run = RunFolder(args.output_dir, "rank", {"reward_model": str(args.reward_model)})
    with running(run):
        reward = LearnedRewardIntegration(LearnedRewardConfig())
        reward.load_model(args.reward_model)
        songs = {one.state.song_id: one for one in load_library(args.data_dir, args.cache_dir)}
        rows = [row for row in given if row["song_id"] in songs]
        if len(rows) < len(given):
            logger.warning("%d pairs of songs that are not there", len(given) - len(rows))
        if rows:
            parts = []
            for part in differences(rows, songs, reward):
                parts.append(part)
                done = sum(len(one) for one in parts)
                run.progress(done / len(rows), f"{done} of {len(rows)} pairs")
            for line in ranked(rows, np.concatenate(parts), reward):
                run.append("scores.jsonl", line)
        run.finish({"pairs": len(rows), "left_out": len(given) - len(rows)})


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(lambda: _run(build_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
