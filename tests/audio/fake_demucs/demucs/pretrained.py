from __future__ import annotations

from pathlib import Path

from .htdemucs import HTDemucs


def get_model(name: str, repo: Path | None = None) -> HTDemucs:
    """As the real one with a local repo: without one it would download, which must not happen."""
    assert repo is not None, "asked for a download"
    (file,) = repo.glob(f"{name}*.th")
    if file.stat().st_size == 0:
        raise RuntimeError("PytorchStreamReader failed reading zip archive")
    return HTDemucs()
