"""Malformed audio files, checkpoints, edit decision lists: an error in words or a whole result."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_core.audio.io import read_audio
from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
from rlhf_core.editing.edl import build_edl, edl_from_json
from rlhf_core.errors import AudioError, CheckpointError, EditError
from rlhf_core.reward.checkpoint import load_reward, reward_from_content
from rlhf_core.types import BeatGrid, Passage
from tests.fuzz.malformed import JSON, WANTED, altered, damaged, quick, refused

MODEL = next((Path(__file__).parents[2] / "rlhf_core" / "models").rglob("*.pt"))
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def audio_seeds() -> dict[str, list[bytes]]:
    """Four seconds of synthetic noise in every format that is read."""
    noise = np.random.default_rng(0).normal(0, 0.1, (32000, 2))
    seeds = {}
    for suffix, form in FORMATS.items():
        files = []
        for channels in (1, 2):
            file = io.BytesIO()
            soundfile.write(file, noise[:, :channels], 8000, format=form)
            files.append(file.getvalue())
        seeds[suffix] = files
    return seeds


SEEDS = audio_seeds()


@st.composite
def malformed_audio(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(sorted(FORMATS)))
    content = draw(damaged(SEEDS[suffix]) | st.binary(max_size=300))
    return draw(st.sampled_from([suffix, suffix, *FORMATS])), content


def check_audio(folder: Path, suffix: str, content: bytes) -> bool:
    """Whether it was refused."""
    path = folder / f"x{suffix}"
    path.write_bytes(content)
    try:
        audio = read_audio(path)
    except AudioError as error:
        assert "x." in str(error)  # it names the file
        return True
    assert np.isfinite(audio.samples).all() and audio.duration_s >= 3
    return False


@quick()
@given(malformed_audio())
def test_audio(tmp_path_factory: pytest.TempPathFactory, file: tuple[str, bytes]) -> None:
    check_audio(tmp_path_factory.getbasetemp(), *file)


@pytest.mark.long
def test_audio_in_full(tmp_path: Path) -> None:
    assert refused(500, malformed_audio(), lambda file: check_audio(tmp_path, *file)) >= WANTED


def test_a_header_that_promises_too_much_is_refused_before_memory_is_asked_for(
    tmp_path: Path,
) -> None:
    """A FLAC file of 8 kB whose header says two hours at 655,350 Hz: 37 GB when decoded."""
    head = bytearray(SEEDS[".flac"][1])
    rate, frames = 655_350, 655_350 * 7000
    # STREAMINFO (RFC 9639, 8.2): after 18 bytes 20 bits of rate, 3 of channels, 5 of bits, 36 of
    # total samples
    packed = int.from_bytes(head[18:26], "big")
    kept = (packed >> 36) & 0xFF
    head[18:26] = ((rate << 44) | (kept << 36) | frames).to_bytes(8, "big")
    (tmp_path / "x.flac").write_bytes(head)
    with pytest.raises(AudioError, match="more than the"):
        read_audio(tmp_path / "x.flac")


def check_checkpoint(folder: Path, content: bytes) -> bool:
    """Whether it was refused."""
    path = folder / "x.pt"
    path.write_bytes(content)
    try:
        data = load_checkpoint(path, "policy")
    except CheckpointError as error:
        assert "x.pt" in str(error)
        return True
    assert data["kind"] == "policy"
    return False


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("seed") / "x.pt"
    weights = {"layer": torch.arange(64.0), "ids": torch.arange(5)}
    save_checkpoint(path, "policy", {"weights": weights, "config": {"d_model": 8}})
    return path.read_bytes()


@quick()
@given(data=st.data())
def test_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, small_checkpoint: bytes, data: st.DataObject
) -> None:
    check_checkpoint(tmp_path_factory.getbasetemp(), data.draw(damaged([small_checkpoint])))


@pytest.mark.long
def test_checkpoints_in_full(tmp_path: Path, small_checkpoint: bytes) -> None:
    kinds = damaged([small_checkpoint]) | st.binary(max_size=300) | pickles()
    assert refused(400, kinds, lambda content: check_checkpoint(tmp_path, content)) >= WANTED


@st.composite
def pickles(draw: st.DrawFn) -> bytes:
    """Any plain value, pickled as torch does it or as Python does it."""
    value = draw(JSON)
    if draw(st.booleans()):
        return pickle.dumps(value)
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


class Evil:
    """What a stranger's checkpoint could hold: code that runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    header = header_of_ours()
    torch.save(header | {"weights": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
        archive.writestr("archive/version", "3\n")
    for name in ("evil.pt", "plain.pt", "zip.pt"):
        with pytest.raises(CheckpointError, match="damaged or is not one"):
            load_checkpoint(tmp_path / name, "policy")


def header_of_ours() -> dict[str, Any]:
    data = load_checkpoint(MODEL, "reward_model")
    return {name: data[name] for name in ("format", "feature_version", "actions")} | {
        "kind": "policy"
    }


@pytest.fixture(scope="module")
def reward_content() -> dict[str, Any]:
    return load_checkpoint(MODEL, "reward_model")


def check_reward(content: dict[str, Any], key: str, value: Any) -> bool:
    """Whether it was refused."""
    try:
        reward_from_content(content | {key: value}, "x.pt")
    except CheckpointError as error:
        assert "x.pt" in str(error)
        return True
    return False


@quick()
@given(data=st.data())
def test_the_content_of_checkpoints(reward_content: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(reward_content)))
    check_reward(reward_content, key, data.draw(JSON))


@pytest.mark.long
def test_the_content_of_checkpoints_in_full(reward_content: dict[str, Any]) -> None:
    changes = st.tuples(st.sampled_from(sorted(reward_content)), JSON | st.just(torch.zeros(3)))
    assert refused(500, changes, lambda change: check_reward(reward_content, *change)) >= WANTED


def test_the_bundled_checkpoint_is_whole() -> None:
    assert load_reward(MODEL)


GRID = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, 120.0)
ACTIONS = np.array([0, 1, 0, 2, 0, 0, 4, 0] * 4)
GOOD = build_edl(ACTIONS, GRID, Passage(0, 32)).to_json()


def check_edl(data: Any) -> bool:
    """Whether it was refused."""
    try:
        edl = edl_from_json(data, GRID.times)
    except EditError as error:
        assert str(error)
        return True
    assert np.isfinite(edl.duration_s) and edl.duration_s > 0
    assert edl_from_json(edl.to_json(), GRID.times).beats == edl.beats
    return False


@quick(60)
@given(altered(GOOD) | JSON)
def test_edls(data: Any) -> None:
    check_edl(data)


@pytest.mark.long
def test_edls_in_full() -> None:
    assert refused(1000, altered(GOOD) | JSON, check_edl) >= WANTED
