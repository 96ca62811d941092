"""TensorBoard event files of scalars, written without TensorBoard.

A file is a row of TFRecords: length (8 bytes, little-endian), masked CRC-32C of those, the payload,
masked CRC-32C of it. A payload is an Event message: wall_time (field 1, double), step (2, varint),
file_version (3, string, in the first record only), summary (5) of values (1) with tag (1) and
simple_value (2, float), or session_log (7) of a status (1; 1 means start).
Source: tensorflow/core/util/event.proto and lib/io/record_writer.cc.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
MASK_DELTA = 0xA282EAD8


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", (((value >> 15) | (value << 17)) + MASK_DELTA) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


class EventFile:
    """Appends scalars to one new file of a folder; each call is one write, flushed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"
        self._write(_field(3, b"brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Every finite number among `values` but the step itself, as training/<name>."""
        summary = b"".join(
            _field(1, _field(1, f"training/{name}".encode()) + b"\x15" + struct.pack("<f", value))
            for name, value in values.items()
            if name != "step" and isinstance(value, int | float) and math.isfinite(value)
        )
        self._write(b"\x10" + _varint(step) + _field(5, summary))

    def resumed(self, step: int) -> None:
        """Say that training goes on from `step`: what older files hold from there on is undone."""
        self._write(b"\x10" + _varint(step) + _field(7, b"\x08\x01"))

    def _write(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(event))
        with self.path.open("ab") as file:
            file.write(length + _masked(length) + event + _masked(event))
