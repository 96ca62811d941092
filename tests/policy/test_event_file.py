"""Event files against known check sums, a reader of our own, and TensorBoard's if installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rlhf_core.policy import event_file
from rlhf_core.policy.event_file import EventFile, crc32c

# By tensorboard 2.21.0: `RecordWriter` on `Event(wall_time=1.5, …).SerializeToString()` of a file
# version, of step 70,000 with two values, and of `SessionLog(status=START)` at step 300.
BY_TENSORBOARD = (
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
    "46000000000000007235b9a509000000000000f83f10f0a2042a370a1c0a15747261696e696e672f746f74616c5f"
    "72657761726415000080be0a170a10747261696e696e672f656e74726f7079150000803f740b2c24"
    "100000000000000095fbfe1809000000000000f83f10ac023a020801713b788a"
)


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


def test_the_bytes_are_those_that_tensorboard_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file.time, "time", lambda: 1.5)
    file = EventFile(tmp_path)
    file.scalars(70_000, {"step": 70_000, "total_reward": -0.25, "entropy": 1.0})
    file.resumed(300)
    assert file.path.read_bytes().hex() == BY_TENSORBOARD


def test_tensorboard_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is optional"
    )
    file = EventFile(tmp_path)
    for step in (0, 300, 600):
        file.scalars(step, {"total_reward": -1.0 if step else 0.0})
    file.resumed(300)  # what was written of later steps is undone
    for step in (300, 70_000):
        file.scalars(step, {"total_reward": step / 2})
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("training/total_reward")]
    assert seen == [(0, 0.0), (300, 150.0), (70_000, 35_000.0)]
