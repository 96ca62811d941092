"""Reading and writing audio files.

Samples are float32, (frames, channels), full scale ±1, at the file's own rate. Analysis runs on a
mono mix at `ANALYSIS_RATE`. WAV, FLAC, OGG (Vorbis, Opus) and MP3 are decoded by libsndfile.
Every file that cannot be used raises AudioError, which names the file, says why and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile
import soxr  # type: ignore[import-untyped]

from rlhf_core.errors import AudioError
from rlhf_core.files import atomic_path, room
from rlhf_core.types import FloatArray

ANALYSIS_RATE: Final = 22050
AUDIO_SUFFIXES: Final = (".wav", ".flac", ".ogg", ".mp3")
MIN_SECONDS: Final = 3.0
MAX_SECONDS: Final = 2 * 3600.0
MAX_SAMPLES: Final = 2 * 3600 * 96000 * 2
"""What is decoded at most, over all channels: two hours of stereo at 96 kHz, 5.5 GB."""
BLOCK_FRAMES: Final = 32768
_DEFAULT_SUBTYPE: Final = {".wav": "PCM_16", ".flac": "PCM_16"}


@dataclass(frozen=True)
class Audio:
    """A decoded file. samples: (frames, channels) float32."""

    samples: FloatArray
    sample_rate: int
    path: Path

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] not in (1, 2):
            raise AudioError(
                f"{self.path}: expected mono or stereo samples as (frames, channels), got shape "
                f"{self.samples.shape}; mix the file down to stereo first"
            )

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate

    @property
    def channels(self) -> int:
        return int(self.samples.shape[1])


def _check_file(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"{path}: there is no such file; check the name")
    if not path.is_file():
        raise AudioError(f"{path}: this is not a file; give the path of an audio file")
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise AudioError(
            f"{path}: {path.suffix or 'a file without a suffix'} is not read; convert it to one "
            f"of {', '.join(suffix[1:].upper() for suffix in AUDIO_SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty; copy or export it again")


def _check_complete(path: Path) -> None:
    """A WAV file that says that it is longer than it is was cut off, in a copy or an upload.

    Sizes near 2 or 4 GiB are what programs write that cannot know the length: those are read.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != b"RIFF" or len(head) < 8:
        return
    declared, size = int.from_bytes(head[4:], "little") + 8, path.stat().st_size
    if size + 1 < declared < 0x7FFF0000:
        raise AudioError(
            f"{path}: damaged: {size} of {declared} bytes are there, the rest was cut off; copy "
            "or export it again"
        )


