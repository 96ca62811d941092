"""Every command of the guides is typed, in order, on a small library; steps and counts reduced.

The votes are this test's own (the shorter edit is preferred): nobody listened.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from guides import REPOSITORY, Typed, blocks, commands

from feedback_app.services import open_services

pytestmark = pytest.mark.long
SHORT = "--total_steps 200 --n_steps 64 --edits 2 --save_interval 64"
# What makes a command small enough, or its names those of this machine. First match by first match.
INSTEAD: tuple[tuple[str, str], ...] = (
    (r"--total_steps 200000", "--total_steps 400 --n_steps 64 --edits 2 --save_interval 64"),
    (r"--total_steps \d+( --save_interval \d+)?", SHORT),
    (r"(?<=--algorithm dpo)(?=.* --preferences)", f" {SHORT}"),
    (r"models/checkpoint_50000\.pt", "$(ls models/checkpoint_*.pt | head -1)"),
    (r"--total-steps \d+", "--total-steps 200"),
    (r"train-policy --algorithm (\w+)$", r"train-policy --algorithm \1 --total-steps 200"),
    (r"--count 50", "--count 8"),
    (r"--steps 1000", "--steps 4"),
    (r"(reward\.pretraining(?!.*--steps).*)$", r"\1 --pairs 40 --steps 4"),
    (r"(rlhf_core\.evaluation.*)$", r"\1 --edits 2 --max_passages 4 --examples 1"),
    (r"tail -f", "tail"),
    (r"preferences-parquet-1a2b3c4d5e6f\.zip", '"$(ls -d out/preferences-parquet-*/ | head -1)"'),
    (r"other-lab\.zip", '"$(ls -d out/preferences-parquet-*/ | head -1)"'),
    (r"/mnt/backups/backup-20260131-030000", '"$(ls -d backups/backup-* | head -1)"'),
    (r"/mnt/backups", "backups"),
    (r"/srv/audio-editor", "."),
    (r"/srv/restored", "../restored"),
)
SETTINGS = {
    "FIRST_PAIRS": 8, "IMITATION_STEPS": 10, "VERSION_EXAMPLES": 1, "AUTO_GENERATE": "false",
    "ASSIGN_SCORE": 0.0, "ASSIGN_RANDOM": 0.85, "PORT": 0, "TEST_SHARE": 0.34, "NICE": 0,
}  # fmt: skip


@dataclass
class Desk:
    """A home with music, and the folder in which somebody types."""

    home: Path
    here: Path
    environment: dict[str, str] = field(default_factory=dict)

    def type(self, typed: Typed) -> None:
        """Run one command as a shell would; AssertionError names it where it does not succeed."""
        text = typed.text
        for pattern, replacement in INSTEAD:
            text = re.sub(pattern, replacement, text)
        if typed.text.startswith("make "):
            self.done(typed, f"make -C {REPOSITORY} -n {text.removeprefix('make ')}")
        elif re.search(r"\bserve\b", text):
            self.serve(typed, text)
        elif "cuda" in text and not has_gpu():
            ended = self.run(typed, text)
            assert ended.returncode == 2, (typed.where, ended.stdout, ended.stderr)
            told = ended.stderr.strip().splitlines()[-1]
            assert told.startswith("error: ") and "cuda" in told, (typed.where, told)
        else:
            self.done(typed, text)

    def run(self, typed: Typed, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", typed.before + text],
            cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def done(self, typed: Typed, text: str) -> None:
        ended = self.run(typed, text)
        assert ended.returncode == 0, (
            typed.where,
            text,
            ended.stdout[-2000:],
            ended.stderr[-2000:],
        )

    def serve(self, typed: Typed, text: str) -> None:
        """Start the app, see it listen, ask it to end."""
        process = subprocess.Popen(
            ["bash", "-c", f"{typed.before}exec {text}"],
            cwd=self.here, env=self.environment | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "listening on http://" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert lines and "listening on" in lines[-1], (typed.where, "".join(lines))


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def cast_votes(workspace: Path) -> int:
    """Two made-up people vote on every pair without votes: votes.csv. They like short edits."""
    services = open_services(workspace)
    try:
        rows = ["pair_id,annotator,choice,strength"]
        for number, pair in enumerate(services.store.pairs()):
            a, b = (services.store.edit(pair[f"edit_{side}"])["duration_s"] for side in "ab")
            if services.store.votes_on(pair["pair_id"])["votes_a"] == 0:
                shorter, longer = ("a", "b") if a < b else ("b", "a")
                rows.append(f"{pair['pair_id']},ann,{shorter},2")
                rows.append(f"{pair['pair_id']},bob,{longer if number % 5 == 0 else shorter},1")
        (workspace / "votes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        services.operations.import_votes(str(workspace / "votes.csv"))
        return len(rows) - 1
    finally:
        services.close()


def desk_in(root: Path, folder: str) -> Desk:
    here = root / folder
    here.mkdir(parents=True, exist_ok=True)
    (here / ".venv").symlink_to(sys.prefix)
    chosen = {f"FEEDBACK_APP_{name}": str(value) for name, value in SETTINGS.items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | chosen | {"HOME": str(root), "PATH": path, "OMP_NUM_THREADS": "1"}
    return Desk(root, here, environment)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A workspace in which somebody has typed what the README says, once round the loop."""
    root = tmp_path_factory.mktemp("guides")
    desk = desk_in(root, "workspace")
    music = root / "Music"
    argv = [sys.executable, "-m", "rlhf_core.audio.demo_songs", str(music / "album")]
    subprocess.run([*argv, "--count", "4"], check=True, env=desk.environment)
    for song in (music / "album").glob("*.flac"):
        (music / song.name).symlink_to(song)
    votes = 0
    for typed in commands("README.md"):
        if "retrain-reward" in typed.text:
            votes = cast_votes(desk.here)
            assert votes >= 20
        desk.type(typed)
    assert list((desk.here / "datasets").glob("preferences-parquet-*/preferences.parquet"))
    yield desk


