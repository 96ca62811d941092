"""A judge votes on pairs: the annotators' part of a dry run, as a command.

    python -m rlhf_core.simulate_votes --pairs pairs.jsonl --data_dir DIR --judge mixture \
        --output_dir RUN

Reads pairs as `policy.generate` writes them and appends one line per vote to RUN/votes.jsonl:
{vote_id, pair_id, annotator "judge:NAME", choice, strength}. The votes are simulated and are
stored as such; the same seed gives the same votes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import torch
from tqdm import tqdm

from rlhf_core.audio.library import Song, load_library
from rlhf_core.editing.actions import check_actions
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import CoreError, DataError
from rlhf_core.judges import JUDGES, Judge, cast_vote, judge_named
from rlhf_core.runs import RunFolder, read_lines, running
from rlhf_core.types import Passage

NAMESPACE = UUID("5d0f1c52-6f0e-4b56-9d59-3f6a0f2c8f11")


def vote_on(
    row: dict[str, Any], song: Song, judge: Judge, rng: np.random.Generator, noise: float
) -> dict[str, Any]:
    """One vote on one pair (a row of pairs.jsonl)."""
    passage = Passage(int(row["passage"]["start_beat"]), int(row["passage"]["end_beat"]))
    batch = PassageBatch.from_passages([(song.state, passage)] * 2)
    sides = [check_actions(row[side]["actions"], passage.n_beats) for side in ("edit_a", "edit_b")]
    scores = judge.score(batch, torch.from_numpy(np.stack(sides)))
    choice, strength = cast_vote(float(scores[0]), float(scores[1]), rng, noise)
    return {
        "pair_id": row["pair_id"],
        "annotator": f"judge:{judge.name}",
        "choice": choice,
        "strength": strength,
    }


def votes(
    rows: Iterable[dict[str, Any]], songs: Sequence[Song], judge: Judge, seed: int, noise: float
) -> Iterable[dict[str, Any]]:
    """Votes on every pair. Raises DataError for a pair of an unknown song."""
    rng = np.random.default_rng(seed)
    known = {song.state.song_id: song for song in songs}
    for row in rows:
        if row["song_id"] not in known:
            raise DataError(
                f"pair {row['pair_id']}: its song {row['song_id']} is not in the data folder"
            )
        made = vote_on(row, known[row["song_id"]], judge, rng, noise)
        name = f"{judge.name}/{seed}/{noise}/{row['pair_id']}"
        yield {"vote_id": str(uuid5(NAMESPACE, name)), **made}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.simulate_votes",
        description="Let a simulated annotator vote on pairs (for dry runs and tests only).",
        epilog="Judges: " + "; ".join(f"{j.name} ({j.taste})" for j in JUDGES.values()),
    )
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl of policy.generate")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train/*.wav …")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (default: DATA_DIR/.cache)")
    parser.add_argument("--judge", default="mixture", help="who votes (mixture)")
    parser.add_argument("--noise", type=float, default=1.0, help="0: never errs (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path(), help="the run's folder (here)")
    return parser


def _run(args: argparse.Namespace) -> None:
    judge = judge_named(args.judge)
    if not args.pairs.is_file():
        raise DataError(f"{args.pairs}: there is no such file of pairs")
    try:
        rows = read_lines(args.pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{args.pairs}: not JSON lines ({error})") from error
    run = RunFolder(args.output_dir, "simulate", {"judge": judge.name, "noise": args.noise})
    with running(run):
        songs = load_library(args.data_dir, args.cache_dir)
        counts: dict[str, int] = {}
        made = votes(rows, songs, judge, args.seed, args.noise)
        for number, vote in enumerate(tqdm(made, total=len(rows), unit="vote", disable=None), 1):
            run.append("votes.jsonl", vote)
            counts[vote["choice"]] = counts.get(vote["choice"], 0) + 1
            run.progress(number / len(rows), f"{number} of {len(rows)} simulated votes")
        run.finish({"votes": len(rows), "choices": counts, "simulated": True})


def main(argv: Sequence[str] | None = None) -> int:
    try:
        _run(build_parser().parse_args(argv))
    except CoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
