"""The commands on small made-up songs: what they write, and how they refuse wrong arguments."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rlhf_core import evaluation, train_rlhf
from rlhf_core.audio import library
from rlhf_core.audio.library import load_library
from rlhf_core.checkpoints import load_checkpoint
from rlhf_core.editing.heuristic import PRESETS
from rlhf_core.errors import ConfigError
from rlhf_core.policy import generate, imitation
from rlhf_core.policy.agent import Agent, load_policy, save_policy
from rlhf_core.policy.arguments import build_parser, settings_of
from rlhf_core.policy.commands import log_file, start_logging
from rlhf_core.policy.dpo import DPOConfig
from rlhf_core.policy.ppo import PPOConfig
from rlhf_core.policy.trainer import TrainingConfig
from rlhf_core.reward.checkpoint import load_reward
from rlhf_core.runs import read_lines
from rlhf_core.train_rlhf import LearnedRewardConfig, RLHFTrainer
from rlhf_core.types import Passage
from tests.reward.judged import judged_rows, snapshot


def write_song(path: Path, seed: int, seconds: float = 24.0, rate: int = 22050) -> None:
    """Synthetic: clicks at 120 BPM over a chord that changes every two seconds."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    root = 110 * 2 ** (rng.integers(0, 12, int(seconds // 2) + 1) / 12)
    tone = 0.2 * np.sin(2 * np.pi * root[(time // 2).astype(int)] * time)
    click = 0.6 * np.exp(-(time % 0.5) * 60) * rng.standard_normal(len(time)) * 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (tone + click).clip(-0.99, 0.99), rate)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(2):
        write_song(folder / f"train/song{seed}.wav", seed)
    write_song(folder / "test/other.wav", 9)
    return folder


@pytest.fixture
def policy(small_agent: Agent, tmp_path: Path) -> Path:
    path = tmp_path / "policy.pt"
    save_policy(path, small_agent, step=0, episode=0)
    return path


def test_generate_writes_pairs_that_can_be_played(
    data_dir: Path, policy: Path, tmp_path: Path
) -> None:
    rows = {}
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        out = tmp_path / name
        argv = ["--data_dir", str(data_dir), "--policy", str(policy), "--policy_name", "policy_v1"]
        argv += ["--count", "3", "--seed", str(seed), "--output_dir", str(out)]
        assert generate.main(argv) == 0
        rows[name] = read_lines(out / "pairs.jsonl")
        assert json.loads((out / "status.json").read_text())["state"] == "finished"
    assert len(rows["a"]) == 3
    for row in rows["a"]:
        for side in (row["edit_a"], row["edit_b"], row["original"]):
            info = soundfile.info(side["audio_path"])
            assert info.frames / info.samplerate == pytest.approx(side["duration_s"])
            assert side["duration_s"] == pytest.approx(side["edl"]["duration_s"], abs=1e-3)
            assert len(side["peaks"]) == 400 and 0 <= min(side["peaks"]) <= max(side["peaks"]) <= 1
        assert row["regions_a"] and row["regions_b"]
        beats = row["passage"]["end_beat"] - row["passage"]["start_beat"]
        assert len(row["edit_a"]["actions"]) == len(row["edit_b"]["actions"]) == beats
        assert row["edit_a"]["edl"]["beats"] != row["edit_b"]["edl"]["beats"]
    ids = {name: [row["pair_id"] for row in made] for name, made in rows.items()}
    assert ids["a"] == ids["again"] and not set(ids["a"]) & set(ids["b"])
    assert len(set(ids["a"])) == 3


def test_imitation_command(data_dir: Path, tmp_path: Path) -> None:
    argv = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path), "--steps", "3"]
    assert imitation.main(argv) == 0
    agent = load_policy(tmp_path / "models/policy_final.pt")
    assert agent.feature_std.min() > 0 and not torch.equal(agent.feature_mean, torch.zeros(121))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["checkpoint"].endswith("policy_final.pt") and results["metrics"]["songs"] == 2


