"""A disk that fills up, for test_crash_disk: run inside a tmpfs of its own, prints what happened.

    python disk_full.py SCENARIO FOLDER      (FOLDER is on the small disk)

Every scenario fills the disk, tries, makes room, tries again; it prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PLAIN, add_pairs, add_song

from feedback_app.errors import AppError
from feedback_app.services import Services, open_services
from feedback_app.store_accounts import ensure_annotator
from feedback_app.votes import VoteForm

BY_LIMIT = bool(os.environ.get("BY_LIMIT"))  # no tmpfs here: a limit on the size of every file


def fill(folder: Path, leave: int) -> None:
    """Leave so many bytes; with BY_LIMIT, let no file grow beyond so many."""
    if BY_LIMIT:
        resource.setrlimit(resource.RLIMIT_FSIZE, (leave, resource.RLIM_INFINITY))
        return
    state = os.statvfs(folder)
    size = state.f_bavail * state.f_frsize - leave
    with (folder / "ballast").open("wb") as file:
        for start in range(0, size, 65536):
            file.write(b"x" * min(65536, size - start))


def make_room(folder: Path) -> None:
    if BY_LIMIT:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        return
    (folder / "ballast").unlink()


def vote(services: Services, name: str) -> str:
    shown = services.annotation.next(name).result(timeout=20)
    form = VoteForm(str(uuid4()), shown["assignment_id"], "left", comment="x" * 2000)
    services.annotation.vote(name, form).result(timeout=20)
    return form.vote_id


def vote_until_refused(services: Services) -> tuple[list[str], list[str]]:
    """Votes that were taken, and why the first three others were not."""
    cast: list[str] = []
    refused: list[str] = []
    for number in range(400):
        try:
            cast.append(vote(services, f"p{number}"))
        except AppError as error:
            refused.append(f"{type(error).__name__}: {error}")
            if len(refused) == 3:
                break
    return cast, refused


def votes(folder: Path, threshold: str = "", **settings: object) -> dict[str, object]:
    """Vote until the disk is full, then with room again, then reopen."""
    plain = PLAIN | {"votes_per_pair": 1000, "min_free_mb": 1} | settings
    root = folder / "workspace"
    services = open_services(root, **plain)
    add_song(services), add_pairs(services, 3)
    if threshold:
        services.store.database.execute(f"SET GLOBAL checkpoint_threshold = '{threshold}'")
    database = services.store.database
    fill(folder, 400_000)
    cast, refused = vote_until_refused(services)
    readable = database.row("SELECT count(*) AS n FROM votes")
    make_room(folder)
    later = [vote(services, f"q{number}") for number in range(5)]
    stored = {str(row["vote_id"]) for row in database.rows("SELECT vote_id FROM votes")}
    services.close()
    again = open_services(root, **plain)
    kept = [str(row["vote_id"]) for row in again.store.database.rows("SELECT vote_id FROM votes")]
    again.close()
    return {
        "cast": len(cast), "refused": refused, "readable": readable is not None,
        "stored": stored == set(cast + later), "kept": sorted(kept) == sorted(cast + later),
    }  # fmt: skip


def checkpoint(folder: Path) -> dict[str, object]:
    """A trainer's checkpoint on a full disk: the old one stays, and the next goes in."""
    import torch

    from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
    from rlhf_core.errors import CheckpointError

    path = folder / "models" / "x.pt"
    save_checkpoint(path, "policy", {"weights": torch.zeros(1000)})
    fill(folder, 100_000)
    told = ""
    try:
        save_checkpoint(path, "policy", {"weights": torch.ones(1_000_000)})
    except CheckpointError as error:
        told = str(error)
    kept = load_checkpoint(path, "policy")["weights"].shape[0]
    names = sorted(p.name for p in path.parent.iterdir())
    make_room(folder)
    save_checkpoint(path, "policy", {"weights": torch.ones(1_000_000)})
    after = load_checkpoint(path, "policy")["weights"].shape[0]
    return {"told": told, "kept": kept, "names": names, "after": after}


