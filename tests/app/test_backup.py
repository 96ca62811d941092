"""Backups made while people vote, restored elsewhere; the doctor on well and ill workspaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PASSWORD, PLAIN, add_pairs, add_song, client_of, write_audio

from feedback_app import doctor
from feedback_app.__main__ import main
from feedback_app.backup import check_backup, restore_backup
from feedback_app.doctor_files import checkpoint_problem
from feedback_app.errors import ConflictError, InvalidError, NotFoundError
from feedback_app.services import Services, open_services
from feedback_app.votes import VoteForm
from rlhf_core.files import sha256_of, write_text


def whole(services: Services) -> None:
    """A song whose file is of its name, pairs with audio, a policy with a checkpoint."""
    song = services.workspace.songs / "x.wav"
    song.write_bytes(b"RIFF synthetic")
    song_id = sha256_of(song)[:16]
    add_song(services, song_id, path="songs/x.wav")
    add_pairs(services, 6, song_id)
    checkpoint = services.workspace.models / "policy_v1" / "policy.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    write_text(checkpoint.with_name("policy.pt.sha256"), f"{sha256_of(checkpoint)}  policy.pt\n")
    services.store.database.execute(
        "INSERT INTO policies (version, path, status, created_at)"
        " VALUES ('policy_v1', 'models/policy_v1/policy.pt', 'active', now()::TIMESTAMP)"
    )


def vote(services: Services, name: str) -> str:
    shown = services.annotation.next(name).result()
    form = VoteForm(str(uuid4()), shown["assignment_id"], "left")
    services.annotation.vote(name, form).result()
    return form.vote_id


def ids(services: Services) -> set[str]:
    return {
        str(row["vote_id"]) for row in services.store.database.rows("SELECT vote_id FROM votes")
    }


def test_a_backup_under_votes_restores_to_a_state_between_two_commits(tmp_path: Path) -> None:
    plain = PLAIN | {"votes_per_pair": 1000}
    services = open_services(tmp_path / "one", **plain)
    services.operations.add_user("ann", "annotator", PASSWORD)
    whole(services)
    token = services.sessions.sign_in("ann", PASSWORD, "here")
    before = {vote(services, f"early{number}") for number in range(5)}
    stop, cast = threading.Event(), []

    def keep_voting() -> None:
        number = 0
        while not stop.is_set():
            cast.append(vote(services, f"late{number}"))
            number += 1

    thread = threading.Thread(target=keep_voting)
    thread.start()
    made = services.operations.backup(str(tmp_path / "out"))
    sure = set(cast[:-1])
    stop.set()
    thread.join()
    assert before <= ids(services) and sure <= ids(services)
    services.close()

    folder = Path(made["path"])
    assert restore_backup(folder, tmp_path / "two")["counts"] == made["counts"]
    again = open_services(tmp_path / "two", **plain)
    kept = ids(again)
    assert before <= kept <= before | set(cast)
    assert kept == before | set(cast[: len(kept) - len(before)])  # a beginning, nothing left out
    assert again.sessions.account(token) is None  # everybody signs in again
    assert again.sessions.sign_in("ann", PASSWORD, "here")
    report = again.operations.doctor()
    # names that never signed in vote here without an account: that the doctor does tell
    assert [f["text"][-27:] for f in report["findings"]] == ["by names without an account"]
    vote(again, "after")
    again.close()
    for name in ("songs/x.wav", "models/policy_v1/policy.pt", "runs/made/audio/pair0000/a.flac"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_what_is_no_whole_backup_is_refused(services: Services, tmp_path: Path) -> None:
    whole(services)
    folder = Path(services.operations.backup(str(tmp_path / "out"))["path"])
    with pytest.raises(ConflictError, match="holds a workspace already"):
        restore_backup(folder, services.workspace.root)
    with pytest.raises(NotFoundError, match=r"no manifest\.json"):
        restore_backup(tmp_path / "out", tmp_path / "new")
    with pytest.raises(InvalidError, match="outside of the workspace"):
        services.operations.backup(str(services.workspace.models))
    song = folder / "songs" / "x.wav"
    song.write_bytes(song.read_bytes() + b"!")
    with pytest.raises(InvalidError, match=r"songs/x\.wav has changed"):
        restore_backup(folder, tmp_path / "new")
    song.unlink()
    with pytest.raises(InvalidError, match=r"songs/x\.wav is missing"):
        check_backup(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {"../../evil": {"size": 1, "sha256": "0"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidError, match="outside of the backup"):
        restore_backup(folder, tmp_path / "new")
    assert not (tmp_path / "new" / "preferences.duckdb").exists()


def test_the_doctor_finds_nothing_in_a_well_workspace(services: Services) -> None:
    whole(services)
    client = client_of(services, "ann")
    shown = client.get("/api/next").json()
    client.post("/api/vote", json={"vote_id": str(uuid4()), "choice": "left",
                                   "assignment_id": shown["assignment_id"]})  # fmt: skip
    report = services.operations.doctor()
    assert report["findings"] == []
    tables = len(services.store.database.rows("SHOW TABLES")) - 1  # current_votes is a view
    assert report["checked"] == {"workspace": 8, "snapshots": 0, "database": 7 + tables,
                                 "audio": 19, "checkpoints": 1, "runs": 0}  # fmt: skip


def test_the_doctor_finds_each_fault_and_says_how_to_mend_it(services: Services) -> None:
    whole(services)
    root, database = services.workspace.root, services.store.database
    (root / "songs" / "x.wav").write_bytes(b"other")
    (root / "runs/made/audio/pair0001/a.flac").unlink()
    (root / "runs/made/audio/pair0002/b.flac").write_bytes(b"half")
    cut = root / "runs/made/audio/pair0004/b.flac"
    cut.write_bytes(cut.read_bytes()[:-2000])
    write_audio(root / "runs/made/audio/pair0005/a.flac", 4.0, seed=1)  # of another pair
    (root / "models/policy_v1/policy.pt").write_bytes(b"other weights")
    (root / "models/policy_v1/policy_best.pt").write_bytes(b"beside it")
    (root / "snapshots" / f"{'0' * 64}.parquet").write_bytes(b"x")
    database.execute("UPDATE pairs SET song_id = 'gone' WHERE pair_id = 'pair0003'")
    database.execute(
        "INSERT INTO votes (vote_id, pair_id, annotator, kind, choice, simulated, source,"
        " created_at) VALUES (uuid(), 'nowhere', 'ann', 'vote', 'a', false, 'app',"
        " now()::TIMESTAMP)"
    )
    report = services.operations.doctor()
    found = {(finding["area"], finding["severity"]) for finding in report["findings"]}
    assert found == {(a, "error") for a in ("audio", "checkpoints", "snapshots", "database")}
    text = "\n".join(doctor.told(report))
    for part in (
        "songs/x.wav has changed", "pair0001/a.flac is missing", "pair0002/b.flac is not audio",
        "pair0004/b.flac is not audio, or its end is missing", "pair0005/a.flac is 4.00 s long",
        "policy_v1: models/policy_v1/policy.pt has changed", "1 pairs whose song",
        "policy_v1: models/policy_v1/policy_best.pt is damaged",
        "1 votes of pairs that do not exist", "10 errors, 0 warnings",
    ):  # fmt: skip
        assert part in text, text
    assert all(finding["mend"] for finding in report["findings"])


def test_workspace_and_backup_are_for_their_owner_alone(services: Services, tmp_path: Path) -> None:
    made = services.operations.backup(str(tmp_path / "new" / "out"))
    restored = tmp_path / "restored"
    restore_backup(Path(made["path"]), restored)
    for path in (services.workspace.root, Path(made["path"]), restored):
        assert path.stat().st_mode & 0o077 == 0, path
    services.workspace.root.chmod(0o755)
    (finding,) = services.operations.doctor()["findings"]
    assert finding["severity"] == "warning" and finding["mend"].startswith("chmod 700")


def test_the_doctor_names_a_table_whose_blocks_are_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A byte of a block on the disk is another one; its place is told by DuckDB."""
    with closing(open_services(tmp_path, **PLAIN)) as services:
        add_song(services), add_pairs(services, 1)
        services.store.database.execute(
            "INSERT INTO edits (edit_id, song_id, start_beat, end_beat, policy, actions, edl,"
            " audio_path, duration_s) SELECT md5(i::VARCHAR), 's', 0, 1, 'p', '[]', to_json("
            "md5((i + 1)::VARCHAR) || md5((i + 2)::VARCHAR)), 'x', 1 FROM range(20000) AS t(i)"
        )
    path = tmp_path / "preferences.duckdb"
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        segments = connection.execute(
            "SELECT max(block_id) FROM pragma_storage_info('edits')"
            " WHERE column_name = 'edit_id' AND segment_type = 'VARCHAR' AND persistent"
        )
        (block,) = segments.fetchall()[0]
    with path.open("r+b") as file:
        file.seek(3 * 4096 + block * 262_144 + 100_000)  # three headers, then blocks of 256 KiB
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))
    status = main(["doctor", "--workspace", str(tmp_path)])
    said = capsys.readouterr().out
    assert status == 1 and "ERROR database: table edits is damaged" in said
    assert "mend: stop the app, keep the file, and `restore` the last backup" in said


