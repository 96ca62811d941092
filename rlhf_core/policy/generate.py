"""Make pairs of edits for people to compare: sampled, rendered at one loudness, written as FLAC.

    python -m rlhf_core.policy.generate --data_dir songs --policy run/models/policy_best.pt \\
        --policy_name policy_v1 --count 20 --seed 1 --output_dir pairs

A line of OUTPUT_DIR/pairs.jsonl appears as soon as its pair is finished, so whoever watches the
folder can show the first pair while the last one is still being made.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from tqdm import tqdm

from rlhf_core.audio.io import Audio, read_audio, write_audio
from rlhf_core.audio.library import Song, peaks
from rlhf_core.audio.render import render_pair
from rlhf_core.command_line import guarded
from rlhf_core.devices import use_threads
from rlhf_core.editing.differences import differing_regions
from rlhf_core.editing.edl import EDL, build_edl
from rlhf_core.editing.passages import split_passages
from rlhf_core.errors import ConfigError, EditError
from rlhf_core.files import set_aside
from rlhf_core.policy.agent import load_policy
from rlhf_core.policy.candidates import Candidate, Maker, plan_pools
from rlhf_core.policy.commands import start_logging, stopped
from rlhf_core.policy.rewards import Item
from rlhf_core.policy.songs import add_data_arguments, load_songs
from rlhf_core.reward.learned_reward_integration import (
    LearnedRewardConfig,
    LearnedRewardIntegration,
)
from rlhf_core.runs import RunFolder, running
from rlhf_core.types import FloatArray, Passage

logger = logging.getLogger("rlhf_core.policy.generate")
NAMESPACE = UUID("6b0d4c1e-3a57-5c0b-9f0e-8d1f5b7e2a10")
SHARES = {"broad": 0.25, "chosen": 0.35, "cross": 0.25, "gold": 0.0}
AHEAD = 2  # pairs drawn that wait to be rendered
MAX_RETRIES = 20  # passages in a row that may turn out unusable


@dataclass(frozen=True)
class Job:
    """One pair to be made."""

    number: int
    pool: str
    song: Song
    passage: Passage
    seed: int

    @property
    def item(self) -> Item:
        return self.song.state, self.passage


def schedule(songs: Sequence[Song], rng: np.random.Generator) -> Iterator[tuple[Song, Passage]]:
    """Songs take turns in shuffled rounds; each time a song comes up, its next passage does."""
    rounds = {
        song.song_id: [(song, passage) for passage in split_passages(song.state.grid)]
        for song in songs
    }
    left: dict[str, list[tuple[Song, Passage]]] = {song_id: [] for song_id in rounds}
    while True:
        for index in rng.permutation(len(songs)):
            song_id = songs[int(index)].song_id
            if not left[song_id]:
                passages = rounds[song_id]
                left[song_id] = [passages[int(i)] for i in rng.permutation(len(passages))]
            yield left[song_id].pop()


class PairWriter:
    """Renders pairs and writes their rows. Audio of the last few songs stays in memory."""

    def __init__(self, run: RunFolder, seed: int, keep_songs: int = 8) -> None:
        self.run, self.seed, self.keep_songs = run, seed, keep_songs
        self._audio: dict[Path, Audio] = {}

    def audio_of(self, song: Song) -> Audio:
        if song.path not in self._audio:
            while len(self._audio) >= self.keep_songs:
                self._audio.pop(next(iter(self._audio)))
            self._audio[song.path] = read_audio(song.path)
        return self._audio[song.path]

    def write(self, job: Job, a: Candidate, b: Candidate) -> dict[str, Any]:
        """Render one pair, write its audio, append its row. Returns the row."""
        grid, passage = job.song.state.grid, job.passage
        content = (self.seed, job.number, job.song.song_id, passage, a.policy, b.policy)
        pair_id = uuid5(NAMESPACE, repr((*content, a.actions.tolist(), b.actions.tolist())))
        original = build_edl(np.zeros(passage.n_beats, dtype=np.int64), grid, passage)
        rendered = render_pair(self.audio_of(job.song), a.edl, b.edl, original)
        folder = self.run.path.resolve() / "audio" / str(pair_id)
        regions_a, regions_b = differing_regions(a.edl, b.edl)
        sides = {
            name: self._edit(pair_id, name, job, edit, folder, samples, rendered.rate)
            for name, edit, samples in (("a", a, rendered.a), ("b", b, rendered.b))
        }
        row = {
            "pair_id": str(pair_id),
            "song_id": job.song.song_id,
            "song_path": str(job.song.path.resolve()),
            "pool": job.pool,
            "seed": job.seed,
            "passage": original.to_json()["passage"],
            "original": _sound(
                folder / "original.flac", rendered.original, rendered.rate, original
            ),
            "edit_a": sides["a"],
            "edit_b": sides["b"],
            "regions_a": regions_a,
            "regions_b": regions_b,
            "gains_db": rendered.gains_db,
            "loudness_lufs": rendered.loudness_lufs,
        }
        self.run.append("pairs.jsonl", row)
        return row

    def _edit(
        self,
        pair_id: UUID,
        side: str,
        job: Job,
        edit: Candidate,
        folder: Path,
        samples: FloatArray,
        rate: int,
    ) -> dict[str, Any]:
        return {
            "edit_id": str(uuid5(pair_id, side)),
            "policy": edit.policy,
            "preset": edit.preset,
            "temperature": edit.temperature,
            "seed": job.seed,
            "actions": edit.actions.tolist(),
            **_sound(folder / f"{side}.flac", samples, rate, edit.edl),
        }


def _sound(path: Path, samples: FloatArray, rate: int, edl: EDL) -> dict[str, Any]:
    """Write one side's audio; what its row says about it."""
    write_audio(path, samples, rate)
    return {
        "audio_path": str(path),
        "duration_s": len(samples) / rate,
        "edl": edl.to_json(),
        "peaks": [round(float(value), 4) for value in peaks(samples)],
    }


