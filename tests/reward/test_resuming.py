"""A stopped bootstrap goes on to the very same bits, however it was stopped."""

from __future__ import annotations

import io
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tqdm import tqdm

from rlhf_core.checkpoints import load_checkpoint
from rlhf_core.errors import CheckpointError, ConfigError
from rlhf_core.reward import pretraining
from rlhf_core.reward.checkpoint import KIND
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.pretraining import PROGRESS, PretrainingSettings, bootstrap
from rlhf_core.reward.resuming import KIND as PROGRESS_KIND
from rlhf_core.runs import RunFolder
from rlhf_core.types import AudioState

SETTINGS = PretrainingSettings(
    pairs=72, steps=14, time_limit=None, windows_per_step=2, reference_windows=4, held_out_windows=2
)
CONFIG = RewardModelConfig(d_model=32, n_layers=1, n_heads=2, ff=32, embedding=32)
EVERY = 3
WORKER = """
import pickle, sys, time
from pathlib import Path
import torch
from rlhf_core.reward.pretraining import bootstrap
torch.set_num_threads(1)
songs, settings, config, every = pickle.load(open(sys.argv[1], "rb"))
slowly = lambda done, message: time.sleep(0.3) if message.startswith("step") else None
bootstrap(songs, Path(sys.argv[2]), settings, config=config, keep_every=every, report=slowly)
"""


def make(
    songs: list[AudioState],
    path: Path,
    settings: PretrainingSettings = SETTINGS,
    report: Callable[[float, str], None] = lambda done, message: None,
    resume: bool | None = None,
) -> dict[str, torch.Tensor]:
    """All tensors of a bootstrap, by name."""
    torch.set_num_threads(1)
    bootstrap(
        songs[:3], path, settings, config=CONFIG, keep_every=EVERY, report=report, resume=resume
    )
    content = load_checkpoint(path, KIND)
    parts = {**content["model"], **content["posterior"], **content["prior"]}
    parts["reference"] = content["reference"]["embeddings"]
    return {name: value for name, value in parts.items() if isinstance(value, torch.Tensor)}


@pytest.fixture(scope="module")
def whole(
    songs: list[AudioState], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """What a run that nobody stops makes."""
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    made = make(songs, path)
    assert not (path.parent / PROGRESS).exists()  # nothing is left to go on with
    return made


def stop_at(step: int) -> Callable[[float, str], None]:
    def report(done: float, message: str) -> None:
        if message.startswith(f"step {step}"):
            raise KeyboardInterrupt

    return report


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_stop_changes_no_bit(
    songs: list[AudioState], whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    for stopped, kept in ((5, 3), (10, 9)):  # twice, and neither at a step that was kept
        with pytest.raises(KeyboardInterrupt):
            make(songs, path, report=stop_at(stopped))
        assert load_checkpoint(tmp_path / PROGRESS, PROGRESS_KIND)["step"] == kept
        assert not path.exists()
    said: list[str] = []
    made = make(songs, path, report=lambda done, message: said.append(message), resume=True)
    assert same(made, whole)
    assert not any(message.startswith("step 5") for message in said)  # it did go on


def test_a_kill_changes_no_bit(
    songs: list[AudioState], whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    work, progress = tmp_path / "work.pkl", tmp_path / PROGRESS
    work.write_bytes(pickle.dumps((songs[:3], SETTINGS, CONFIG, EVERY)))
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(work), str(tmp_path / "m.pt")])
    while not progress.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "m.pt").exists()
    assert same(make(songs, tmp_path / "m.pt", resume=True), whole)


def test_only_the_same_run_is_taken_up(songs: list[AudioState], tmp_path: Path) -> None:
    path, progress = tmp_path / "model.pt", tmp_path / PROGRESS
    with pytest.raises(ConfigError, match="nothing to resume"):
        make(songs, path, resume=True)
    with pytest.raises(KeyboardInterrupt):
        make(songs, path, report=stop_at(5))
    other = replace(SETTINGS, seed=1)
    with pytest.raises(ConfigError, match="other settings or songs"):
        make(songs, path, other, resume=True)
    with pytest.raises(ConfigError, match="other settings or songs"):
        make(songs[1:], path, resume=True)
    with pytest.raises(KeyboardInterrupt):
        make(songs, path, other, report=stop_at(5))  # not asked to resume: it starts anew
    assert len(list(tmp_path.glob("bootstrap_progress.*.pt"))) == 1  # the other one set aside
    progress.write_bytes(progress.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        make(songs, path, other)
    fresh = make(songs, path, other, resume=False)
    assert not same(fresh, make(songs, path, replace(SETTINGS, seed=2)))


@dataclass(frozen=True)
class Small(PretrainingSettings):
    """The command's settings, with less to measure on."""

    reference_windows: int = 4
    held_out_windows: int = 2


def test_ctrl_c_says_how_to_go_on(
    songs: list[AudioState],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [SimpleNamespace(state=song) for song in songs[:3]]
    monkeypatch.setattr(pretraining, "songs_with_demo", lambda *_: found)
    monkeypatch.setattr(pretraining, "PretrainingSettings", Small)
    real, stop_when = RunFolder.progress, [""]

    def progress(run: RunFolder, done: float, said: str) -> None:
        if stop_when[0] and said.startswith(stop_when[0]):
            raise KeyboardInterrupt
        real(run, done, said)

    monkeypatch.setattr(RunFolder, "progress", progress)
    screen = io.StringIO()
    shown = partial(tqdm, file=screen)
    monkeypatch.setattr(pretraining, "tqdm", lambda *a, **k: shown(*a, **k | {"disable": False}))
    argv = [
        *("--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "run"), "--pairs", "24"),
        *("--steps", "6", "--time_limit", "0", "--windows_per_step", "1", "--keep_every", "2"),
    ]
    for stop_when[0], words in (
        ("drawing", "the same command starts it anew"),
        ("step 5", f"the same command goes on from what is kept in {tmp_path}"),
    ):
        assert pretraining.main(argv) == 130
        assert words in capsys.readouterr().err
    stop_when[0] = ""
    assert pretraining.main([*argv, "--resume"]) == 0
    assert "6 steps" in capsys.readouterr().out
    assert "100%" in screen.getvalue() and "step 5" in screen.getvalue()  # the progress bar
    assert pretraining.main([*argv, "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
