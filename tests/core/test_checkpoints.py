from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rlhf_core.checkpoints import lineage, load_checkpoint, save_checkpoint
from rlhf_core.errors import CheckpointError


class Exploit:
    """What a hostile file would hold: unpickling it would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch /tmp/should-never-exist",))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "policy.pt"
    weights = {"w": torch.arange(4.0)}
    save_checkpoint(path, "policy", {"agent": weights, "lineage": lineage(seed=1)})
    return path


def test_what_was_saved_comes_back(good: Path) -> None:
    data = load_checkpoint(good, "policy")
    assert torch.equal(data["agent"]["w"], torch.arange(4.0))
    assert data["lineage"]["seed"] == 1 and data["lineage"]["synthetic"] is False


def test_missing_damaged_truncated_and_hostile_files_are_refused(good: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(good.with_name("absent.pt"), "policy")
    data = good.read_bytes()
    for broken in (b"", b"not a checkpoint", data[: len(data) // 2], data[:-10]):
        good.write_bytes(broken)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(good, "policy")
    torch.save(Exploit(), good)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(good, "policy")
    assert not Path("/tmp/should-never-exist").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("feature_version", "beat-features-0", "features 'beat-features-0'"),
        ("actions", ["KEEP", "CUT"], "other actions"),
        ("format", 99, "format 99"),
        ("kind", "reward_model", "holds a reward_model"),
    ],
)
def test_another_version_is_refused_with_the_reason(
    good: Path, key: str, value: object, words: str
) -> None:
    data = torch.load(good, weights_only=True)
    torch.save({**data, key: value}, good)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(good, "policy")


def test_a_torch_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        load_checkpoint(tmp_path / "list.pt", "policy")


def test_lineage_names_the_parent_by_its_bytes(good: Path) -> None:
    first = lineage(seed=0, parent=good)["parent"]["sha256"]
    good.write_bytes(good.read_bytes() + b"x")
    assert lineage(seed=0, parent=good)["parent"]["sha256"] != first
