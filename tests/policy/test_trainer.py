"""The loop: exact resuming, what it writes, and how it stops."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from rlhf_core import history
from rlhf_core.checkpoints import load_checkpoint
from rlhf_core.editing.actions import Action
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.errors import CheckpointError, DataError
from rlhf_core.policy import trainer as trainer_module
from rlhf_core.policy.agent import Agent, agent_from_content, load_policy
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.rewards import EditRewards, Item, RewardSource, dense_only
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig, copy_of
from rlhf_core.runs import RunFolder, read_lines, running

BOTH = {"total_reward", "dense_reward", "dense_raw", "policy_loss", "entropy", "kl_reference",
        "grad_norm", "keep_ratio"}  # fmt: skip
DIAGNOSTICS = {
    "ppo": BOTH | {"value_loss", "approx_kl", "clip_fraction", "explained_variance", "kl_weight",
                   "entropy_weight", "stopped_early"},
    "dpo": BOTH | {"accuracy", "margin", "chosen_log_prob", "rejected_log_prob"},
}  # fmt: skip


def config(steps: int, algorithm: str = "ppo", interval: int = 600) -> TrainingConfig:
    return TrainingConfig(algorithm, steps, n_steps=300, save_interval=interval, plot_every=1000)


def weights(agent: Agent) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def fresh(agent: Agent) -> Agent:
    return copy_of(agent).requires_grad_(True)


@pytest.mark.parametrize("algorithm", ["ppo", "dpo"])
def test_resuming_is_as_if_never_stopped(
    small_agent: Agent,
    items: list[Item],
    likes_cuts: RewardSource,
    tmp_path: Path,
    algorithm: str,
) -> None:
    """Two updates, stop, two more: the same weights and history as four, to the last bit."""
    straight = RLHFTrainer(
        fresh(small_agent), items, likes_cuts, tmp_path / "a", config(1200, algorithm)
    )
    straight.train()
    for name in DIAGNOSTICS[algorithm]:
        assert all(value is not None for value in straight.columns[name]), name
    first = RLHFTrainer(
        fresh(small_agent), items, likes_cuts, tmp_path / "b", config(600, algorithm)
    )
    first.train()
    path = tmp_path / "b/models/checkpoint_600.pt"
    content = load_checkpoint(path, "policy")
    agent = agent_from_content(path, content)
    second = RLHFTrainer(agent, items, likes_cuts, tmp_path / "c", config(1200, algorithm))
    second.restore(path, content["training"])
    assert second.episode == first.episode and 0 < second.step < 1200
    second.train()
    assert second.columns == straight.columns
    left, right = weights(straight.agent), weights(second.agent)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert torch.equal(straight.generator.get_state(), second.generator.get_state())


def test_same_seed_same_weights(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made = TrainingConfig(total_steps=600, n_steps=300, seed=seed)
        trainer = RLHFTrainer(fresh(small_agent), items, likes_cuts, tmp_path / name, made)
        trainer.train()
        ends.append(torch.cat([value.flatten() for value in weights(trainer.agent).values()]))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_outputs(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path, "train-policy")
    trainer = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config(2000, interval=700))
    trainer.run = run
    results = trainer.train()
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {
        "policy_best.pt", "policy_final.pt", "checkpoint_700.pt", "checkpoint_1400.pt",
    } | ({"checkpoint_2100.pt"} if trainer.step >= 2100 else set())  # fmt: skip
    written = json.loads((tmp_path / "logs/training_history.json").read_text())
    assert set(history.REQUIRED) <= set(written)
    assert written["episode"] == list(range(len(written["step"])))
    assert written["step"][0] == 0 and written["step"] == sorted(set(written["step"]))
    assert read_lines(tmp_path / "metrics.jsonl") == history.rows(written)
    assert results["steps"] == trainer.step >= 2000
    assert (tmp_path / "logs/training.log").read_text().count("episode") >= 1
    assert (tmp_path / "logs/training_progress.png").read_bytes()[:4] == b"\x89PNG"
    assert load_checkpoint(tmp_path / "models/checkpoint_700.pt", "policy")["step"] >= 700
    saved = load_policy(tmp_path / "models/policy_final.pt")
    assert all(torch.equal(weights(saved)[n], v) for n, v in weights(small_agent).items())
    assert trainer.load_training_history() == trainer.columns


def test_what_can_be_watched_while_it_trains(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Plot and history are there before the end; the bar tells ETA, reward and KL."""
    shown, seen = io.StringIO(), []

    def bar(**options: object) -> object:
        wide = {"dynamic_ncols": False, "ncols": 200}
        return tqdm(**(options | wide | {"disable": False, "file": shown, "mininterval": 0}))

    def watched(batch: PassageBatch, actions: Tensor, given: Sequence[Item]) -> EditRewards:
        plot = tmp_path / "logs/training_progress.png"
        seen.append(plot.is_file() and plot.read_bytes()[:4] == b"\x89PNG")
        if seen[-1]:
            assert history.load(tmp_path / "logs/training_history.json")["episode"] == [0]
        return likes_cuts(batch, actions, given)

    monkeypatch.setattr(trainer_module, "tqdm", bar)
    made = TrainingConfig("dpo", 600, n_steps=300, plot_every=1, log_every=1)
    RLHFTrainer(small_agent, items, watched, tmp_path, made).train()
    assert seen == [False, True]
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d,.*reward=[+-]\d.*kl=\d", shown.getvalue())
    lines = (tmp_path / "logs/training.log").read_text().splitlines()
    updates = [line for line in lines if "episode" in line]
    assert len(updates) == 2 and all("accuracy" in u and "margin" in u for u in updates)


