"""Three rounds of 150 noisy votes: does the loop get better, and who would notice if it did not?

    python benchmarks/loop.py --train_dir SONGS --test_dir OTHER_SONGS --out loop \
        [--judges mixture tight …|all] [--seeds 3] [--algorithm ppo dpo] [--gate_trunk CKPT]

The votes are simulated: a judge of `rlhf_core.judges` votes on pairs made as the app makes them,
its noise set so that 70 % of votes agree with its own order. Each round fits the reward to the
votes so far (less those withheld for the gate), trains the policy from its parent, asks the gate on
unseen songs, and measures with the judge's true order on *other* unseen songs: win rate against
the first policy, against the parent, and against the best heuristic preset. An accepted policy is
the next round's parent; so is a doubtful one that the judge, asked about 24 noisy cross pairs,
prefers: that is what an annotator does whom the app shows both versions.

Every finished round is a file OUT/<cell>/round_N.json beside its policy; a second start goes on
where the first stopped. OUT/results.json, OUT/table.md and OUT/overoptimisation.png sum them up.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from judged_pool import noise_for
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.evaluation import evaluate_policy, pick
from rlhf_core.files import read_json, write_json
from rlhf_core.judges import JUDGES, Judge, cast_vote
from rlhf_core.plots import save_figure
from rlhf_core.policy import comparison
from rlhf_core.policy.agent import Agent, load_policy, save_policy
from rlhf_core.policy.candidates import Maker, plan_pools, sample
from rlhf_core.policy.comparison import edits_by, edits_of_agent, win_rate
from rlhf_core.policy.dpo import DPOConfig
from rlhf_core.policy.gate import integration_of, judging_reward, split_votes
from rlhf_core.policy.imitation import imitate
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import Item, LearnedRewards
from rlhf_core.policy.songs import load_items
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.policy.votes import VotePairs
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward
from rlhf_core.reward.dataset import Vote
from rlhf_core.reward.learned_reward_integration import find_default_checkpoint
from rlhf_core.reward.training import fit_reward
from rlhf_core.types import Passage

DEFAULT_JUDGES = ("mixture", "tight", "clean_joins", "energy_build")
ALGORITHMS = ("ppo", "dpo", "votes")  # votes: DPO on the votes themselves
SHARES = {"broad": 0.4, "chosen": 0.3}
LEGS = 4  # the policy is measured so often on its way through a round
GATE_PASSAGES, JUDGE_PASSAGES, LEG_PASSAGES = 40, 60, 24
CROSS_PAIRS = 24


@dataclass(frozen=True)
class Settings:
    """What makes a cell's figures; cells of other settings are other cells."""

    votes: int = 150
    rounds: int = 3
    steps: int = 122_880
    lcb: float = 1.0
    kl_target: float = PPOConfig.kl_target
    lr: float = PPOConfig.lr
    beta: float = DPOConfig.beta


@dataclass(frozen=True)
class Setup:
    """What all cells share. gate and judge: unseen passages of different songs."""

    train: list[Item]
    gate: list[Item]
    judge: list[Item]
    first: Agent
    bootstrap: RewardCheckpoint
    trunk: RewardCheckpoint

    @property
    def states(self) -> dict[str, Any]:
        return {state.song_id: state for state, _ in self.train}


