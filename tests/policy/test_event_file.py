"""Event files against known check sums, a reader of our own, and TensorBoard's if installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rlhf_core.policy.event_file import EventFile, crc32c


def test_crc32c_known_answers() -> None:
    """RFC 3720, appendix B.4, and the customary check value."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_records_are_whole_and_hold_the_numbers(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.scalars(300, {"step": 300, "total_reward": 1.5, "value_loss": None, "x": float("nan")})
    data, payloads = file.path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        payloads.append(data[12 : 12 + length])
        data = data[16 + length :]
    assert b"brain.Event:2" in payloads[0] and len(payloads) == 2
    assert payloads[1].count(b"training/") == 1
    assert b"training/total_reward\x15" + struct.pack("<f", 1.5) in payloads[1]
    assert payloads[1][9:12] == b"\x10\xac\x02"  # step 300 as a varint


def test_tensorboard_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is optional"
    )
    file = EventFile(tmp_path)
    for step in (0, 300, 70_000):
        file.scalars(step, {"total_reward": step / 2})
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("training/total_reward")]
    assert seen == [(0, 0.0), (300, 150.0), (70_000, 35_000.0)]