def test_the_doctor_finds_what_crashes_left_half_written(services: Services) -> None:
    root, names = services.workspace.root, [
        "models/.policy.0123abcd.pt", "songs/.x.0123abcd.wav", f"snapshots/.{'0a' * 16}.parquet",
        f"exports/.record-{'0a' * 16}.parquet", f"exports/.export-{'0a' * 16}/preferences.csv",
        "exports/.file-abc_123/x", ".backup-20260131-030000.partial/settings.json",
        "models/.policy.pt.part",
    ]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"half")
    assert services.operations.doctor()["findings"] == []  # somebody may be writing them
    past = time.time() - 2 * 86400
    for path in (*(root / name for name in names), *((root / name).parent for name in names)):
        os.utime(path, (past, past))
    found = {one["text"].split(" was left")[0] for one in services.operations.doctor()["findings"]}
    half = {name if Path(name).name.startswith(".") else str(Path(name).parent) for name in names}
    assert found == half


@pytest.mark.parametrize("at", ["method", "flag", "name"])
def test_a_damaged_archive_is_told_and_no_fault(tmp_path: Path, at: str) -> None:
    """Fields of the zip format (APPNOTE 4.3.7, 4.3.12): method, general purpose flag, the name."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", b"weights" * 100)
    assert checkpoint_problem(path) is None
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    if at == "method":  # stored: now deflated
        data[8:10] = data[central + 10 : central + 12] = b"\x08\x00"
    else:  # encrypted; or a name in UTF-8 that is none
        flag = b"\x01\x00" if at == "flag" else b"\x00\x08"
        data[6:8] = data[central + 8 : central + 10] = flag
        if at == "name":
            data[30] = data[central + 46] = 0xFF
    path.write_bytes(data)
    assert "is damaged" in (checkpoint_problem(path) or "")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "one"
    services = open_services(root, **PLAIN)
    whole(services)
    services.close()

    def run(*arguments: str, at: Path = root) -> tuple[int, str]:
        status = main([*arguments, "--workspace", str(at)])
        out = capsys.readouterr()
        return status, out.out + out.err

    assert run("doctor")[0] == 0
    status, said = run("backup", str(tmp_path / "out"))
    assert status == 0 and "6 pairs" in said
    (made,) = (tmp_path / "out").iterdir()
    assert run("restore", str(made), at=tmp_path / "two")[0] == 0
    assert "all is well" in run("doctor", at=tmp_path / "two")[1]
    (tmp_path / "two" / "models/policy_v1/policy.pt").unlink()
    status, said = run("doctor", at=tmp_path / "two")
    assert status == 1 and "mend: " in said
    (tmp_path / "two" / "preferences.duckdb").write_bytes(b"x" * 9000)
    status, said = run("doctor", at=tmp_path / "two")
    assert status == 1 and "cannot be opened" in said and "restore" in said
    assert run("restore", str(tmp_path))[0] == 2
    status, said = run("doctor", at=tmp_path / "empty")
    assert status == 2 and "holds no workspace" in said


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "feedback_app", "settings", "show", "--workspace", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None and command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b"" and command.wait() == 141  # as a shell calls SIGPIPE


def test_settings_are_shown_with_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.json").write_text('{"goal": 7, "tags": ["a", "b"]}')
    monkeypatch.setenv("FEEDBACK_APP_LOW_WATER", "9")
    assert main(["settings", "show", "--workspace", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "goal = 7  (settings.json)" in lines
    assert "tags = a,b  (settings.json)" in lines
    assert "low_water = 9  (environment, FEEDBACK_APP_LOW_WATER)" in lines
    assert "session_days = 14  (default)" in lines
    monkeypatch.setenv("FEEDBACK_APP_GAOL", "9")
    assert main(["settings", "show", "--workspace", str(tmp_path)]) == 2
    assert "unknown setting gaol" in capsys.readouterr().err


def test_settings_are_written_all_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> tuple[int, str]:
        status = main(["settings", *words, "--workspace", str(tmp_path)])
        told = capsys.readouterr()
        return status, told.out + told.err

    path = tmp_path / "settings.json"
    assert said("set", "votes_per_pair=3", "tags=good,bad", "demucs=x")[0] == 2
    assert not path.exists()
    assert said("set", "votes_per_pair=3", "tags=good,bad", "log_requests=yes")[0] == 0
    written = {"votes_per_pair": 3, "tags": ["good", "bad"], "log_requests": True}
    assert json.loads(path.read_text()) == written
    for wrong in ("votes_per_pair=0", "votes_per_pair=many", "assign_score=0.4", "goal", "x=1"):
        assert said("set", "goal=9", wrong)[0] == 2
        assert json.loads(path.read_text()) == written
    shares = ("assign_score=0.4", "assign_random=0.4", "assign_cross=0.2")  # add up to 1 together
    assert said("set", *shares)[0] == 0
    monkeypatch.setenv("FEEDBACK_APP_GOAL", "30")
    assert "FEEDBACK_APP_GOAL, which is stronger" in said("set", "goal=9")[1]
    with closing(open_services(tmp_path, "http://here")) as services:
        assert services.settings.votes_per_pair == 3 and services.settings.goal == 30
        assert "http://here takes it when it is restarted" in said("set", "low_water=4")[1]
    assert said("unset", "votes_per_pair", "tags", "log_requests")[0] == 0
    assert "votes_per_pair = 1  (default)" in said("show")[1]
    assert said("unset", "gaol")[0] == 2
