from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_core.errors import DataError
from rlhf_core.files import read_json
from rlhf_core.runs import RunFolder, read_lines, running


def test_a_run_tells_its_story(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", "train-reward", {"seed": 3})
    with running(run):
        run.metric(step=1, loss=0.5)
        run.metric(step=2, loss=float("nan"))
        run.finish({"checkpoint": "models/x.pt"})
    assert read_json(run.path / "config.json")["settings"] == {"seed": 3}
    assert read_lines(run.path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": None},
    ]
    status = read_json(run.path / "status.json")
    assert (status["state"], status["progress"], status["error"]) == ("finished", 1.0, None)


def test_a_failure_is_told_in_words(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "train-reward")
    with pytest.raises(DataError), running(run):
        raise DataError("no votes: cast some first")
    status = read_json(tmp_path / "status.json")
    assert (status["state"], status["error"]) == ("failed", "no votes: cast some first")
    assert not (tmp_path / "results.json").exists()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_terminating_a_run_marks_it_cancelled(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from rlhf_core.runs import RunFolder, running\n"
        "run = RunFolder(Path(sys.argv[1]), 'generate')\n"
        "with running(run):\n"
        "    run.status('running', 0.25, 'working'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) != 0
    status = read_json(tmp_path / "status.json")
    assert (status["state"], status["progress"]) == ("cancelled", 0.25)


def test_the_eta_follows_from_progress(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "generate")
    run.started = time.time() - 30.0
    run.status("running", 0.75, "three quarters")
    assert read_json(tmp_path / "status.json")["eta_s"] == pytest.approx(10.0, abs=0.5)
