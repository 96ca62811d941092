"""Fifty annotators for ten minutes with a training beside them: do votes stay quick, memory flat?

    python benchmarks/load.py [--minutes 10] [--workspace DEMO] [--without-training]

A demo workspace is made (or a copy of DEMO taken), pairs and people of `benchmarks/votes.py` are
put in, the app is started as always, and `train_policy` (PPO on the demo songs) is asked of it as
the button does; when one training has finished the next one starts. The people are simulated, take
about a second each (50 votes/s in all), and send their votes over HTTP on the same machine. Told
per minute: votes/s, p50, p95, p99 and worst of a vote's POST, memory (RSS) of the app, and the
processors that the app and the training had. Bars: p95 of all < 250 ms; RSS grows by less than
1 MB a minute in the second half (a line fitted to a sample a second).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import votes

BAR_MS, BAR_MB_A_MINUTE = 250.0, 1.0
STEPS = 200_000
TICK = os.sysconf("SC_CLK_TCK")


def workspace(root: Path, given: Path | None) -> list[str]:
    """A demo workspace whose pairs are the benchmark's; the session tokens of its people."""
    from feedback_app.demo import make_ready
    from feedback_app.services import open_services

    if given is not None:
        shutil.copytree(given, root, symlinks=True)
        (root / "app.lock").unlink(missing_ok=True)
    with closing(open_services(root)) as services:
        make_ready(services)
    tokens = votes.fill(root)
    with closing(open_services(root, auto_generate=False)) as services:
        # only the benchmark's pairs are given; its song has no file that a training could read
        services.store.database.execute("UPDATE pairs SET retired = true WHERE run_id <> 'made'")
        services.store.database.execute("UPDATE songs SET status = 'removed' WHERE song_id = 's'")
    return tokens


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the app has ended")


def cpu_s(pid: int | None) -> float:
    """Processor seconds of a process so far; 0 where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(stat[11]) + int(stat[12])) / TICK


@dataclass
class Watch:
    """Looks at the app's memory every second, and keeps a training going."""

    root: Path
    training: bool
    stop: threading.Event = field(default_factory=threading.Event)
    memory: list[tuple[float, float]] = field(default_factory=list)  # (seconds, MB)
    runs: list[dict[str, Any]] = field(default_factory=list)
    pid: int = 0

    def __post_init__(self) -> None:
        from feedback_app.client import Remote
        from feedback_app.workspace import Workspace

        holder = Workspace(self.root).holder()
        assert holder is not None
        self.pid, self._caller = holder.pid, Remote(holder)
        self._started = time.monotonic()
        self._seed = 0

    def run(self) -> None:
        while not self.stop.wait(1.0):
            self.memory.append((time.monotonic() - self._started, rss_mb(self.pid)))
            if self.training and len(self.memory) % 5 == 1:
                self._keep_training()

    def _keep_training(self) -> None:
        if self.runs:
            row = self._caller.call("run_view", run_id=self.runs[-1]["run_id"])
            self.runs[-1] |= {name: row[name] for name in ("state", "progress", "message", "error")}
            self.runs[-1]["pid"] = self._training_pid()
            if row["state"] in ("queued", "running"):
                return
        made = self._caller.call("train_policy", total_steps=STEPS, seed=self._seed)
        self._seed += 1
        self.runs.append(made | {"since": time.monotonic()})

    def _training_pid(self) -> int | None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.runs[-1]["run_id"].encode() in entry.read_bytes():
                    return int(entry.parent.name)
            except OSError:
                continue  # it ended while we looked
        return None

    def end(self) -> None:
        self.stop.set()
        for run in self.runs[-1:]:
            if run.get("state") in ("queued", "running"):
                self._caller.call("cancel_run", run_id=run["run_id"])
                time.sleep(3)

    def growth(self) -> float:
        """MB a minute over the second half."""
        half = np.array(self.memory[len(self.memory) // 2 :])
        return float(np.polyfit(half[:, 0] / 60, half[:, 1], 1)[0]) if len(half) > 2 else 0.0


def minute(port: int, tokens: list[str], watch: Watch, number: int) -> list[float]:
    trainer = watch.runs[-1].get("pid") if watch.runs else None
    before = (time.monotonic(), cpu_s(watch.pid), cpu_s(trainer))
    rate, took = asyncio.run(votes.load(port, tokens, 60, votes.THINK_S, False))
    spent = time.monotonic() - before[0]
    app = (cpu_s(watch.pid) - before[1]) / spent
    training = max(0.0, cpu_s(trainer) - before[2]) / spent
    p50, p95, p99 = (float(np.percentile(took, share)) for share in (50, 95, 99))
    print(
        f"{number:6d} {rate:8.1f} {p50:8.1f} {p95:8.1f} {p99:8.1f} {took[-1]:8.1f} "
        f"{watch.memory[-1][1]:8.1f} {app:9.2f} {training:9.2f} {os.getloadavg()[0]:7.1f}",
        flush=True,
    )
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--workspace", type=Path, help="a demo workspace to copy")
    parser.add_argument("--without-training", action="store_true")
    options = parser.parse_args()
    votes.SETTINGS |= {"LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        tokens = workspace(root, options.workspace)
        with votes.server(root, queue=False) as port:
            watch = Watch(root, not options.without_training)
            watcher = threading.Thread(target=watch.run, daemon=True)
            watcher.start()
            asyncio.run(votes.load(port, tokens, 15, votes.THINK_S, False))  # the training starts
            print(
                f"{'minute':>6s} {'votes/s':>8s} {'p50':>8s} {'p95':>8s} {'p99':>8s} {'worst':>8s} "
                f"{'RSS MB':>8s} {'app CPUs':>9s} {'training':>9s} {'load':>7s}"
            )
            took = [
                one
                for number in range(options.minutes)
                for one in minute(port, tokens, watch, number + 1)
            ]
            watch.end()
            watcher.join()
    p50, p95, p99 = (float(np.percentile(took, share)) for share in (50, 95, 99))
    growth = watch.growth()
    print(
        f"all {len(took)} votes: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, "
        f"worst {max(took):.1f} ms; memory in the second half {growth:+.2f} MB a minute"
    )
    for run in watch.runs:
        print(f"{run['run_id']}: {run.get('state')}, {100 * (run.get('progress') or 0):.0f} % of "
              f"{STEPS:,} steps; {run.get('message') or run.get('error')}")  # fmt: skip
    good = p95 < BAR_MS and growth < BAR_MB_A_MINUTE
    print(f"bars: p95 < {BAR_MS:g} ms and < {BAR_MB_A_MINUTE:g} MB a minute: "
          f"{'met' if good else 'MISSED'}")  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
