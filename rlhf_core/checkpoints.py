"""Checkpoints: one dictionary of plain values and tensors, written atomically, read weights-only.

    {"kind": "reward_model" | "policy", "format": 1, "feature_version": …, "actions": [...],
     "lineage": {"code_version", "created", "seed", "parent", "snapshot", "synthetic", "settings"},
     ...the kind's own keys}

A file that is missing, damaged, of another kind, of another feature version or action set is
refused with the reason; nothing is ever filled in silently.
"""

from __future__ import annotations

import pickle
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from rlhf_core import __version__
from rlhf_core.audio.feature_table import FEATURE_VERSION
from rlhf_core.editing.actions import ACTION_NAMES
from rlhf_core.errors import CheckpointError
from rlhf_core.files import atomic_path, room, sha256_of

CHECKPOINT_FORMAT = 1


def lineage(
    *,
    seed: int,
    parent: Path | None = None,
    snapshot: str | None = None,
    synthetic: bool = False,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Where a checkpoint came from: exact data (snapshot hash), code, parent (hash) and seed."""
    return {
        "code_version": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
        "parent": None if parent is None else {"path": str(parent), "sha256": sha256_of(parent)},
        "snapshot": snapshot,
        "synthetic": synthetic,
        "settings": settings or {},
    }


def save_checkpoint(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, lists, dicts) as a checkpoint of a kind.

    Raises CheckpointError where the disk does not take it; what stood there is left as it was.
    """
    header = {
        "kind": kind,
        "format": CHECKPOINT_FORMAT,
        "feature_version": FEATURE_VERSION,
        "actions": list(ACTION_NAMES),
    }
    try:
        with atomic_path(path) as temporary:
            torch.save({**header, **content}, temporary)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        raise CheckpointError(
            f"{path}: the checkpoint could not be written ({str(error).splitlines()[0]}; "
            f"{room(path)}). What was there before is untouched; make room and resume the run."
        ) from error


def load_checkpoint(path: Path, kind: str, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of a kind, or raise CheckpointError saying what is wrong and what to do."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint. Check the path.")
    try:
        _check_bytes(path)
        data = torch.load(path, map_location=device, weights_only=True)
    except (
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: the checkpoint is damaged or is not one ({first}). "
            "Restore it from a backup or train again; test_report tells more."
        ) from error
    _check_header(path, data, kind)
    return dict(data)


def _check_bytes(path: Path) -> None:
    """Raise BadZipFile when a record does not have its checksum: torch.load would not notice."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _check_header(path: Path, data: Any, kind: str) -> None:
    if not isinstance(data, dict) or "kind" not in data:
        raise CheckpointError(f"{path}: a torch file, but not a checkpoint of this project.")
    if data["kind"] != kind:
        raise CheckpointError(f"{path}: holds a {data['kind']}, but a {kind} was asked for.")
    if data.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: format {data.get('format')}, this version reads {CHECKPOINT_FORMAT}."
        )
    if data.get("feature_version") != FEATURE_VERSION:
        raise CheckpointError(
            f"{path}: made for features {data.get('feature_version')!r}, this version computes "
            f"{FEATURE_VERSION!r}. Train it again on this version's features."
        )
    if data.get("actions") != list(ACTION_NAMES):
        raise CheckpointError(
            f"{path}: made for other actions ({data.get('actions')}). Train it again."
        )
