"""A judge votes on pairs: the annotators' part of a dry run, as a command.

    python -m rlhf_core.simulate_votes --pairs pairs.jsonl --data_dir DIR --judge mixture \
        --output_dir RUN

Reads pairs as `policy.generate` writes them and appends one line per vote to RUN/votes.jsonl:
{vote_id, pair_id, annotator "judge:NAME", simulated: true, choice, strength}. The votes are
simulated and are stored as such, also where the file is imported; the same seed gives the same
votes. a is always on the left.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from tqdm import tqdm

from rlhf_core.audio.library import Song, load_library
from rlhf_core.command_line import guarded
from rlhf_core.editing.actions import check_actions
from rlhf_core.errors import DataError
from rlhf_core.judging import Annotator
from rlhf_core.manner import Manner, add_arguments, manner_of
from rlhf_core.runs import RunFolder, read_lines, running
from rlhf_core.tastes import LISTENING, READING, listed
from rlhf_core.types import Passage

NAMESPACE = UUID("5d0f1c52-6f0e-4b56-9d59-3f6a0f2c8f11")


def liking(row: dict[str, Any], song: Song, judge: Annotator) -> tuple[float, float]:
    """How much the judge likes both edits of a pair (a row of pairs.jsonl)."""
    passage = Passage(int(row["passage"]["start_beat"]), int(row["passage"]["end_beat"]))
    sides = [check_actions(row[side]["actions"], passage.n_beats) for side in ("edit_a", "edit_b")]
    score_a, score_b = judge.scores(song, passage, sides)
    return float(score_a), float(score_b)


def votes(
    rows: Sequence[dict[str, Any]],
    songs: Sequence[Song],
    judge: Annotator,
    seed: int,
    manner: Manner,
    report: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """One vote on every pair, in a manner. Raises DataError for a pair of an unknown song."""
    known = {song.state.song_id: song for song in songs}
    scores: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(rows)), key=lambda i: str(rows[i]["song_id"])):
        song_id = rows[index]["song_id"]
        if song_id not in known:
            raise DataError(
                f"pair {rows[index]['pair_id']}: its song {song_id} is not in the data folder"
            )
        scores[index] = liking(rows[index], known[song_id], judge)
        report(len(scores))
    unit = judge.unit(np.array([a - b for a, b in scores.values()]))
    floor = manner.floor(np.array([max(pair) / unit for pair in scores.values()]))
    rng = np.random.default_rng(seed)
    how = "/".join(f"{value:g}" for value in astuple(manner))
    cast = []
    for index, row in enumerate(rows):
        score_a, score_b = scores[index]
        choice, strength = manner.answer(score_a / unit, score_b / unit, rng, True, floor)
        name = f"{judge.name}/{seed}/{how}/{row['pair_id']}"
        cast.append(
            {
                "vote_id": str(uuid5(NAMESPACE, name)),
                "pair_id": row["pair_id"],
                "annotator": f"judge:{judge.name}",
                "simulated": True,
                "choice": choice,
                "strength": strength,
            }
        )
    return cast


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.simulate_votes",
        description="Let a simulated annotator vote on pairs (for dry runs and tests only).",
        epilog="Judges who read the edit and its beats:\n"
        + listed(READING)
        + "\n\nJudges who hear the rendered audio (slower):\n"
        + listed(LISTENING),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl of policy.generate")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train/*.wav …")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (default: DATA_DIR/.cache)")
    parser.add_argument(
        "--judge",
        default="mixture",
        metavar="NAME",
        help="who votes, one of those below (mixture)",
    )
    add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path(), help="the run's folder (here)")
    return parser


def _run(args: argparse.Namespace) -> None:
    judge = Annotator(args.judge)
    if not args.pairs.is_file():
        raise DataError(f"{args.pairs}: there is no such file of pairs")
    try:
        rows = read_lines(args.pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{args.pairs}: not JSON lines ({error})") from error
    manner = manner_of(vars(args))
    run = RunFolder(args.output_dir, "simulate", {"judge": judge.name, **asdict(manner)})
    with running(run), tqdm(total=len(rows), unit="vote", disable=None) as bar:
        songs = load_library(args.data_dir, args.cache_dir)

        def report(done: int) -> None:
            bar.update(done - bar.n)
            run.progress(done / len(rows), f"{done} of {len(rows)} pairs judged")

        counts: dict[str, int] = {}
        for vote in votes(rows, songs, judge, args.seed, manner, report):
            run.append("votes.jsonl", vote)
            counts[vote["choice"]] = counts.get(vote["choice"], 0) + 1
        run.finish({"votes": len(rows), "choices": counts, "simulated": True})


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(lambda: _run(build_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