def _check_length(path: Path, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{path}: only {seconds:.2f} s long, too short to edit (8 beats, at least "
            f"{MIN_SECONDS:.0f} s, are needed); give a longer recording"
        )
    if seconds > MAX_SECONDS:
        raise AudioError(
            f"{path}: {seconds / 60:.0f} minutes long, more than the {MAX_SECONDS / 60:.0f} that "
            "are read; cut it into single songs"
        )


def read_audio(path: str | Path) -> Audio:
    """Decode a whole file. Raises AudioError for anything that cannot be edited."""
    path = Path(path)
    _check_file(path)
    try:
        _check_complete(path)
        with soundfile.SoundFile(path) as file:
            rate, expected = int(file.samplerate), int(file.frames)
            if file.channels > 2:
                raise AudioError(
                    f"{path}: {file.channels} channels; mix it down to mono or stereo first"
                )
            _check_length(path, expected / rate)
            if expected * file.channels > MAX_SAMPLES:
                raise AudioError(
                    f"{path}: {expected * file.channels:.3g} samples, more than the "
                    f"{MAX_SAMPLES:.3g} that are read; resample it to 48 kHz, or cut it"
                )
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(
            f"{path}: cannot be decoded ({error}); it is damaged or not really audio: "
            "play it elsewhere, then export it again as WAV or FLAC"
        ) from error
    if path.suffix.lower() != ".mp3" and len(samples) < expected:  # MP3 lengths are estimates
        raise AudioError(
            f"{path}: damaged: only {len(samples) / rate:.1f} of {expected / rate:.1f} s can be "
            "decoded; copy or export it again"
        )
    _check_length(path, len(samples) / rate)
    blocks = range(0, len(samples), BLOCK_FRAMES)
    if not all(np.isfinite(samples[i : i + BLOCK_FRAMES]).all() for i in blocks):
        raise AudioError(
            f"{path}: holds samples that are not numbers (NaN or infinity); export it again"
        )
    return Audio(samples, rate, path)


def write_audio(
    path: Path, samples: FloatArray, sample_rate: int, subtype: str | None = None
) -> None:
    """Write (frames[, channels]) as WAV or FLAC (by suffix), as `write_blocks` does."""
    whole = samples if samples.ndim == 2 else samples[:, None]
    blocks = (whole[i : i + BLOCK_FRAMES] for i in range(0, len(whole), BLOCK_FRAMES))
    write_blocks(path, blocks, sample_rate, whole.shape[1], subtype)


def write_blocks(
    path: Path,
    blocks: Iterable[FloatArray],
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
) -> None:
    """Write blocks of (frames, channels) as one WAV or FLAC file (by suffix), atomically.

    Values beyond ±1 would clip: they are refused, because the caller should lower the level.
    """
    suffix = path.suffix.lower()
    if suffix not in _DEFAULT_SUBTYPE:
        raise AudioError(f"{path}: only .wav and .flac are written; change the suffix")
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                temporary,
                "w",
                samplerate=sample_rate,
                channels=channels,
                format=suffix[1:].upper(),
                subtype=subtype or _DEFAULT_SUBTYPE[suffix],
            ) as file,
        ):
            sixteen = file.subtype == "PCM_16"
            for block in blocks:
                peak = max(float(block.max()), -float(block.min())) if block.size else 0.0
                if not peak <= 1.0:
                    raise AudioError(
                        f"{path}: samples reach {peak:.3f}, beyond full scale; lower the level"
                    )
                file.write(_to_int16(block) if sixteen else block)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: cannot be written ({error} {room(path)})") from error


def _to_int16(samples: FloatArray) -> npt.NDArray[np.int16]:
    """The exact inverse of how 16-bit files are read (32768 = full scale)."""
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.minimum(scaled, 32767, out=scaled)  # +1 itself; below -1 nothing comes here
    return scaled.astype(np.int16)


def _mono(samples: FloatArray) -> FloatArray:
    """Mono mix of a block."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    return np.asarray(samples @ np.full(2, 0.5, dtype=np.float32), dtype=np.float32)


def _cancels(samples: FloatArray) -> bool:
    """Whether two channels are in opposite phase, so that nothing is left of their sum."""
    if samples.shape[1] == 1:
        return False
    mixed = alone = 0.0
    for start in range(0, len(samples), BLOCK_FRAMES):
        block = samples[start : start + BLOCK_FRAMES]
        mix, left = _mono(block), np.ascontiguousarray(block[:, 0])
        mixed += float(mix @ mix)
        alone += float(left @ left)
    return mixed < 1e-4 * alone


def to_analysis(audio: Audio) -> FloatArray:
    """Mono float32 samples at `ANALYSIS_RATE`.

    Channels in opposite phase would cancel: then the first stands for both. Long recordings are
    mixed and resampled in blocks, so that nothing but the result is held beside the source.
    """
    samples = audio.samples[:, :1] if _cancels(audio.samples) else audio.samples
    if audio.sample_rate == ANALYSIS_RATE:
        return _mono(samples)
    stream = soxr.ResampleStream(audio.sample_rate, ANALYSIS_RATE, 1, quality="HQ")
    out = np.empty(len(samples) * ANALYSIS_RATE // audio.sample_rate + BLOCK_FRAMES, np.float32)
    filled, starts = 0, range(0, len(samples), BLOCK_FRAMES)
    for start in starts:
        block = _mono(samples[start : start + BLOCK_FRAMES])
        part = stream.resample_chunk(block, last=start == starts[-1])
        out[filled : filled + len(part)] = part
        filled += len(part)
    return out[:filled]
