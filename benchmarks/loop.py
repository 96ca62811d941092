"""Three rounds of 150 noisy votes: does the loop get better, and who would notice if it did not?

    python benchmarks/loop.py --train_dir SONGS --test_dir OTHER_SONGS --out loop \
        [--judges mixture tight …|all] [--seeds 3] [--algorithm ppo dpo] [--gate_trunk CKPT]

The votes are simulated: a judge of `rlhf_core.judges` votes on pairs made as the app makes them,
its noise set so that 70 % of votes agree with its own order. Each round fits the reward to the
votes so far (less those withheld for the gate), trains the policy from its parent, asks the gate on
unseen songs, and measures with the judge's true order on *other* unseen songs: win rate against
the first policy, against the parent, and against the best heuristic preset.

Of a round's 150 votes the last 24 (`--cross`) are on cross pairs: what the proposed policy and its
parent made of the same passage. They settle the gate's verdict (`policy.settling`: taken with a
probability of 90 % of being better, the gate's own evidence and the votes' together), as an
annotator does whom the app shows both versions, and later rounds learn from them: they are what a
reward hears of the edits that it was exploited by.

Every finished round is a file OUT/<cell>/round_N.json beside its policy; a second start goes on
where the first stopped (`--minutes` stops it between two rounds). OUT/results.json, OUT/table.md,
OUT/winrates.png and OUT/overoptimisation.png sum up all cells that lie in OUT (`loop_report.py`).
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_pool import noise_for
from loop_report import report, summary
from loop_setup import Settings, Setup, prepare
from numpy.typing import NDArray

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.evaluation import evaluate_policy
from rlhf_core.files import read_json, write_json
from rlhf_core.judges import JUDGES, Judge, cast_vote
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy, save_policy
from rlhf_core.policy.candidates import Maker, plan_pools
from rlhf_core.policy.comparison import Edits, edits_of_agent, win_rate
from rlhf_core.policy.dpo import DPOConfig
from rlhf_core.policy.gate import integration_of, judging_reward
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import Item, LearnedRewards
from rlhf_core.policy.rollout import collect
from rlhf_core.policy.settling import settle
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.policy.votes import VotePairs
from rlhf_core.reward.checkpoint import RewardCheckpoint
from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.training import fit_reward
from rlhf_core.reward.withholding import split_votes
from rlhf_core.types import Passage

DEFAULT_JUDGES = ("mixture", "tight", "clean_joins", "energy_build")
ALGORITHMS = ("ppo", "dpo", "votes")  # votes: DPO on the votes themselves
SHARES = {"broad": 0.3, "chosen": 0.4}  # of the votes on the parent's own pairs
LEGS = 2  # the policy is measured so often on its way through a round
LEG_PASSAGES = 16


class Cell:
    """One judge, seed and algorithm, through its rounds."""

    def __init__(
        self, setup: Setup, judge: Judge, seed: int, algorithm: str, settings: Settings, out: Path
    ) -> None:
        self.setup, self.judge, self.seed = setup, judge, seed
        self.algorithm, self.settings = algorithm, settings
        self.folder = out / f"{judge.name}-{algorithm}-{seed}{settings.marks()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.noise = self._noise()
        self.watching = 0.0  # seconds of a training spent on measuring, which nobody else does
        self.seconds: dict[str, float] = {}

    def _noise(self) -> float:
        """So that 70 % of votes on the first policy's pairs agree with the judge's order."""
        edits = edits_of_agent(self.setup.first, self.setup.train[:40], 6, 0, self.judge.score)
        gaps = edits.scores[:, :, None] - edits.scores[:, None, :]
        return noise_for(gaps)

    def run(self, until: float = float("inf")) -> list[dict[str, Any]]:
        """Its rounds, those done before included; none is begun after `until` (monotonic time)."""
        done: list[dict[str, Any]] = []
        for number in range(self.settings.rounds):
            path = self.folder / f"round_{number}.json"
            if not path.is_file():
                if time.monotonic() > until:
                    return done
                write_json(path, self._round(number, done))
            done.append(read_json(path))
            last = done[-1]
            print(
                f"{self.folder.name} round {number}: beats first {last['first']['mean']:.0%}, "
                f"parent {last['parent']['mean']:.0%}, best preset {last['preset']['mean']:.0%}; "
                f"{last['verdict']['decision']}, {'taken' if last['taken'] else 'left'}; "
                f"{sum(last['seconds'].values()):.0f} s",
                flush=True,
            )
        return done

    def _round(self, number: int, done: list[dict[str, Any]]) -> dict[str, Any]:
        parent = self._parent(done)
        rng = np.random.default_rng([self.seed, number])
        before = [vote for row in done for vote in row["votes"]]
        chooser = self._fit(before) if before else self.setup.bootstrap
        rows = before + self._votes(parent, chooser, rng, number)
        self.seconds, self.watching = {}, 0.0
        with self._timed("fit"):
            reward = self._fit(rows)
        with self._timed("train"):
            agent, path = self._train(parent, reward, rows, number)
        self.seconds["train"] -= self.watching
        with self._timed("gate"):
            verdict = self._gate(agent, parent, rows)
        save_policy(self.folder / f"policy_{number}.pt", agent)
        cross, wins, losses = self._cross_votes(agent, parent, rng, number)
        settled = settle(verdict["verdict"], wins, losses)
        return {
            "votes": rows[len(before) :] + cross,
            "seconds": self.seconds,
            "path": path,
            **verdict,
            **self._measure(agent, parent),
            "cross": [wins, losses],
            "settled": settled,
            "taken": settled["decision"] == "accept",
        }

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """CPU seconds: this machine may have other work."""
        started = time.process_time()
        yield
        self.seconds[part] = time.process_time() - started

    def _parent(self, done: Sequence[dict[str, Any]]) -> Agent:
        taken = [number for number, row in enumerate(done) if row["taken"]]
        return load_policy(self.folder / f"policy_{taken[-1]}.pt") if taken else self.setup.first

    def _votes(
        self, parent: Agent, chooser: RewardCheckpoint, rng: np.random.Generator, number: int
    ) -> list[dict[str, Any]]:
        """Simulated votes on pairs of the parent's edits, presets' among them."""
        maker = Maker(parent, "parent", reward=integration_of(chooser))
        rows = []
        for index, pool in enumerate(
            plan_pools(self.settings.votes - self.settings.cross, SHARES, rng)
        ):
            item = self._any_item(rng)
            a, b = maker.pair(pool, item, rng)
            actions = np.stack([a.actions, b.actions])
            rows.append(self._vote(f"{number}-{index}", pool, item, actions, rng))
        return rows

    def _cross_votes(
        self, agent: Agent, parent: Agent, rng: np.random.Generator, number: int
    ) -> tuple[list[dict[str, Any]], int, int]:
        """Votes on pairs of both versions, and how many are for the new one and for the old."""
        items = [self._any_item(rng) for _ in range(self.settings.cross)]
        batch = PassageBatch.from_passages(items)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        new, old = (collect(each, batch, noise).actions.numpy() for each in (agent, parent))
        rows, found = [], [0, 0]
        for index, item in enumerate(items):
            pair = np.stack([new[index], old[index]])[:, : item[1].n_beats]
            swap = bool(rng.random() < 0.5)
            row = self._vote(f"{number}-x{index}", "cross", item, pair[::-1] if swap else pair, rng)
            if row["choice"] in ("a", "b"):
                found[(row["choice"] == "b") != swap] += 1
            rows.append(row)
        return rows, found[0], found[1]

    def _any_item(self, rng: np.random.Generator) -> Item:
        return self.setup.train[int(rng.integers(len(self.setup.train)))]

    def _vote(
        self, vote_id: str, pool: str, item: Item, actions: NDArray[Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        batch = PassageBatch.from_passages([item] * 2)
        scores = self.judge.score(batch, torch.from_numpy(actions.copy())).tolist()
        choice, strength = cast_vote(*scores, rng, self.noise)
        return {
            "vote_id": vote_id,
            "song_id": item[0].song_id,
            "passage": [item[1].start_beat, item[1].end_beat],
            "actions": actions.tolist(),
            "choice": choice,
            "strength": strength,
            "pool": pool,
            "right": choice == ("a" if scores[0] > scores[1] else "b"),
            "b_first": bool(rng.random() < 0.5),
        }

    def _parts(self, rows: Sequence[dict[str, Any]]) -> tuple[list[Vote], list[Vote]]:
        """Votes to learn from, and those withheld for the gate."""
        return split_votes([vote_of(row) for row in rows], self.settings.withheld)

    def _fit(self, rows: Sequence[dict[str, Any]]) -> RewardCheckpoint:
        learned, _ = self._parts(rows)
        fitted = fit_reward(learned, self.setup.states, self.setup.bootstrap, {}, seed=self.seed)
        return fitted.checkpoint

    def _train(
        self, parent: Agent, reward: RewardCheckpoint, rows: Sequence[dict[str, Any]], number: int
    ) -> tuple[Agent, list[dict[str, float]]]:
        """The proposed policy, and how reward and judge saw it on its way there."""
        settings, seed = self.settings, 1000 * self.seed + number
        agent, reference = copy_of(parent).requires_grad_(True), copy_of(parent)
        integration = integration_of(reward)
        integration.config = replace(integration.config, lcb=settings.lcb)
        learned, _ = self._parts(rows)
        votes = VotePairs(learned, self.setup.states) if self.algorithm == "votes" else None
        trainer = RLHFTrainer(
            agent,
            self.setup.train,
            LearnedRewards(integration, reference, seed, settings.learned),
            self.folder / f"training_{number}",
            TrainingConfig(
                "ppo" if self.algorithm == "ppo" else "dpo", save_interval=10**9, seed=seed
            ),
            ppo=PPOConfig(
                kl_target=settings.kl_target,
                lr=settings.lr,
                minibatch_episodes=settings.minibatch,
            ),
            dpo=DPOConfig(beta=settings.beta),
            votes=votes,
            held_out=self.setup.gate,
        )
        path = [self._seen(agent, reference, reward)]
        for leg in range(1, LEGS + 1):
            trainer.config = replace(trainer.config, total_steps=settings.steps * leg // LEGS)
            trainer.train()
            best = load_policy(trainer.best_path)
            path.append(self._seen(best, reference, reward))
        return best, path

    def _seen(self, agent: Agent, reference: Agent, reward: RewardCheckpoint) -> dict[str, float]:
        """Proxy and gold against the parent on a few unseen passages, and the distance gone."""
        started, integration = time.process_time(), integration_of(reward)
        items = self.setup.judge[:LEG_PASSAGES]

        def proxy(batch: PassageBatch, actions: torch.Tensor) -> torch.Tensor:
            return integration.score(batch, actions).mean

        seen = {}
        for name, score in (("proxy", proxy), ("gold", self.judge.score)):
            ours = edits_of_agent(agent, items, 4, 0, score)
            theirs = edits_of_agent(reference, items, 4, 0, score)
            spread = theirs.scores.std(axis=1).mean()
            if spread < 1e-6:  # a parent that always makes the same edit
                spread = edits_of_agent(self.setup.first, items, 4, 0, score).scores.std(1).mean()
            seen[name] = float((ours.scores - theirs.scores).mean() / spread)
        seen["kl"] = comparison.drift(agent, reference, ours)
        self.watching += time.process_time() - started
        return seen

    def _gate(self, agent: Agent, parent: Agent, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        _, withheld = self._parts(rows)
        judge = judging_reward(withheld, self.setup.states, self.setup.trunk, self.seed + 1)
        with torch.no_grad():
            results = evaluate_policy(
                agent,
                self.setup.gate,
                parent=parent,
                integration=judge,
                seed=self.seed,
                baselines=False,
            )
        return {
            "verdict": results["verdict"],
            "gate_rate": results["win_rates"]["parent"],
            "kl_to_parent": results["kl_to_parent"],
            "keep_ratio": results["contenders"]["policy"]["keep_ratio"],
            "diversity": results["contenders"]["policy"]["diversity"],
        }

    def _measure(self, agent: Agent, parent: Agent) -> dict[str, Any]:
        """True win rates by the judge on its unseen songs."""
        items, score = self.setup.judge, self.judge.score
        ours: Edits = edits_of_agent(agent, items, 4, 11, score)
        theirs = self.setup.standards(self.judge) | {
            "parent": edits_of_agent(parent, items, 4, 13, score).scores
        }
        rates = {name: win_rate(ours.scores, scores, ours.songs) for name, scores in theirs.items()}
        presets = {name: rate for name, rate in rates.items() if name.startswith("heuristic")}
        worst = min(presets, key=lambda name: presets[name]["mean"])
        return {
            "first": rates["first"],
            "parent": rates["parent"],
            "preset": presets[worst],
            "best_preset": worst,
        }


def vote_of(row: dict[str, Any]) -> Vote:
    a, b = (np.array(side, dtype=np.int64) for side in row["actions"])
    return Vote(
        row["vote_id"], row["vote_id"], row["song_id"], "judge", True, row["choice"],
        row["strength"], row["pool"], Passage(*row["passage"]), a, b, "", "", row["b_first"],
        "train",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_dir", type=Path, required=True, help="folder with train/")
    parser.add_argument("--test_dir", type=Path, required=True, help="other songs, train/ too")
    parser.add_argument("--out", type=Path, default=Path("loop"))
    parser.add_argument("--judges", nargs="+", default=list(DEFAULT_JUDGES), help='or "all"')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--algorithm", nargs="+", default=["ppo", "dpo"], choices=ALGORITHMS)
    parser.add_argument("--reward_model", type=Path, help="bootstrap (default: looked up)")
    parser.add_argument("--gate_trunk", type=Path, help="the gate's bootstrap (the package's)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round later")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("rlhf_core").setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    names = list(JUDGES) if args.judges == ["all"] else args.judges
    settings = Settings(**{k: getattr(args, k) for k in asdict(Settings())})
    until = time.monotonic() + 60 * args.minutes
    setup = prepare(args)
    for seed in range(args.seeds):
        for algorithm in args.algorithm:
            for name in names:
                Cell(setup, JUDGES[name], seed, algorithm, settings, args.out).run(until)
                report(args.out)
    print(summary(report(args.out)))


if __name__ == "__main__":
    main()
