"""Wall time of 100,000 PPO steps by `train_rlhf`, learned reward included (limit: 120 s).

    python benchmarks/ppo_steps.py SONGS_FOLDER [--reward_model PATH] [--total_steps 100000]

Takes the audio files of a folder (those long enough), analyses them beforehand, makes a small
bootstrap reward model where none is given, then runs the very command that a person would type
and prints its wall time against the limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlhf_core.audio.library import find_songs
from rlhf_core.files import read_json

LIMIT_S = 120.0
BOOTSTRAP = Path("models/reward_model_v8_long/reward_model_final.pt")


def run(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", type=Path)
    parser.add_argument("--reward_model", type=Path)
    parser.add_argument("--total_steps", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "data/train").mkdir(parents=True)
        for song in find_songs(args.songs):
            (work / "data/train" / song.name).symlink_to(song.resolve())
        data = ["--data_dir", str(work / "data")]
        run("rlhf_core.precache_stems", str(work / "data"))
        reward = args.reward_model or work / "bootstrap" / BOOTSTRAP
        if args.reward_model is None:
            bootstrap = ["--output_dir", str(work / "bootstrap")]
            run("rlhf_core.reward.pretraining", *data, *bootstrap)
        command = ["rlhf_core.train_rlhf", *data, "--reward_model", str(reward)]
        command += ["--total_steps", str(args.total_steps), "--output_dir", str(work / "run")]
        spent = run(*command)
        history = read_json(work / "run/logs/training_history.json")
    print(f"steps {history['step'][-1]}, updates {len(history['step'])}")
    for key in ("total_reward", "learned_reward", "dense_reward"):
        print(f"{key}: first {history[key][0]:.3f}, last {history[key][-1]:.3f}")
    print(f"wall {spent:.1f} s = {spent / LIMIT_S:.2f} of the limit of {LIMIT_S:.0f} s")


if __name__ == "__main__":
    main()