def test_dpo_on_a_snapshot_needs_no_reward_model_and_resumes(
    data_dir: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated votes: the shorter edit always wins."""
    pandas = pytest.importorskip("pandas")
    generated = tmp_path / "pairs"
    argv = ["--data_dir", str(data_dir), "--policy", str(policy), "--count", "6"]
    assert generate.main([*argv, "--output_dir", str(generated)]) == 0
    votes = [_vote(number, row) for number, row in enumerate(read_lines(generated / "pairs.jsonl"))]
    snapshot = tmp_path / "votes.parquet"
    pandas.DataFrame(votes).to_parquet(snapshot)
    monkeypatch.setattr(train_rlhf, "find_default_checkpoint", _none_found)
    base = ["--data_dir", str(data_dir), "--algorithm", "dpo", "--preferences", str(snapshot)]
    base += ["--n_steps", "200", "--output_dir", str(tmp_path / "run"), "--threads", "1"]
    assert train_rlhf.main([*base, "--policy", str(policy), "--total_steps", "400"]) == 2
    base.append("--include_simulated")
    assert train_rlhf.main([*base, "--policy", str(policy), "--total_steps", "400"]) == 0
    final = tmp_path / "run/models/policy_final.pt"
    first = read_lines(tmp_path / "run/metrics.jsonl")
    assert train_rlhf.main([*base, "--checkpoint", str(final), "--total_steps", "900"]) == 0
    second = read_lines(tmp_path / "run/metrics.jsonl")
    assert second[: len(first)] == first and len(second) > len(first)
    assert second[-1]["value_loss"] is None and second[-1]["learned_reward"] is None


def _none_found(folder: Path) -> tuple[Path, str]:
    from rlhf_core.errors import CheckpointError

    raise CheckpointError("no reward model here")


def _vote(number: int, row: dict) -> dict:  # type: ignore[type-arg]
    shorter = "a" if row["edit_a"]["duration_s"] < row["edit_b"]["duration_s"] else "b"
    return {
        "vote_id": f"v{number}", "pair_id": row["pair_id"], "song_id": row["song_id"],
        "annotator": "simulated", "simulated": True, "choice": shorter, "strength": 2,
        "pool": row["pool"], "start_beat": row["passage"]["start_beat"],
        "end_beat": row["passage"]["end_beat"], "actions_a": row["edit_a"]["actions"],
        "actions_b": row["edit_b"]["actions"], "policy_a": row["edit_a"]["policy"],
        "policy_b": row["edit_b"]["policy"], "b_first": False, "first_played": "a",
        "created_at": "2026-01-01T00:00:00Z", "split": "train",
    }  # fmt: skip


def started(out: Path, *more: str) -> argparse.Namespace:
    return build_parser().parse_args(["--data_dir", "x", "--output_dir", str(out), *more])


def test_old_outputs_are_renamed_not_overwritten(policy: Path, tmp_path: Path) -> None:
    """And a policy among them is found under its new name, to start from."""
    out = tmp_path / "run"
    reward = out / "models/reward_model_v8_long/reward_model_final.pt"
    final, log, events = (
        out / name
        for name in ("models/policy_final.pt", "logs/training.log", "logs/tensorboard/events.1")
    )
    for path in (final, log, events, reward):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(policy.read_bytes())
    here = started(out, "--checkpoint", str(out / "models/checkpoint_1.pt"))
    train_rlhf._make_room(here)
    assert final.is_file() and log.is_file() and events.is_file(), "it goes on with these"
    args = started(out, "--policy", str(final), "--reference", str(policy))
    train_rlhf._make_room(args)
    assert reward.is_file(), "what is no output of a training stays where it is"
    assert not final.exists() and not log.exists() and not events.exists()
    moved = sorted(path.name for path in out.rglob("*") if path.is_file() and path != reward)
    assert [name.split(".")[0] for name in moved] == ["events", "policy_final", "training"]
    assert args.policy != final and args.policy.read_bytes() == policy.read_bytes()
    assert args.reference == policy
    final.write_text("another training's")
    train_rlhf._make_room(started(out, "--checkpoint", str(tmp_path / "models/checkpoint_1.pt")))
    assert not final.exists(), "a training from elsewhere leaves this one's files, too"


def test_processes_beside_the_first_write_nowhere_and_find_the_same_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second process of torchrun; the training itself is in test_shares."""
    called: list[tuple[Path, Path | None]] = []

    @contextmanager
    def second(backend: str) -> Iterator[int]:
        yield 1

    def run(args: argparse.Namespace, home: Path | None = None) -> None:
        called.append((args.output_dir, home))

    monkeypatch.setattr(train_rlhf, "process_group", second)
    monkeypatch.setattr(train_rlhf, "run", run)
    assert train_rlhf.main(["--data_dir", "x", "--output_dir", str(tmp_path)]) == 0
    ((elsewhere, home),) = called
    assert home == tmp_path and elsewhere != tmp_path and not elsewhere.exists()


def test_resumed_by_the_command_from_cached_songs_it_is_bit_exact(
    data_dir: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole run analyses its songs on the way, the resumed one takes them from the cache."""
    base = ["--data_dir", str(data_dir), "--cache_dir", str(tmp_path / "cache"), "--n_steps", "100"]
    base += ["--total_steps", "360", "--save_interval", "100", "--edits", "2"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    argv = ["--policy", str(policy), "--output_dir", str(whole), "--seed", "3"]
    assert train_rlhf.main([*base, *argv]) == 0
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 3

    def never(path: Path) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(library, "read_audio", never)
    checkpoint = whole / "models/checkpoint_100.pt"
    assert load_checkpoint(checkpoint, "policy")["step"] < 360
    argv = ["--checkpoint", str(checkpoint), "--output_dir", str(resumed), "--tensorboard"]
    assert train_rlhf.main([*base, *argv]) == 0
    for name in ("policy_final", "policy_best"):
        one, other = (
            load_checkpoint(at / f"models/{name}.pt", "policy") for at in (whole, resumed)
        )
        assert one["step"] == other["step"]
        assert all(torch.equal(other["state_dict"][n], v) for n, v in one["state_dict"].items())
    histories = [(at / "logs/training_history.json").read_text() for at in (whole, resumed)]
    assert histories[0] == histories[1] and '"learned_raw"' in histories[0]
    (events,) = (resumed / "logs/tensorboard").iterdir()
    assert b"training/clamped_share" in events.read_bytes()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data_dir", "/nowhere/songs"], "/nowhere/songs"),
        (["--reward_model", "/nowhere/reward.pt"], "/nowhere/reward.pt"),
        (["--checkpoint", "{damaged}"], "damaged"),
        (["--checkpoint", "{policy}"], "--policy"),
        (["--policy", "/nowhere/policy.pt"], "/nowhere/policy.pt"),
        (["--policy", "{older}"], "made for features 'beat-features-0'"),
        (["--checkpoint", "{other}"], "made for other actions"),
        (["--device", "cuda:7"], "--device cpu"),
        (["--device", "abacus"], "not a device"),
        (["--total_steps", "0"], "positive"),
        (["--threads", "0"], "--threads"),
        (["--preferences", "/nowhere/votes.parquet"], "--algorithm dpo"),
        (["--clamp_reward", "1", "-1"], "clamp_reward"),
    ],
)
def test_wrong_arguments_exit_2_and_say_why(
    data_dir: Path,
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    message: str,
) -> None:
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(policy.read_bytes()[:2000])
    content = torch.load(policy, weights_only=True)
    older, other = tmp_path / "older.pt", tmp_path / "other.pt"
    torch.save(content | {"feature_version": "beat-features-0"}, older)
    torch.save(content | {"actions": ["KEEP", "CUT"]}, other)
    files = {"damaged": damaged, "policy": policy, "older": older, "other": other}
    extra = [item.format(**files) for item in extra]
    argv = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / "run")]
    if "--checkpoint" not in extra and "--policy" not in extra:
        argv += ["--policy", str(policy)]
    assert train_rlhf.main([*argv, *extra]) == 2
    error = capsys.readouterr().err
    assert "error:" in error and message in error


def test_unknown_flags_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (train_rlhf.main, generate.main, imitation.main, evaluation.main):
        with pytest.raises(SystemExit) as ended:
            main(["--nonsense"])
        assert ended.value.code == 2
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--data_dir", "--reward_model", "--checkpoint", "--total_steps", "--algorithm",
                 "--save_interval", "--device", "--log_level"):  # fmt: skip
        assert flag in text


def test_every_setting_has_a_flag_that_says_what_it_is() -> None:
    """And none is forgotten when a config gets a new field."""
    parser = build_parser()
    said = {action.dest: action.help or "" for action in parser._actions}
    elsewhere = {
        "checkpoint_path": "reward_model",
        "minibatch_episodes": "minibatch",
        "minibatch_pairs": "minibatch",
    }
    for config in (TrainingConfig, PPOConfig, DPOConfig, LearnedRewardConfig):
        for field in fields(config):
            assert elsewhere.get(field.name, field.name) in said, f"{config.__name__}.{field.name}"
    assert all(len(text) > 3 for text in said.values()), said
    given = parser.parse_args(["--data_dir", "x", "--bf16", "--no_group_baseline", "--lr", "0.1"])
    made = settings_of(given, None)
    assert made.training.bf16 and not made.ppo.group_baseline
    assert (made.ppo.lr, made.dpo.lr, made.ppo.epochs) == (0.1, 0.1, PPOConfig.epochs)


def test_out_of_gpu_memory_gets_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(args: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(train_rlhf, "run", full)
    monkeypatch.setattr(evaluation, "run", full)
    assert train_rlhf.main(["--data_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "--n_steps" in error and "--minibatch" in error and "--device cpu" in error
    assert evaluation.main(["--checkpoint", "x.pt", "--test_dir", str(tmp_path)]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_the_log_level_is_the_terminals_and_files_get_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, written = logging.getLogger("rlhf_core.policy.trainer"), {}
    try:
        for level in ("ERROR", "DEBUG"):
            start_logging(level)
            with log_file(tmp_path / level):
                logger.debug("every update")
                logger.info("every tenth")
            written[level] = (capsys.readouterr().err, (tmp_path / level).read_text())
    finally:
        start_logging("INFO")
    assert written["ERROR"][0] == "" and "every tenth" in written["ERROR"][1]
    assert all("every update" in text for text in written["DEBUG"])
    with pytest.raises(ConfigError, match="--log_level"):
        start_logging("LOUD")


def test_guide_names() -> None:
    config = LearnedRewardConfig()
    assert (config.learned_reward_weight, config.dense_reward_weight) == (0.8, 0.2)
    assert config.clamp_reward == (-10.0, 10.0)
    for name in ("train", "_collect_rollouts_with_learned_rewards", "save_training_history",
                 "load_training_history"):  # fmt: skip
        assert callable(getattr(RLHFTrainer, name))
    assert callable(load_reward)


def test_evaluation_by_withheld_votes(data_dir: Path, policy: Path, tmp_path: Path) -> None:
    """Simulated votes on the two training songs: one song's judge the other's reward."""
    songs = [song.state for song in load_library(data_dir)]
    votes = snapshot(
        tmp_path / "v.parquet", judged_rows(songs, "tight", 40, 0.5, 1, Passage(0, 32))
    )
    argv = ["--checkpoint", str(policy), "--parent", str(policy), "--test_dir", str(data_dir)]
    argv += ["--preferences", str(votes), "--data_dir", str(data_dir), "--include_simulated"]
    argv += ["--output_dir", str(tmp_path / "ev"), "--edits", "2", "--examples", "0"]
    assert evaluation.main(argv) == 0
    results = json.loads((tmp_path / "ev/results.json").read_text())
    others = {"parent", "keep_all", "random", *(f"heuristic_{name}" for name in PRESETS)}
    assert set(results["win_rates"]) == others == set(results["contenders"]) - {"policy"}
    for row in (*results["win_rates"].values(), results["contenders"]["policy"]["learned_reward"]):
        assert row["low"] <= row["mean"] <= row["high"]
    judge = results["judged_by"]
    assert judge["withheld_votes"] == 20 and judge["reward_model"].endswith("gate_trunk.pt")
    assert judge["seen_in_training"] is False, "the bootstrap has seen no vote"


def test_evaluation_without_a_reward_model(
    data_dir: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--checkpoint", str(policy), "--test_dir", str(data_dir), "--no_reward"]
    argv += ["--parent", str(policy), "--output_dir", str(tmp_path / "ev"), "--edits", "2"]
    argv += ["--examples", "1"]
    assert evaluation.main(argv) == 0
    results = json.loads((tmp_path / "ev/results.json").read_text())
    assert results["songs"] == 1, "data_dir/test is what is tested on"
    assert results["kl_to_parent"] == pytest.approx(0, abs=1e-6)
    assert results["contenders"]["keep_all"]["keep_ratio"] == 1
    assert results["contenders"]["keep_all"]["duration_ratio"] == pytest.approx(1)
    assert results["verdict"]["decision"] == "doubtful"
    told = capsys.readouterr().out
    assert "verdict: doubtful" in told
    lines = [line.split() for line in told.splitlines()]
    mine, parts = results["contenders"]["policy"], [w[1:] for w in lines if w[:1] == ["policy"]]
    assert parts[1] == [f"{value:.2f}" for value in mine["dense_components"].values()]
    assert parts[2] == [f"{v:.0%}" for n, v in mine["actions"].items() if n != "KEEP"]
    assert (tmp_path / "ev/evaluation.png").is_file() and (tmp_path / "ev/edits.png").is_file()
    (example,) = results["examples"]
    files = {name: soundfile.info(path) for name, path in example["files"].items()}
    assert {"original", "policy", "parent", "random", "heuristic_tight"} <= set(files)
    assert "keep_all" not in files
    start, end = example["passage"]
    assert files["original"].duration > 0.2 * (end - start), "a beat is longer than that"
    assert files["heuristic_very_tight"].duration < files["original"].duration