def render(folder: Path) -> dict[str, object]:
    """Audio on a full disk."""
    import numpy as np

    from rlhf_core.audio.io import read_audio, write_audio
    from rlhf_core.errors import AudioError

    path = folder / "audio" / "a.flac"
    samples = np.random.default_rng(0).normal(0, 0.1, (44100 * 10, 2)).astype(np.float32)
    path.parent.mkdir()
    fill(folder, 300_000)
    told = ""
    try:
        write_audio(path, samples, 44100)
    except AudioError as error:
        told = str(error)
    names = sorted(p.name for p in path.parent.iterdir())
    make_room(folder)
    write_audio(path, samples, 44100)
    return {"told": told, "names": names, "after": len(read_audio(path).samples)}


def export(folder: Path) -> dict[str, object]:
    """An export on a full disk: words, no part of a file; then a whole one."""
    root = folder / "workspace"
    services = open_services(root, **(PLAIN | {"votes_per_pair": 1000, "min_free_mb": 0}))
    add_song(services), add_pairs(services, 3)
    for number in range(100):
        name = f"p{number}"
        services.store.database.write(lambda cursor, name=name: ensure_annotator(cursor, name))
        vote(services, name)
    out = folder / "out"
    out.mkdir()
    told = {}
    # the record, from which all forms are written, does not fit; or it does and the form does not
    for leave, forms in ((8_000, ("parquet", "csv", "jsonl", "trl")), (100_000, ("csv", "jsonl"))):
        fill(folder, leave)
        for form in forms:
            try:
                services.operations.export(form, str(out))
            except AppError as error:
                told[f"{form} {leave}"] = str(error)
        make_room(folder)
    names = sorted(p.name for p in out.iterdir())
    names += [p.name for p in services.workspace.exports.iterdir()]
    rows = services.operations.export("jsonl", str(out))["rows"]
    services.close()
    return {"told": told, "names": names, "rows": rows}


def served(folder: Path, **settings: object) -> dict[str, object]:
    """As `votes`; another process has the database, and is started again when it ends."""
    from test_shared_database import TOKEN, free_port

    root, port = folder / "workspace", free_port()
    argv = [sys.executable, "-m", "feedback_app", "database", "serve", "--workspace", str(root)]
    env = dict(os.environ) | {"FEEDBACK_APP_DATABASE_TOKEN": TOKEN}

    def started() -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [*argv, "--port", str(port)], stdout=subprocess.PIPE, text=True, env=env
        )
        assert server.stdout is not None and "database at" in server.stdout.readline()
        return server

    server = started()
    shared = {"database": f"quack:127.0.0.1:{port}", "database_token": TOKEN}
    services = open_services(root, **(PLAIN | {"votes_per_pair": 1000} | shared | settings))
    add_song(services), add_pairs(services, 3)
    if settings["min_free_mb"] == 0:
        services.store.database.cursor().execute("SET GLOBAL checkpoint_threshold = '200KB'")
    fill(folder, 400_000)
    ended, (cast, refused) = None, vote_until_refused(services)
    if settings["min_free_mb"] == 0:
        ended = server.wait(timeout=20)  # it has noticed
    make_room(folder)
    if ended is not None:
        server = started()
    later = [vote(services, f"q{number}") for number in range(3)]
    kept = services.store.database.rows("SELECT vote_id FROM votes")
    services.close()
    server.terminate()
    server.wait(timeout=20)
    return {
        "cast": len(cast), "refused": refused, "ended": ended,
        "kept": sorted(str(row["vote_id"]) for row in kept) == sorted(cast + later),
    }  # fmt: skip


def main(scenario: str, folder: Path) -> None:
    made = {
        "votes": lambda: votes(folder),
        "reserve": lambda: votes(folder, min_free_mb=8),
        "fatal": lambda: votes(folder, threshold="200KB", min_free_mb=0),
        "log": lambda: votes(folder, min_free_mb=0),
        "served": lambda: served(folder, min_free_mb=0),
        "served reserve": lambda: served(folder, min_free_mb=8),
        "checkpoint": lambda: checkpoint(folder),
        "render": lambda: render(folder),
        "export": lambda: export(folder),
    }
    print(json.dumps(made[scenario]()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
