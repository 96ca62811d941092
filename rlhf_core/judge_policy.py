"""What a simulated annotator itself thinks of a policy: a dry run's honest yardstick.

    python -m rlhf_core.judge_policy --judge tight --checkpoint new.pt --parent old.pt \
        --test_dir test --output_dir RUN

In a dry run the taste behind the votes is known, so unlike with people a version can be asked about
directly: how often does the judge, without noise, like one of its edits better than one of its
parent's (and of the policy that the dry run began with), on songs that nobody trained on? Writes
results.json: {judge, simulated: true, passages, songs, win_rates: {parent, first}}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from rlhf_core.audio.library import Song, find_songs, load_song
from rlhf_core.command_line import guarded
from rlhf_core.devices import use_threads
from rlhf_core.editing.passages import split_passages
from rlhf_core.errors import DataError
from rlhf_core.judging import Annotator
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy
from rlhf_core.policy.commands import start_logging, stopped
from rlhf_core.runs import RunFolder, running
from rlhf_core.tastes import LISTENING, READING
from rlhf_core.types import DoubleArray, Passage

MAX_PASSAGES = 48


def test_passages(test_dir: Path, cache_dir: Path | None, seed: int) -> list[tuple[Song, Passage]]:
    """At most MAX_PASSAGES of the folder's songs, drawn without order's favour."""
    songs = [load_song(p, cache_dir or test_dir / ".cache") for p in find_songs(test_dir)]
    if not songs:
        raise DataError(f"{test_dir}: holds no song to judge edits of")
    every = [(song, passage) for song in songs for passage in split_passages(song.state.grid)]
    chosen = np.random.default_rng(seed).permutation(len(every))[:MAX_PASSAGES]
    return [every[int(i)] for i in sorted(chosen)]


def liking(
    agent: Agent, places: Sequence[tuple[Song, Passage]], judge: Annotator, edits: int, seed: int
) -> DoubleArray:
    """(P, edits) scores of sampled edits of each passage."""
    items = [(song.state, passage) for song, passage in places]
    made = comparison.edits_of_agent(agent, items, edits, seed, None).actions
    rows = [made[i : i + edits] for i in range(0, len(made), edits)]
    return np.stack(
        [
            judge.scores(song, passage, [row.numpy() for row in actions])
            for (song, passage), actions in zip(places, rows, strict=True)
        ]
    )


def judge_policies(
    policies: dict[str, Agent],
    places: Sequence[tuple[Song, Passage]],
    judge: Annotator,
    edits: int,
    seed: int,
) -> dict[str, Any]:
    """Win rates of `policies["policy"]` against the others, with intervals over songs."""
    songs = tuple(song.song_id for song, _ in places)
    scores = {}
    for number, (name, agent) in enumerate(tqdm(policies.items(), unit="policy", disable=None)):
        scores[name] = liking(agent, places, judge, edits, seed + number)
    ours = scores.pop("policy")
    return {
        "judge": judge.name,
        "simulated": True,
        "passages": len(places),
        "songs": len(set(songs)),
        "win_rates": {n: comparison.win_rate(ours, other, songs) for n, other in scores.items()},
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.judge_policy",
        description="Ask a simulated annotator how it likes a policy's edits (dry runs only).",
        epilog="Judges: "
        + "; ".join(f"{name} ({taste})" for name, taste in (READING | LISTENING).items()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--judge", required=True, help="whose taste")
    parser.add_argument("--checkpoint", type=Path, required=True, help="policy to judge")
    parser.add_argument("--parent", type=Path, required=True, help="policy that it came from")
    parser.add_argument("--first", type=Path, help="policy at the beginning of the dry run")
    parser.add_argument("--test_dir", type=Path, required=True, help="songs to edit")
    parser.add_argument("--cache_dir", type=Path, help="analysed songs (in the test folder)")
    parser.add_argument("--output_dir", type=Path, default=Path("judged"), help="run's folder")
    parser.add_argument("--edits", type=int, default=4, help="edits of each passage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _run(args: argparse.Namespace) -> None:
    start_logging()
    use_threads(args.threads)
    judge = Annotator(args.judge)
    paths = {"policy": args.checkpoint, "parent": args.parent, "first": args.first}
    policies = {name: load_policy(path) for name, path in paths.items() if path is not None}
    run = RunFolder(args.output_dir, "judge", {"judge": judge.name, "seed": args.seed})
    with running(run), torch.no_grad():
        places = test_passages(args.test_dir, args.cache_dir, args.seed)
        run.status("running", 0.3, f"{judge.name} judges edits of {len(places)} passages")
        run.finish(judge_policies(policies, places, judge, args.edits, args.seed))


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return guarded(lambda: _run(args), stopped)


if __name__ == "__main__":
    sys.exit(main())