def generate(
    songs: Sequence[Song],
    maker: Maker,
    run: RunFolder,
    count: int,
    seed: int,
    shares: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """Make `count` pairs; their rows, one by one. A passage without two edits is passed over.

    A second thread renders and writes, in order, while the next edits are made: both keep one
    core busy, mostly outside the interpreter's lock.
    """
    writer = PairWriter(run, seed)
    waiting: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(1) as renderer:
        try:
            for job, a, b in drawn_pairs(songs, maker, count, seed, shares):
                waiting.append(renderer.submit(writer.write, job, a, b))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # after an error, or when nobody wants more: nothing further is rendered
            for future in waiting:
                future.cancel()


def drawn_pairs(
    songs: Sequence[Song], maker: Maker, count: int, seed: int, shares: dict[str, float]
) -> Iterator[tuple[Job, Candidate, Candidate]]:
    """The edits of `count` pairs, not rendered yet."""
    rng = np.random.default_rng(seed)
    pools = plan_pools(count, shares, rng)
    passages = schedule(songs, rng)
    for number, pool in enumerate(pools):
        for retry in range(MAX_RETRIES):
            song, passage = next(passages)
            job = Job(number, pool, song, passage, int(rng.integers(2**31)))
            try:
                a, b = maker.pair(pool, job.item, np.random.default_rng(job.seed))
                break
            except EditError as error:
                if retry == MAX_RETRIES - 1:
                    raise
                logger.warning("passed over: %s", error)
        yield job, a, b


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_core.policy.generate",
        description="Make pairs of edits for people to compare.",
        epilog="Shares add up to at most 1; what they leave is pairs of two edits of the policy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument("--policy", type=Path, required=True, help="policy checkpoint")
    parser.add_argument("--policy_name", default="policy", help="its version, as rows name it")
    parser.add_argument("--versus", type=Path, help="another policy, for pairs across versions")
    parser.add_argument("--versus_name", default="versus", help="the other policy's version")
    parser.add_argument("--reward_model", type=Path, help="needed to choose informative pairs")
    parser.add_argument("--count", type=int, default=20, help="pairs to make")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the policy's sampling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("pairs"), help="the run's folder")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    for pool, share in SHARES.items():
        parser.add_argument(f"--share_{pool}", type=float, default=share, help=_POOL_HELP[pool])
    return parser


_POOL_HELP = {
    "broad": "share with one side by a heuristic preset",
    "chosen": "share chosen for what a vote would teach (with --reward_model)",
    "cross": "share against the other policy (with --versus)",
    "gold": "share against an obviously broken edit",
}


def _shares(args: argparse.Namespace) -> dict[str, float]:
    """The shares asked for, without those that lack what they need; that is said."""
    shares = {pool: float(getattr(args, f"share_{pool}")) for pool in SHARES}
    for pool, needed in (("chosen", "reward_model"), ("cross", "versus")):
        if shares[pool] > 0 and getattr(args, needed) is None:
            logger.info("no --%s: the share of %s pairs goes to random ones", needed, pool)
            shares[pool] = 0.0
    return shares


def _maker(args: argparse.Namespace) -> Maker:
    if args.count < 1 or args.temperature <= 0:
        raise ConfigError(
            f"--count {args.count} must be at least 1, --temperature {args.temperature} above 0"
        )
    reward = None
    if args.reward_model is not None:
        reward = LearnedRewardIntegration(LearnedRewardConfig())
        reward.load_model(args.reward_model)
    versus = None if args.versus is None else load_policy(args.versus)
    return Maker(
        load_policy(args.policy),
        args.policy_name,
        args.temperature,
        versus,
        args.versus_name,
        reward,
    )


def _run(args: argparse.Namespace) -> None:
    start_logging()
    use_threads(args.threads)
    maker, shares = _maker(args), _shares(args)
    for name in ("pairs.jsonl", "results.json", "metrics.jsonl"):
        set_aside(args.output_dir / name)
    run = RunFolder(args.output_dir, "generate", {**_plain(args), "shares": shares})
    pools: dict[str, int] = {}
    with running(run), tqdm(total=args.count, unit="pair", disable=None) as bar:
        songs = load_songs(args.data_dir, args.cache_dir, args.split)
        for row in generate(songs, maker, run, args.count, args.seed, shares):
            pools[row["pool"]] = pools.get(row["pool"], 0) + 1
            made = sum(pools.values())
            bar.update(1)
            run.metric(pair=made, pool=row["pool"], song_id=row["song_id"])
            run.progress(made / args.count, f"{made} of {args.count} pairs")
        run.finish({"pairs": sum(pools.values()), "pools": pools}, f"{args.count} pairs made")


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return guarded(lambda: _run(args), stopped)


if __name__ == "__main__":
    sys.exit(main())
