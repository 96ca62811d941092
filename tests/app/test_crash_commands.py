"""SIGKILL of commands while they work: what they leave is never taken for whole, and again goes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PLAIN, add_pairs, add_song
from test_durability import ENVIRONMENT, command

from feedback_app.services import open_services
from rlhf_core.files import sha256_of

PAIRS, PEOPLE = 40, 50


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a song of 30 MB and pairs."""
    with closing(open_services(tmp_path / "w", **PLAIN)) as services:
        song = services.workspace.songs / "x.wav"
        song.write_bytes(b"RIFF synthetic" + bytes(30_000_000))
        song_id = sha256_of(song)[:16]
        add_song(services, song_id, path="songs/x.wav")
        add_pairs(services, PAIRS, song_id)
        return services.workspace.root


def killed(root: Path, seen: Callable[[], bool], *arguments: str) -> None:
    """Start a command and SIGKILL it once something is seen; it may have ended just before."""
    argv = [sys.executable, "-m", "feedback_app", *arguments, "--workspace", str(root)]
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        while process.poll() is None and not seen():
            time.sleep(0.001)
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_backup_that_is_killed(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    target.mkdir()
    killed(root, lambda: any(target.glob(".backup-*")), "backup", str(target))
    for partial in target.glob(".backup-*"):
        refused = command(tmp_path / "restored", "restore", str(partial))
        assert refused.returncode == 2 and "it is no backup" in refused.stderr
    assert command(root, "backup", str(target)).returncode == 0
    made = max(target.glob("backup-*"))
    half = tmp_path / "half"
    killed(half, lambda: (half / "songs").exists(), "restore", str(made))
    if not (half / "preferences.duckdb").exists():  # it comes last: this is no workspace yet
        again = command(half, "restore", str(made))
        assert again.returncode == 0, again.stderr
    assert sha256_of(half / "songs" / "x.wav") == sha256_of(root / "songs" / "x.wav")
    assert command(half, "doctor").returncode == 0
    there = command(half, "restore", str(made))
    assert there.returncode == 2 and "holds a workspace already" in there.stderr


@pytest.mark.long
def test_an_import_that_is_killed_is_there_wholly_or_not_at_all(root: Path) -> None:
    lines = [f"pair{p:04d},made{n},a" for p in range(PAIRS) for n in range(PEOPLE)]
    votes = root / "votes.csv"
    votes.write_text("pair_id,annotator,choice\n" + "\n".join(lines) + "\n")
    log = root / "preferences.duckdb.wal"
    for begun in (lambda: log.exists(), lambda: log.exists() and log.stat().st_size > 100_000):
        killed(root, begun, "votes", "import", str(votes))
        with closing(open_services(root, **PLAIN)) as services:
            assert services.store.vote_totals()["votes_total"] in (0, len(lines))
    assert command(root, "votes", "import", str(votes)).returncode == 0
    with closing(open_services(root, **PLAIN)) as services:
        totals = services.store.database.row(
            "SELECT count(*) AS n, count(DISTINCT (pair_id, annotator)) AS each FROM votes"
        )
    assert totals == {"n": len(lines), "each": len(lines)}


@pytest.mark.long
def test_an_export_that_is_killed_leaves_nothing_of_its_name(root: Path, tmp_path: Path) -> None:
    lines = [f"pair{p:04d},made{n},a" for p in range(PAIRS) for n in range(PEOPLE)]
    votes = root / "votes.csv"
    votes.write_text("pair_id,annotator,choice\n" + "\n".join(lines) + "\n")
    assert command(root, "votes", "import", str(votes)).returncode == 0
    target = tmp_path / "out.jsonl"
    words = ("export", str(target), "--format", "jsonl")
    for glob in (".record-*", ".file-*"):
        killed(root, lambda glob=glob: any((root / "exports").glob(glob)), *words)
        sums = target.with_name(f"{target.name}.sha256")
        if sums.exists():  # it was quicker than the kill
            assert sums.read_text().split()[0] == hashlib.sha256(target.read_bytes()).hexdigest()
    made = command(root, *words)
    assert made.returncode == 0, made.stderr
    assert len(target.read_text().splitlines()) == len(lines)
    told = command(root, "doctor")
    assert told.returncode == 0, told.stdout
