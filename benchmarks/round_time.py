"""What a round computes, command by command: fit, 40,960 PPO steps, gate, 50 new rendered pairs.

    python benchmarks/round_time.py --data_dir SONGS --test_dir OTHER_SONGS --round ROUND.json \
        --policy PARENT.pt [--gate_trunk CKPT]

ROUND.json is a round of `loop.py`; its simulated votes are written as a snapshot. The commands are
those that the app starts; CPU seconds are theirs, the start of Python and torch included (about two
seconds each). Wall time is printed beside them: gate and pairs use two cores, and on a machine with
other work it says little.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas

from rlhf_core.files import read_json

BAR_S = 60.0


def snapshot(rows: list[dict], path: Path) -> None:  # type: ignore[type-arg]
    """The simulated votes of a round as the app's Parquet snapshot."""
    pandas.DataFrame(
        {
            "vote_id": row["vote_id"], "pair_id": row["vote_id"], "song_id": row["song_id"],
            "annotator": "judge", "simulated": True, "choice": row["choice"],
            "strength": row["strength"], "pool": row["pool"],
            "start_beat": row["passage"][0], "end_beat": row["passage"][1],
            "actions_a": row["actions"][0], "actions_b": row["actions"][1],
            "policy_a": "parent", "policy_b": "parent", "b_first": row["b_first"],
            "first_played": None, "created_at": "2026-01-01T00:00:00Z", "split": "train",
        }
        for row in rows
    ).to_parquet(path)  # fmt: skip


def timed(name: str, module: str, *argv: str) -> tuple[float, float]:
    """CPU and wall seconds of a command; its output is shown when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *argv], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:12s} {cpu:6.1f} s CPU  {wall:6.1f} s wall", flush=True)
    return cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--data_dir", "--test_dir", "--round", "--policy"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--gate_trunk", type=Path)
    parser.add_argument("--steps", type=int, default=40_960)
    parser.add_argument("--pairs", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        votes, data = out / "votes.parquet", ["--data_dir", str(args.data_dir)]
        snapshot(read_json(args.round)["votes"], votes)
        given = [*data, "--preferences", str(votes), "--include_simulated"]
        reward = str(out / "reward/models/reward_model_final.pt")
        policy = str(out / "policy/models/policy_best.pt")
        trunk = ["--gate_trunk", str(args.gate_trunk)] if args.gate_trunk else []
        total = [
            timed("fit", "rlhf_core.train_reward", *given, "--output_dir", str(out / "reward")),
            timed(
                "PPO", "rlhf_core.train_rlhf", *data, "--policy", str(args.policy),
                "--reward_model", reward, "--total_steps", str(args.steps),
                "--output_dir", str(out / "policy"),
            ),
            timed(
                "gate", "rlhf_core.evaluation", *given, "--checkpoint", policy,
                "--parent", str(args.policy), "--test_dir", str(args.test_dir), *trunk,
                "--output_dir", str(out / "gate"),
            ),
            timed(
                f"{args.pairs} pairs", "rlhf_core.policy.generate", *data, "--policy", policy,
                "--policy_name", "new", "--reward_model", reward, "--count", str(args.pairs),
                "--output_dir", str(out / "pairs"),
            ),
        ]  # fmt: skip
    cpu, wall = (sum(part) for part in zip(*total, strict=True))
    load = os.getloadavg()[0]
    said = {name: "met" if value < BAR_S else "missed" for name, value in (("w", wall), ("c", cpu))}
    print(
        f"{'a round':12s} {cpu:6.1f} s CPU  {wall:6.1f} s wall (load {load:.1f} on "
        f"{os.cpu_count()} cores); bar {BAR_S:.0f} s: {said['w']} by wall time, {said['c']} by CPU "
        "seconds, which one core would take"
    )


if __name__ == "__main__":
    main()
