"""SIGKILL under fifty annotators: every acknowledged vote there once, assignments sane.

The full count (100 kills) is benchmarks/crashes.py.
"""

from __future__ import annotations

from pathlib import Path

from tests.crowd import kill_under

FAULTS = ("lost", "unknown", "doubled", "wrong_state", "twice", "crowded", "held", "problems")


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    told = kill_under(tmp_path, people=50, kills=2, seed=1, while_starting=0.34)
    assert {name: told[name] for name in FAULTS} == {name: [] for name in FAULTS}
    assert told["acknowledged"] > 50  # it did happen under load