def test_a_training_of_before_newer_columns_can_go_on(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    first = RLHFTrainer(fresh(small_agent), items, likes_cuts, tmp_path / "a", config(300))
    first.train()
    state = first.state()
    for name in ("held_out_reward", "entropy_weight"):
        del state["history"][name]
    again = RLHFTrainer(fresh(small_agent), items, likes_cuts, tmp_path / "b", config(600))
    again.restore(tmp_path / "a", state)
    again.train()
    assert again.columns["entropy_weight"][0] is None
    assert again.columns["entropy_weight"][-1] is not None


def test_nothing_saved_depends_on_the_total(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    """The checkpoint of a long run equals the one that a short run wrote at the same step."""
    states = []
    for name, total in (("short", 700), ("long", 1500)):
        trainer = RLHFTrainer(fresh(small_agent), items, likes_cuts, tmp_path / name, config(total))
        trainer.train()
        content = load_checkpoint(tmp_path / name / "models/checkpoint_600.pt", "policy")
        content["training"].pop("config")
        states.append(content)
    assert states[0]["step"] == states[1]["step"]
    assert all(
        torch.equal(states[0]["state_dict"][n], states[1]["state_dict"][n])
        for n in states[0]["state_dict"]
    )
    assert states[0]["training"]["history"] == states[1]["training"]["history"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_a_checkpoint_and_says_how_to_go_on(
    small_agent: Agent,
    items: list[Item],
    likes_cuts: RewardSource,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    calls = 0

    def stops(batch: PassageBatch, actions: Tensor, items: Sequence[Item]) -> EditRewards:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), number)
        return likes_cuts(batch, actions, items)

    run = RunFolder(tmp_path, "train-policy")
    trainer = RLHFTrainer(small_agent, items, stops, tmp_path, config(10_000, interval=50_000))
    with pytest.raises(KeyboardInterrupt), running(run):
        trainer.train()
    assert trainer.episode == 2
    path = tmp_path / f"models/checkpoint_{trainer.step}.pt"
    assert load_checkpoint(path, "policy")["training"]["episode"] == 2
    assert f"--checkpoint {path}" in (tmp_path / "logs/training.log").read_text()
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "cancelled"


def two_faced(known: set[tuple[str, int]]) -> RewardSource:
    """Pays for cuts in the known passages, and against them in others."""

    def pay(batch: PassageBatch, actions: Tensor, given: Sequence[Item]) -> EditRewards:
        cut = ((actions == Action.CUT) & batch.valid).sum(1) / batch.lengths
        ours = torch.tensor([(s.song_id, p.start_beat) in known for s, p in given])
        paid = torch.where(ours, cut, -cut)
        return EditRewards(paid, paid, paid)

    return pay


def test_the_best_checkpoint_is_chosen_on_passages_never_trained_on(
    small_agent: Agent, items: list[Item], tmp_path: Path
) -> None:
    """A reward that turns on the policy on unseen passages: the best is then not the last.

    A training that is resumed after its best, in another folder, ends with the same best.
    """
    trained = items[:8]
    pay = two_faced({(state.song_id, passage.start_beat) for state, passage in trained})

    def trainer(agent: Agent, name: str) -> RLHFTrainer:
        return RLHFTrainer(
            agent, trained, pay, tmp_path / name, config(6000, interval=3000),
            held_out=items[8:], ppo=PPOConfig(lr=3e-3, kl_weight=0.0), events=tmp_path / "events",
        )  # fmt: skip

    whole = trainer(small_agent, "whole")
    results = whole.train()
    unseen = [v for v in whole.columns["held_out_reward"] if v is not None]
    assert len(unseen) >= 3 and unseen[-1] < unseen[0] - 0.1
    best = load_checkpoint(Path(results["best_checkpoint"]), "policy")
    assert best["episode"] == 5 * unseen.index(max(unseen)) < 10
    assert results["best_step"] == best["step"] == whole.columns["step"][best["episode"]]
    assert whole.held_out.best is not None and whole.held_out.best.mean == max(unseen)
    (events,) = (tmp_path / "events").iterdir()
    assert events.read_bytes().count(b"training/total_reward") == whole.episode

    path = tmp_path / "whole/models/checkpoint_3000.pt"
    content = load_checkpoint(path, "policy")
    assert content["episode"] > best["episode"]
    resumed = trainer(agent_from_content(path, content), "resumed")
    resumed.restore(path, content["training"])
    again = load_checkpoint(Path(resumed.train()["best_checkpoint"]), "policy")
    assert again["episode"] == best["episode"]
    assert all(torch.equal(again["state_dict"][n], v) for n, v in best["state_dict"].items())


def test_without_held_out_passages_the_last_checkpoint_counts_as_best(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    results = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config(600)).train()
    best, last = (load_policy(Path(results[n])) for n in ("best_checkpoint", "checkpoint"))
    assert all(torch.equal(weights(best)[name], value) for name, value in weights(last).items())


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import torch
from rlhf_core.policy.agent import Agent, AgentConfig
from rlhf_core.policy.rewards import dense_only
from rlhf_core.policy.trainer import RLHFTrainer, TrainingConfig

torch.set_num_threads(1)
out, deadly = Path(sys.argv[1]), int(sys.argv[2])
items = pickle.loads((out.parent / "items.pkl").read_bytes())
torch.manual_seed(0)
agent = Agent(AgentConfig(width=16, layers=1, heads=2, feedforward=16, hidden=32)).eval()

def reward(batch, actions, items):
    global deadly
    deadly -= 1
    if deadly == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return dense_only(batch, actions, items)

config = TrainingConfig(total_steps=2000, n_steps=300, save_interval=600, plot_every=1000)
RLHFTrainer(agent, items, reward, out, config).train()
"""


def test_resuming_after_sigkill_between_checkpoints_is_exact(
    items: list[Item], tmp_path: Path
) -> None:
    """A process killed in the middle of an update, resumed from its last checkpoint elsewhere."""
    (tmp_path / "items.pkl").write_bytes(pickle.dumps(items))
    command = [sys.executable, "-c", KILLED]
    whole = subprocess.run([*command, str(tmp_path / "whole"), "-1"], capture_output=True)
    assert whole.returncode == 0, whole.stderr.decode()
    killed = subprocess.run([*command, str(tmp_path / "killed"), "5"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    path = max(
        (tmp_path / "killed/models").glob("checkpoint_*.pt"),
        key=lambda file: int(file.stem.split("_")[1]),
    )
    assert not (tmp_path / "killed/models/policy_final.pt").exists()
    content = load_checkpoint(path, "policy")
    agent = agent_from_content(path, content)
    made = TrainingConfig(total_steps=2000, n_steps=300, save_interval=600, plot_every=1000)
    resumed = RLHFTrainer(agent, items, dense_only, tmp_path / "resumed", made)
    resumed.restore(path, content["training"])
    assert resumed.episode < 4, "it was killed after its last checkpoint"
    resumed.train()
    final = load_checkpoint(tmp_path / "whole/models/policy_final.pt", "policy")
    assert resumed.step == final["step"]
    assert final["training"]["history"] == resumed.columns
    mine = weights(resumed.agent)
    assert all(torch.equal(mine[name], value) for name, value in final["state_dict"].items())


def test_another_algorithm_cannot_be_resumed(
    small_agent: Agent, items: list[Item], likes_cuts: RewardSource, tmp_path: Path
) -> None:
    trainer = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config(300))
    other = RLHFTrainer(small_agent, items, likes_cuts, tmp_path, config(300, "dpo"))
    with pytest.raises(CheckpointError, match="--algorithm"):
        other.restore(tmp_path / "x.pt", trainer.state())


def test_history_refuses_what_is_no_history(tmp_path: Path) -> None:
    row: dict[str, history.Value] = dict.fromkeys(history.REQUIRED, 1.0)
    columns: history.Columns = {}
    history.append(columns, {**row, "extra": float("nan")})
    assert columns["extra"] == [None]
    with pytest.raises(DataError, match="extra"):
        history.append(columns, row)
    with pytest.raises(DataError, match="policy_loss"):
        history.append({}, {k: v for k, v in row.items() if k != "policy_loss"})
    path = tmp_path / "history.json"
    history.save(path, columns)
    assert history.load(path) == columns
    for text, problem in (
        ("{", "cannot be read"),
        ("[]", "not a training history"),
        (json.dumps({**columns, "step": []}), "unequal"),
        (json.dumps({**columns, "step": ["x"]}), "no number"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=problem):
            history.load(path)
