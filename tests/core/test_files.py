from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_core.files import atomic_path, read_json, set_aside, sha256_of, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of")
        raise RuntimeError("power cut")
    assert read_json(target) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_not_a_number_never_reaches_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "figures.json", {"loss": float("nan")})
    assert not (tmp_path / "figures.json").exists()


def test_set_aside_keeps_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "policy_final.pt"
    assert set_aside(target) is None
    kept = []
    for text in ("first", "second"):
        target.write_text(text)
        moved = set_aside(target)
        assert moved is not None and not target.exists()
        kept.append(moved.read_text())
    assert kept == ["first", "second"]
    assert len(list(tmp_path.iterdir())) == 2


def test_sha256_agrees_with_the_system_tool(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(bytes(range(256)) * 100)
    printed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    assert sha256_of(path) == printed.stdout.split()[0]


def test_json_written_here_is_read_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"title": "naïve “song” <b>"})
    code = "import json,sys; print(json.load(open(sys.argv[1], encoding='utf-8'))['title'])"
    run = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code, str(tmp_path / "a.json")],
        capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert run.stdout.strip() == "naïve “song” <b>"
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))
