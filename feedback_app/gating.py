"""What keeps a policy's judge apart from its teacher: votes that training does not see.

A retraining writes a second reward that has not seen some of the votes (`rlhf_core.train_reward`,
models/reward_model_training.pt). Policies are trained on that one; the evaluation then fits a
reward of its own to the votes that were withheld. Where there are too few votes to withhold any,
one reward does both, and the version's card says so.
"""

from __future__ import annotations

from feedback_app.context import Context
from feedback_app.database import Row
from rlhf_core.reward.withholding import WITHHELD_SHARE

TRAINING_REWARD = "reward_model_training.pt"


def reward_to_train_on(settings: Row, context: Context, reward: Row) -> str:
    """Path of the reward that a policy learns from; notes what it has not seen."""
    known = context.workspace.resolve(reward["path"])
    apart = known.with_name(TRAINING_REWARD)
    if not apart.is_file() or reward["snapshot"] is None:
        return str(known)
    settings["withheld"] = {
        "snapshot": reward["snapshot"],
        "reward_model": reward["version"],
        "simulated": bool((reward["metrics"] or {}).get("simulated")),
    }
    return str(apart)


def votes_to_train_on(settings: Row) -> list[str]:
    """Arguments that keep DPO off the votes that its gate needs (those of the same snapshot)."""
    if "withheld" not in settings:
        return []
    settings["withheld"]["snapshot"] = settings["snapshot"]
    settings["withheld"]["simulated"] = bool(settings.get("include_simulated"))
    return ["--withheld_share", f"{WITHHELD_SHARE:g}"]


def withheld_votes(settings: Row, context: Context, policy: Row) -> list[str]:
    """Arguments that let an evaluation judge by the votes withheld from this policy's training."""
    run = context.store.run(policy["run_id"]) if policy["run_id"] else None
    made = (run or {}).get("settings", {}).get("withheld")
    if made is None:
        return []
    snapshot = context.workspace.snapshots / f"{made['snapshot']}.parquet"
    reward = context.workspace.resolve(context.store.reward_model(made["reward_model"])["path"])
    trained_on = reward.with_name(TRAINING_REWARD)
    if not (snapshot.is_file() and trained_on.is_file()):
        return []
    settings["withheld"] = made
    return [
        "--preferences", str(snapshot), "--data_dir", str(context.folder / "data"),
        "--reward_model", str(trained_on), *(["--include_simulated"] if made["simulated"] else []),
    ]  # fmt: skip
