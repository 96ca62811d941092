"""Zip archives whose bytes depend on their content alone: sorted names, one fixed time.

An npz is such an archive of .npy files, without pickles.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
COMPRESSED_ALREADY = (".flac", ".npz", ".parquet")
BLOCK = 1 << 20
# What reading an archive raises whose headers or contents are damaged, besides OSError.
DAMAGED: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError,
)  # fmt: skip


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16
    packed = name.endswith(COMPRESSED_ALREADY)
    info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    return info


def write_zip(
    target: Path, folder: Path, progress: Callable[[float], None] = lambda share: None
) -> None:
    """Everything in a folder, under the folder's relative names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(target, "w") as archive:
        for place, path in enumerate(files):
            info = _info(path.relative_to(folder).as_posix())
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as out:
                while block := source.read(BLOCK):
                    out.write(block)
            progress((place + 1) / len(files))


@dataclass(frozen=True)
class Chunks:
    """An array that is too large to hold: its shape and type, and its blocks of rows in order."""

    shape: tuple[int, ...]
    dtype: str
    blocks: Iterable[npt.NDArray[np.generic]]


def write_npz(target: Path, arrays: Mapping[str, npt.NDArray[np.generic] | Chunks]) -> None:
    """Arrays by name, in the order given."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            info = _info(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as out:
                if isinstance(array, Chunks):
                    _write_chunks(out, name, array)
                else:
                    plain = np.ascontiguousarray(array)
                    np.lib.format.write_array(out, plain, version=(1, 0), allow_pickle=False)


def _write_chunks(out: IO[bytes], name: str, array: Chunks) -> None:
    dtype, rows = np.dtype(array.dtype), 0
    header = {"descr": dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(out, header)
    for block in array.blocks:
        rows += len(block)
        out.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
    if rows != array.shape[0]:
        raise ValueError(f"{name}: {rows} rows came, {array.shape[0]} were announced")
