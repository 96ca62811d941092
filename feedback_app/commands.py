"""The command of each kind of run: exactly what a researcher would type, built when it starts.

Settings of a run are plain values kept in the database; what they leave open (the active policy,
the newest reward model, the votes so far) is decided at the moment of the start, and written back
into the settings so that the run can be told and repeated.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from feedback_app import gating
from feedback_app.context import Context, link_songs
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.exchange import query_from
from feedback_app.snapshots import write_snapshot
from feedback_app.store import Store
from rlhf_core.files import atomic_path, write_json
from rlhf_core.manner import manner_of

KINDS = (
    "analyse", "bootstrap", "imitation", "generate", "rank",
    "train-reward", "train-policy", "evaluate", "examples", "simulate", "judge", "export",
)  # fmt: skip


def build(kind: str, settings: Row, context: Context) -> tuple[list[str], Row]:
    """The argv of a run and its settings with everything decided."""
    if kind not in BUILDERS:
        raise InvalidError(f"unknown kind of run {kind!r}; known: {', '.join(KINDS)}")
    return BUILDERS[kind](dict(settings), context)


def policy_of(settings: Row, store: Store, name: str = "policy") -> Row:
    """The policy version that a run means: named, made earlier in its chain, or the active one."""
    wanted = settings.get(name) or settings.get("chain", {}).get("policy")
    found = store.policy(wanted) if wanted else store.active_policy()
    if found is None:
        raise ConflictError("there is no active policy yet; prepare the workspace first")
    return found


def reward_of(settings: Row, store: Store) -> Row | None:
    """The reward model that a run means; None where there is none yet."""
    wanted = settings.get("reward_model") or settings.get("chain", {}).get("reward_model")
    return store.reward_model(wanted) if wanted else store.active_reward_model()


def _seed(settings: Row) -> int:
    """The given seed, or a new one that is written down."""
    if settings.get("seed") is None:
        settings["seed"] = secrets.randbelow(2**31)
    return int(settings["seed"])


def _analyse(settings: Row, context: Context) -> tuple[list[str], Row]:
    files = [context.path(context.store.song(song_id)["path"]) for song_id in settings["songs"]]
    argv = [
        *context.module("precache_stems"), *files, "--cache_dir", str(context.workspace.cache),
        "--workers", str(settings.get("workers", 1)), "--output_dir", str(context.folder),
    ]  # fmt: skip
    return argv, settings


def _bootstrap(settings: Row, context: Context) -> tuple[list[str], Row]:
    limit = settings.get("time_limit_s", context.settings.bootstrap_time_limit_s)
    pairs = settings.get("pairs", context.settings.bootstrap_pairs)
    extra = ["--pairs", str(pairs), "--time_limit", str(limit)]
    for name in ("steps", "demo_songs"):
        if settings.get(name) is not None:
            extra += [f"--{name}", str(settings[name])]
    argv = [*context.module("reward.pretraining"), *context.data(), *context.threads(), *extra]
    return [*argv, "--seed", str(_seed(settings))], settings


def _imitation(settings: Row, context: Context) -> tuple[list[str], Row]:
    argv = [*context.module("policy.imitation"), *context.data(), *context.threads()]
    if context.settings.imitation_steps:
        argv += ["--steps", str(context.settings.imitation_steps)]
    return [*argv, "--seed", str(_seed(settings))], settings


def _generate(settings: Row, context: Context) -> tuple[list[str], Row]:
    policy = policy_of(settings, context.store)
    settings["policy"] = policy["version"]
    argv = [
        *context.module("policy.generate"), *context.data(), *context.threads(),
        "--policy", context.path(policy["path"]), "--policy_name", policy["version"],
        "--count", str(settings["count"]), "--seed", str(_seed(settings)),
    ]  # fmt: skip
    if settings.get("versus"):
        other = context.store.policy(settings["versus"])
        argv += ["--versus", context.path(other["path"]), "--versus_name", other["version"]]
    reward = reward_of(settings, context.store)
    if reward is not None:
        settings["reward_model"] = reward["version"]
        argv += ["--reward_model", context.path(reward["path"])]
    app = context.settings
    chosen = app.share_chosen if reward is not None else 0.0
    cross = app.share_cross if settings.get("versus") else 0.0
    gold = 0.0 if settings.get("chain", {}).get("dry_run") else app.gold_rate
    shares = {"broad": app.share_broad, "chosen": chosen, "cross": cross, "gold": gold}
    if settings.get("only_versus"):
        shares |= {"broad": 0.0, "chosen": 0.0, "cross": 1.0 - gold}
    for name, share in shares.items():
        argv += [f"--share_{name}", f"{share:g}"]
    return argv, settings


def _rank(settings: Row, context: Context) -> tuple[list[str], Row]:
    reward = reward_of(settings, context.store)
    if reward is None:
        raise ConflictError("there is no reward model yet that could rank pairs")
    settings["reward_model"] = reward["version"]
    waiting = context.store.waiting_pairs(context.settings.votes_per_pair)
    settings["pairs"] = len(waiting)
    path = context.folder / "waiting.jsonl"
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in waiting), encoding="utf-8")
    argv = [
        *context.module("rank_pairs"), "--pairs", str(path), *context.data(), *context.threads(),
        "--reward_model", context.path(reward["path"]),
    ]  # fmt: skip
    return argv, settings


def _snapshot(settings: Row, context: Context) -> str:
    dry_run = settings.get("chain", {}).get("dry_run")
    simulated = bool(settings.get("include_simulated"))
    made = write_snapshot(context.store, context.workspace, simulated, dry_run)
    if made.rows == 0:
        raise ConflictError("there are no votes to learn from yet; listen to some pairs first")
    settings["snapshot"], settings["n_votes"] = made.sha256, made.rows
    return str(made.path)


def _train_reward(settings: Row, context: Context) -> tuple[list[str], Row]:
    argv = [
        *context.module("train_reward"), "--preferences", _snapshot(settings, context),
        *context.data(), "--seed", str(_seed(settings)),
    ]  # fmt: skip
    bootstrap = context.store.bootstrap_reward_model()
    if bootstrap is not None:
        argv += ["--reward_model", context.path(bootstrap["path"])]
    argv += _reward_parent(settings, context)
    return argv + (["--include_simulated"] if settings.get("include_simulated") else []), settings


def _reward_parent(settings: Row, context: Context) -> list[str]:
    """The version before and its votes: what the new one has to beat. Nothing after a bootstrap."""
    parent = reward_of(settings, context.store)
    if parent is None or parent["snapshot"] is None:
        return []
    settings["parent_reward_model"] = parent["version"]
    argv = ["--parent", context.path(parent["path"])]
    votes = context.workspace.snapshots / f"{parent['snapshot']}.parquet"
    return argv + (["--parent_preferences", str(votes)] if votes.is_file() else [])


def _train_policy(settings: Row, context: Context) -> tuple[list[str], Row]:
    parent = policy_of(settings, context.store, "parent")
    reward = reward_of(settings, context.store)
    settings["parent"] = parent["version"]
    argv = [
        *context.module("train_rlhf"), *context.data(), *context.threads(),
        "--algorithm", settings["algorithm"], "--total_steps", str(settings["total_steps"]),
        "--learned_reward_weight", f"{settings['learned_weight']:g}",
        "--dense_reward_weight", f"{settings['dense_weight']:g}",
        "--device", settings["device"], "--seed", str(_seed(settings)),
        "--save_interval", str(max(1000, min(10000, settings["total_steps"] // 4))),
    ]  # fmt: skip
    if reward is not None:
        settings["reward_model"] = reward["version"]
        argv += ["--reward_model", gating.reward_to_train_on(settings, context, reward)]
    if settings.get("on_votes"):
        argv += ["--preferences", _snapshot(settings, context)]
        argv += gating.votes_to_train_on(settings)
        argv += ["--include_simulated"] if settings.get("include_simulated") else []
    if settings.get("checkpoint"):  # resumed: it carries its weights and its reference
        return [*argv, "--checkpoint", context.path(settings["checkpoint"])], settings
    return [*argv, "--policy", context.path(parent["path"])], settings


def _evaluate(settings: Row, context: Context) -> tuple[list[str], Row]:
    policy = policy_of(settings, context.store)
    argv = [
        *context.module("evaluation"), "--checkpoint", context.path(policy["path"]),
        *_unseen(settings, context), *context.threads(),
        "--examples", "0",  # a run of their own renders them, for the version's card
    ]  # fmt: skip
    if policy["parent"]:
        argv += ["--parent", context.path(context.store.policy(policy["parent"])["path"])]
    withheld = gating.withheld_votes(settings, context, policy)
    if withheld:
        return [*argv, *withheld], settings
    reward = reward_of(settings, context.store)
    if reward is not None:
        argv += ["--reward_model", context.path(reward["path"])]
    return argv, settings


def _manner(settings: Row) -> list[str]:
    """How a judge answers, as options; all are written out, so that the run can be told."""
    manner = asdict(manner_of(settings))
    return [text for name, value in manner.items() for text in (f"--{name}", f"{value:g}")]


def _simulate(settings: Row, context: Context) -> tuple[list[str], Row]:
    pairs = context.workspace.runs / settings["chain"]["pairs_run"] / "pairs.jsonl"
    argv = [
        *context.module("simulate_votes"), "--pairs", str(pairs), *context.data(),
        "--judge", settings["judge"], *_manner(settings),
        "--seed", str(_seed(settings)),
    ]  # fmt: skip
    return argv, settings


def _judge(settings: Row, context: Context) -> tuple[list[str], Row]:
    policy = policy_of(settings, context.store)
    argv = [
        *context.module("judge_policy"), "--judge", settings["judge"],
        "--checkpoint", context.path(policy["path"]),
        "--parent", context.path(context.store.policy(policy["parent"])["path"]),
        "--first", context.path(context.store.policy(settings["chain"]["first"])["path"]),
        *_unseen(settings, context), *context.threads(), "--seed", str(_seed(settings)),
    ]  # fmt: skip
    return argv, settings


def _examples(settings: Row, context: Context) -> tuple[list[str], Row]:
    policy = policy_of(settings, context.store)
    other = context.store.policy(settings.get("versus") or policy["parent"])
    settings["policy"], settings["versus"] = policy["version"], other["version"]
    argv = [*context.module("policy.generate"), *context.data(), *context.threads()]
    test = (context.folder / "data" / "test").is_dir()
    settings["made_on"] = "test songs" if test else "training songs"
    return [
        *argv, "--split", "test" if test else "train",
        "--policy", context.path(policy["path"]), "--policy_name", policy["version"],
        "--versus", context.path(other["path"]), "--versus_name", other["version"],
        "--count", str(settings["count"]), "--seed", str(_seed(settings)),
        "--share_cross", "1", "--share_broad", "0", "--share_chosen", "0", "--share_gold", "0",
    ], settings  # fmt: skip


def _unseen(settings: Row, context: Context) -> list[str]:
    """The held-out songs, else the training songs, which is written down."""
    link_songs(context.store, context.workspace, context.folder / "data")
    test = context.folder / "data" / "test"
    settings["evaluated_on"] = "test songs" if test.is_dir() else "training songs"
    return [
        "--test_dir", str(test if test.is_dir() else context.folder / "data" / "train"),
        "--cache_dir", str(context.workspace.cache), "--output_dir", str(context.folder),
    ]  # fmt: skip


def _export(settings: Row, context: Context) -> tuple[list[str], Row]:
    """No training: it runs here, whatever the launcher."""
    query, record = context.folder / "query.json", context.folder / "record.parquet"
    write_json(query, settings["query"])
    settings["n_votes"] = context.store.copy_record(record, query_from(settings["query"]))
    argv = [
        sys.executable, "-m", "feedback_app.exchange", "--record", str(record),
        "--query", str(query), "--workspace", str(context.workspace.root),
        "--destination", settings["destination"], "--output_dir", str(context.folder),
    ]  # fmt: skip
    here = settings["destination"] == str(context.workspace.exports)
    return argv + (["--zip"] if here else []), settings


Builder = Callable[[dict[str, Any], Context], tuple[list[str], Row]]
BUILDERS: dict[str, Builder] = {
    "analyse": _analyse,
    "bootstrap": _bootstrap,
    "imitation": _imitation,
    "generate": _generate,
    "rank": _rank,
    "train-reward": _train_reward,
    "train-policy": _train_policy,
    "evaluate": _evaluate,
    "examples": _examples,
    "judge": _judge,
    "simulate": _simulate,
    "export": _export,
}