def test_the_readme_goes_once_round(studio: Desk) -> None:
    services = open_services(studio.here)
    try:
        assert services.store.active_policy()["version"] == "policy_v2"
        assert services.store.active_reward_model()["version"] == "reward_v1"
    finally:
        services.close()


def test_the_training_guide(studio: Desk) -> None:
    desk = desk_in(studio.home, "training")
    snapshot = next((studio.here / "snapshots").glob("*.parquet"))
    copies = {
        "snapshots/SNAPSHOT.parquet": snapshot,
        "models/reward_v9.pt": next((studio.here / "models" / "reward_v1").glob("*.pt")),
        "models/policy_v1.pt": next((studio.here / "models" / "policy_v1").glob("*.pt")),
    }
    for name, source in copies.items():
        (desk.here / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.here / name).write_bytes(source.read_bytes())
    tests = desk.here / "training_data" / "test"
    tests.mkdir(parents=True)
    for song in sorted((studio.home / "Music" / "album").glob("*.flac"))[:2]:
        (tests / song.name).symlink_to(song)
    for typed in commands("docs/training-guide.md"):
        desk.type(typed)
    for block in blocks("docs/training-guide.md"):
        if block.language == "python":
            desk.done(
                Typed(block.guide, block.line, "the Python here"),
                f"python - <<'END'\n{block.text}END",
            )
    assert (desk.here / "models" / "policy_final.pt").is_file()


def test_the_researchers_guide(studio: Desk) -> None:
    desk = Desk(studio.home, studio.here, studio.environment)
    pairs = Typed("", 0, "python -m feedback_app pairs generate --count 6 --versus policy_v1")
    desk.done(pairs, pairs.text)
    assert cast_votes(desk.here) > 0  # a second round, for the filters
    made: dict[str, Callable[[], int]] = {"votes import votes.csv": lambda: cast_votes(desk.here)}
    for typed in commands("docs/researchers.md"):
        for part, make in made.items():
            if part in typed.text:
                make()
        desk.type(typed)


def test_the_guide_to_operations(studio: Desk) -> None:
    for typed in commands("docs/operations.md"):
        studio.type(typed)
    assert (studio.home / "restored" / "preferences.duckdb").is_file()