class Cell:
    """One judge, seed and algorithm, through its rounds."""

    def __init__(
        self, setup: Setup, judge: Judge, seed: int, algorithm: str, settings: Settings, out: Path
    ) -> None:
        self.setup, self.judge, self.seed = setup, judge, seed
        self.algorithm, self.settings = algorithm, settings
        changed = {
            name: value
            for name, value in asdict(settings).items()
            if value != getattr(Settings(), name)
        }
        marks = "".join(f"-{name}{value}" for name, value in changed.items())
        self.folder = out / f"{judge.name}-{algorithm}-{seed}{marks}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.noise = self._noise()
        self.watching = 0.0  # seconds of a round spent on measuring, which nobody else does

    def _noise(self) -> float:
        """So that 70 % of votes on the first policy's pairs agree with the judge's order."""
        edits = edits_of_agent(self.setup.first, self.setup.train[:40], 6, 0, self.judge.score)
        gaps = edits.scores[:, :, None] - edits.scores[:, None, :]
        return noise_for(gaps)

    def run(self) -> list[dict[str, Any]]:
        done = []
        for number in range(self.settings.rounds):
            path = self.folder / f"round_{number}.json"
            if not path.is_file():
                write_json(path, self._round(number, done))
            done.append(read_json(path))
            last = done[-1]
            print(
                f"{self.folder.name} round {number}: beats first {last['first']['mean']:.0%}, "
                f"parent {last['parent']['mean']:.0%}, best preset {last['preset']['mean']:.0%}; "
                f"{last['verdict']['decision']}, {'taken' if last['taken'] else 'left'}; "
                f"{last['seconds']:.0f} s",
                flush=True,
            )
        return done

    # ---- a round

    def _round(self, number: int, done: list[dict[str, Any]]) -> dict[str, Any]:
        parent = self._parent(done)
        rng = np.random.default_rng([self.seed, number])
        reward = self._fit([v for row in done for v in row["votes"]]) if done else None
        rows = self._votes(parent, reward, rng, number)
        rows_all = [v for row in done for v in row["votes"]] + rows
        started, self.watching = time.perf_counter(), 0.0
        reward = self._fit(rows_all)
        agent, path = self._train(parent, reward, rows_all, number)
        verdict = self._gate(agent, parent, rows_all)
        seconds = time.perf_counter() - started - self.watching
        save_policy(self.folder / f"policy_{number}.pt", agent)
        return {
            "votes": rows,
            "seconds": seconds,
            "path": path,
            **verdict,
            **self._measure(agent, parent),
            "taken": self._taken(verdict["verdict"]["decision"], agent, parent, rng),
        }

    def _parent(self, done: Sequence[dict[str, Any]]) -> Agent:
        taken = [number for number, row in enumerate(done) if row["taken"]]
        return load_policy(self.folder / f"policy_{taken[-1]}.pt") if taken else self.setup.first

    def _votes(
        self, parent: Agent, reward: RewardCheckpoint | None, rng: np.random.Generator, number: int
    ) -> list[dict[str, Any]]:
        """Simulated votes on pairs of the parent's edits, presets' among them."""
        maker = Maker(parent, "parent", reward=None if reward is None else integration_of(reward))
        shares = {k: v for k, v in SHARES.items() if k != "chosen" or reward is not None}
        rows = []
        for index, pool in enumerate(plan_pools(self.settings.votes, shares, rng)):
            item = self.setup.train[int(rng.integers(len(self.setup.train)))]
            a, b = maker.pair(pool, item, rng)
            batch = PassageBatch.from_passages([item] * 2)
            actions = torch.from_numpy(np.stack([a.actions, b.actions]))
            scores = self.judge.score(batch, actions).tolist()
            choice, strength = cast_vote(*scores, rng, self.noise)
            rows.append(
                {
                    "vote_id": f"{number}-{index}",
                    "song_id": item[0].song_id,
                    "passage": [item[1].start_beat, item[1].end_beat],
                    "actions": [a.actions.tolist(), b.actions.tolist()],
                    "choice": choice,
                    "strength": strength,
                    "pool": pool,
                    "right": choice == ("a" if scores[0] > scores[1] else "b"),
                    "b_first": bool(rng.random() < 0.5),
                }
            )
        return rows

    def _fit(self, rows: Sequence[dict[str, Any]]) -> RewardCheckpoint:
        learned, _ = split_votes([vote_of(row) for row in rows])
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
        learned, _ = split_votes([vote_of(row) for row in rows])
        votes = VotePairs(learned, self.setup.states) if self.algorithm == "votes" else None
        trainer = RLHFTrainer(
            agent,
            self.setup.train,
            LearnedRewards(integration, reference, seed),
            self.folder / f"training_{number}",
            TrainingConfig(
                "ppo" if self.algorithm == "ppo" else "dpo", save_interval=10**9, seed=seed
            ),
            ppo=PPOConfig(kl_target=settings.kl_target, lr=settings.lr),
            dpo=DPOConfig(beta=settings.beta),
            votes=votes,
        )
        path = [self._seen(agent, reference, reward)]
        for leg in range(1, LEGS + 1):
            trainer.config = replace(trainer.config, total_steps=settings.steps * leg // LEGS)
            trainer.train()
            path.append(self._seen(agent, reference, reward))
        return agent.eval(), path

    def _seen(self, agent: Agent, reference: Agent, reward: RewardCheckpoint) -> dict[str, float]:
        """Proxy and gold against the parent on a few unseen passages, and the distance gone."""
        started, integration = time.perf_counter(), integration_of(reward)
        items = self.setup.judge[:LEG_PASSAGES]

        def proxy(batch: PassageBatch, actions: torch.Tensor) -> torch.Tensor:
            return integration.score(batch, actions).mean

        seen = {}
        for name, score in (("proxy", proxy), ("gold", self.judge.score)):
            ours = edits_of_agent(agent, items, 4, 0, score)
            theirs = edits_of_agent(reference, items, 4, 0, score)
            spread = theirs.scores.std(axis=1).mean()
            seen[name] = float((ours.scores - theirs.scores).mean() / spread)
        seen["kl"] = comparison.drift(agent, reference, ours)
        self.watching += time.perf_counter() - started
        return seen

    def _gate(self, agent: Agent, parent: Agent, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        _, withheld = split_votes([vote_of(row) for row in rows])
        judge = judging_reward(withheld, self.setup.states, self.setup.trunk, self.seed + 1)
        with torch.no_grad():
            results = evaluate_policy(
                agent, self.setup.gate, parent=parent, integration=judge, seed=self.seed
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
        ours = edits_of_agent(agent, items, 4, 11, score)
        against = {
            "first": edits_of_agent(self.setup.first, items, 4, 12, score),
            "parent": edits_of_agent(parent, items, 4, 13, score),
        }
        rates = {
            name: win_rate(ours.scores, edits.scores, ours.songs) for name, edits in against.items()
        }
        presets = [
            win_rate(ours.scores, edits_by(make, items, 4, score).scores, ours.songs)
            for name, make in comparison.baselines(0).items()
            if name.startswith("heuristic")
        ]
        return {**rates, "preset": min(presets, key=lambda rate: rate["mean"])}

    def _taken(self, decision: str, agent: Agent, parent: Agent, rng: np.random.Generator) -> bool:
        """Accepted, or doubtful and preferred in noisy votes on pairs of both versions."""
        if decision != "doubtful":
            return decision == "accept"
        balance = 0
        for _ in range(CROSS_PAIRS):
            item = self.setup.train[int(rng.integers(len(self.setup.train)))]
            actions = np.stack([sample(each, item, rng, 1, 1.0)[0] for each in (agent, parent)])
            scores = self.judge.score(
                PassageBatch.from_passages([item] * 2), torch.from_numpy(actions)
            )
            choice, _ = cast_vote(*scores.tolist(), rng, self.noise)
            balance += {"a": 1, "b": -1}.get(choice, 0)
        return balance > 0


def vote_of(row: dict[str, Any]) -> Vote:
    a, b = (np.array(side, dtype=np.int64) for side in row["actions"])
    return Vote(
        row["vote_id"], row["vote_id"], row["song_id"], "judge", True, row["choice"],
        row["strength"], row["pool"], Passage(*row["passage"]), a, b, "", "", row["b_first"],
        "train",
    )  # fmt: skip


def prepare(args: argparse.Namespace) -> Setup:
    train = load_items(args.train_dir, None, "train")
    unseen = load_items(args.test_dir, None, "train")
    songs = list(dict.fromkeys(state.song_id for state, _ in unseen))
    gate = set(songs[: len(songs) * 2 // 5])
    path = args.out / "policy_first.pt"
    if not path.is_file():
        agent, _ = imitate(train, 0)
        save_policy(path, agent)
    bootstrap = load_reward(args.reward_model or find_default_checkpoint(Path())[0])
    return Setup(
        train,
        pick([item for item in unseen if item[0].song_id in gate], GATE_PASSAGES, 0),
        pick([item for item in unseen if item[0].song_id not in gate], JUDGE_PASSAGES, 0),
        load_policy(path),
        bootstrap,
        load_reward(args.gate_trunk) if args.gate_trunk else bootstrap,
    )


def summary(cells: dict[str, list[dict[str, Any]]]) -> str:
    """A table in Markdown, one line a cell, and the bars of DESIGN section 12."""
    lines = [
        "| judge-algorithm-seed | votes right | beats first, by round | beats parent, by round "
        "| best preset | verdicts | KL | s a round |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in cells.items():

        def each(key: str, rounds: list[dict[str, Any]] = rounds) -> str:
            return " / ".join(f"{row[key]['mean']:.0%}" for row in rounds)

        right = np.mean([vote["right"] for row in rounds for vote in row["votes"]])
        verdicts = " / ".join(
            row["verdict"]["decision"] + ("" if row["taken"] else " (left)") for row in rounds
        )
        drift = " / ".join(f"{row['kl_to_parent']:.2f}" for row in rounds)
        seconds = median(row["seconds"] for row in rounds)
        lines.append(
            f"| {name} | {right:.0%} | {each('first')} | {each('parent')} | {each('preset')} "
            f"| {verdicts} | {drift} | {seconds:.0f} |"
        )
    final = {name: standing(rounds) for name, rounds in cells.items()}
    for key in ("first", "preset"):
        values = sorted(row[key]["mean"] for row in final.values())
        lines.append(
            f"\npolicy in place against {key}: median {median(values):.0%}, worst {values[0]:.0%}"
        )
    taken = [sum(row["taken"] for row in rounds) for rounds in cells.values()]
    sure = [
        row for rounds in cells.values() for row in rounds if row["verdict"]["decision"] == "accept"
    ]
    worse = sum(row["parent"]["high"] < 0.5 for row in sure)
    accepted = [
        sum(r["verdict"]["decision"] == "accept" for r in rounds) for rounds in cells.values()
    ]
    lines.append(
        f"\nrounds accepted by the gate: median {median(accepted)}, taken {median(taken)};"
        f" accepted though worse than the parent: {worse} of {len(sure)}"
    )
    return "\n".join(lines) + "\n"


def standing(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round whose policy is in place at the end (the first policy wins half against itself)."""
    taken = [row for row in rounds if row["taken"]]
    even = {"mean": 0.5, "low": 0.5, "high": 0.5}
    return taken[-1] if taken else {"first": even, "preset": even}


def overoptimisation(cells: dict[str, list[dict[str, Any]]]) -> Figure:
    """Proxy and gold against the square root of the KL, one panel a round."""
    rounds = max(len(rows) for rows in cells.values())
    figure = Figure(figsize=(5 * rounds, 4))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, rounds, squeeze=False)[0]
    for number, axes in enumerate(panels):
        for colour, key in (("tab:orange", "proxy"), ("tab:blue", "gold")):
            for index, rows in enumerate(cells.values()):
                if number >= len(rows):
                    continue
                path = rows[number]["path"]
                x = [max(0.0, point["kl"]) ** 0.5 for point in path]
                y = [point[key] for point in path]
                axes.plot(x, y, "o-", color=colour, alpha=0.6, label=None if index else key)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(title=f"round {number + 1}", xlabel="√KL to the parent, nats per decision")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("gain over the parent, deviations of its edits")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_dir", type=Path, required=True, help="folder with train/")
    parser.add_argument("--test_dir", type=Path, required=True, help="other songs, train/ too")
    parser.add_argument("--out", type=Path, default=Path("loop"))
    parser.add_argument("--judges", nargs="+", default=list(DEFAULT_JUDGES), help='or "all"')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--algorithm", nargs="+", default=["ppo"], choices=ALGORITHMS)
    parser.add_argument("--reward_model", type=Path, help="bootstrap (default: looked up)")
    parser.add_argument("--gate_trunk", type=Path, help="bootstrap of another seed, for the gate")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("rlhf_core").setLevel(logging.ERROR)
    args.out.mkdir(parents=True, exist_ok=True)
    names = list(JUDGES) if args.judges == ["all"] else args.judges
    settings = Settings(**{k: getattr(args, k) for k in asdict(Settings())})
    setup = prepare(args)
    cells: dict[str, list[dict[str, Any]]] = {}
    for algorithm in args.algorithm:
        for name in names:
            for seed in range(args.seeds):
                cell = Cell(setup, JUDGES[name], seed, algorithm, settings, args.out)
                cells[cell.folder.name] = cell.run()
                write_json(args.out / "results.json", cells)
                (args.out / "table.md").write_text(summary(cells), encoding="utf-8")
                save_figure(overoptimisation(cells), args.out / "overoptimisation.png")
    print(summary(cells))


if __name__ == "__main__":
    main()
