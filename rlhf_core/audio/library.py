"""Songs on disk and their cached analyses.

A song's id is the first 16 hex digits of the SHA-256 of its file, so a renamed file keeps its
analysis and a changed one gets a new one. `cache_dir/<song_id>.npz` holds the AudioState and what a
list of songs shows. A cache file of another version, featuriser, source of stems or beat correction
is made again; a damaged one is too, with a warning. Writes are atomic, and a song that another
process is analysing is waited for, not analysed twice.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from rlhf_core.audio import stems
from rlhf_core.audio.beats import (
    BEATS_VERSION,
    RATIOS,
    correct_grid,
    follow_taps,
    track_beats,
)
from rlhf_core.audio.cache import song_lock
from rlhf_core.audio.corrections import read_corrections, taps_of
from rlhf_core.audio.feature_table import FEATURE_VERSION
from rlhf_core.audio.features import beat_features
from rlhf_core.audio.io import ANALYSIS_RATE, AUDIO_SUFFIXES, Audio, read_audio, to_analysis
from rlhf_core.audio.loudness import integrated_loudness
from rlhf_core.errors import AudioError, CoreError, DataError
from rlhf_core.files import atomic_path, sha256_of
from rlhf_core.types import AudioState, BeatGrid, FloatArray

log = logging.getLogger(__name__)

WAVEFORM_POINTS: Final = 400
SPLITS: Final = ("train", "test")
STEM_SOURCES: Final = ("proxies", "demucs")


@dataclass(frozen=True)
class Song:
    """An analysed song. loudness_lufs is None for silence; waveform: (400,) peaks 0..1."""

    path: Path
    state: AudioState
    sample_rate: int
    duration_s: float
    channels: int
    split: str
    loudness_lufs: float | None = None
    waveform: FloatArray = field(default_factory=lambda: np.zeros(WAVEFORM_POINTS, np.float32))

    @property
    def song_id(self) -> str:
        return self.state.song_id

    @property
    def title(self) -> str:
        return self.path.stem


def song_id_of(path: Path) -> str:
    """16 hex digits of the file's content hash. Raises AudioError when it cannot be read."""
    try:
        return sha256_of(path)[:16]
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check the name") from error


def find_songs(folder: Path) -> list[Path]:
    """Audio files directly in a folder, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give one that holds songs")
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix.lower() in AUDIO_SUFFIXES
        and not path.name.startswith(".")
    )


def peaks(samples: FloatArray, points: int = WAVEFORM_POINTS) -> FloatArray:
    """(points,) largest magnitude of each stretch of (frames, channels), for drawing."""
    if not len(samples):
        return np.zeros(points, dtype=np.float32)
    starts = np.arange(points) * len(samples) // points
    ends = np.maximum(np.append(starts[1:], len(samples)), starts + 1)
    # stretch by stretch: an hour's worth of temporary arrays would weigh more than the samples
    parts = [samples[start:end] for start, end in zip(starts, ends, strict=True)]
    loud = [max(float(part.max()), -float(part.min())) for part in parts]
    return np.minimum(np.array(loud, dtype=np.float32), np.float32(1.0))


def apply_corrections(
    grid: BeatGrid, operations: tuple[str, ...], mono: FloatArray | None = None
) -> BeatGrid:
    """The grid after a person's corrections, in order. mono (at ANALYSIS_RATE) is for taps."""
    for operation in operations:
        name, _, value = operation.partition(":")
        if name in RATIOS:
            grid = correct_grid(grid, name)
        elif name == "offset":
            grid = correct_grid(grid, None, int(value))
        elif name == "tap":
            if mono is None:
                raise AudioError("tapped beats can only be followed with the samples at hand")
            grid = follow_taps(mono, ANALYSIS_RATE, taps_of(operation))
        else:
            first, bar = int(np.argmax(grid.bar_phase == 0)), int(value)
            phase = (np.arange(grid.n_beats) - first) % bar
            grid = replace(grid, bar_phase=phase, beats_per_bar=bar, source="corrected")
    return grid


def analyse(
    audio: Audio,
    song_id: str,
    operations: tuple[str, ...] = (),
    featuriser: str = "fast",
    stem_source: str = "proxies",
) -> AudioState:
    """Beats and features of decoded audio. stem_source: one of STEM_SOURCES."""
    whole = audio if stem_source == "demucs" else None
    return _state(to_analysis(audio), audio.path, song_id, operations, featuriser, whole)


def _state(
    mono: FloatArray,
    path: Path,
    song_id: str,
    operations: tuple[str, ...],
    featuriser: str,
    whole: Audio | None,
) -> AudioState:
    """`analyse` from the mono mix; `whole` only where stems are separated from it by Demucs."""
    separated, source = None, stems.SOURCE
    try:
        grid = apply_corrections(track_beats(mono, ANALYSIS_RATE), operations, mono)
        if whole is not None:
            # brings torch, so only where it was asked for
            from rlhf_core.audio import demucs_stems

            separated, source = demucs_stems.beat_stems(whole, grid), demucs_stems.SOURCE
        features = beat_features(mono, ANALYSIS_RATE, grid, separated, featuriser)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    return AudioState(song_id, grid, features, featuriser, source)


def _wanted(featuriser: str, operations: tuple[str, ...], stem_source: str) -> dict[str, Any]:
    """What a cache file must say about itself to be used."""
    return {
        "feature_version": FEATURE_VERSION,
        "beats_version": BEATS_VERSION,
        "featuriser": featuriser,
        "corrections": list(operations),
        "stems": stem_source,
    }


def _cached_stems(cache: Path) -> str:
    """The source of stems that a song was analysed with before; proxies where that is unknown."""
    try:
        with np.load(cache, allow_pickle=False) as data:
            source = json.loads(str(data["meta"])).get("stems")
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile):
        return STEM_SOURCES[0]  # missing, or damaged: reading it whole says so
    return str(source) if source in STEM_SOURCES else STEM_SOURCES[0]


def _write_cache(path: Path, song: Song, wanted: dict[str, Any]) -> None:
    grid = song.state.grid
    meta = wanted | {
        "song_id": song.song_id,
        "stem_source": song.state.stem_source,
        "sample_rate": song.sample_rate,
        "duration_s": song.duration_s,
        "channels": song.channels,
        "loudness_lufs": song.loudness_lufs,
        "tempo_bpm": grid.tempo_bpm,
        "beats_per_bar": grid.beats_per_bar,
        "beat_confidence": grid.confidence,
        "beat_source": grid.source,
    }
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            times=grid.times,
            bar_phase=grid.bar_phase,
            features=song.state.features,
            waveform=song.waveform,
            meta=np.array(json.dumps(meta)),
        )


def _read_cache(cache: Path, path: Path, split: str, wanted: dict[str, Any]) -> Song | None:
    """The song from its cache file; None where it must be analysed (again)."""
    if not cache.exists():
        return None
    try:
        with np.load(cache, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            stale = [key for key, value in wanted.items() if meta.get(key) != value]
            if stale:
                log.info("%s: analysed again, because %s changed", path.name, ", ".join(stale))
                return None
            grid = BeatGrid(
                data["times"],
                data["bar_phase"],
                float(meta["tempo_bpm"]),
                int(meta["beats_per_bar"]),
                float(meta["beat_confidence"]),
                str(meta["beat_source"]),
            )
            state = AudioState(
                meta["song_id"], grid, data["features"], meta["featuriser"], meta["stem_source"]
            )
            waveform = data["waveform"]
        return Song(
            path,
            state,
            int(meta["sample_rate"]),
            float(meta["duration_s"]),
            int(meta["channels"]),
            split,
            meta["loudness_lufs"],
            waveform,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: the cache file %s is damaged (%s); analysing again", path, cache, error)
    except AudioError as error:
        log.warning(
            "%s: the cache file %s makes no sense (%s); analysing again", path, cache, error
        )
    return None


def load_song(
    path: str | Path,
    cache_dir: str | Path,
    *,
    featuriser: str = "fast",
    split: str = "train",
    stem_source: str | None = None,
) -> Song:
    """A song from the cache, or analysed and cached. Raises AudioError when it cannot be used.

    stem_source None: as the song was analysed before, proxies for a new one; see STEM_SOURCES.
    """
    path, cache_dir = Path(path), Path(cache_dir)
    if not path.is_file() or path.stat().st_size == 0:
        read_audio(path)  # says why in words
    song_id = song_id_of(path)
    cache = cache_dir / f"{song_id}.npz"

    def cached() -> tuple[Song | None, dict[str, Any]]:
        source = stem_source or _cached_stems(cache)
        wanted = _wanted(featuriser, read_corrections(cache_dir, song_id), source)
        return _read_cache(cache, path, split, wanted), wanted

    found, _ = cached()
    if found is not None:
        return found
    with song_lock(cache_dir, song_id):
        found, wanted = cached()  # by whoever held the lock
        if found is None:
            found = _analysed(path, song_id, split, wanted)
            _write_cache(cache, found, wanted)
    return found


def _analysed(path: Path, song_id: str, split: str, wanted: dict[str, Any]) -> Song:
    """Decode and analyse a song as `wanted` says."""
    audio = read_audio(path)
    loudness = integrated_loudness(audio.samples, audio.sample_rate)
    figures = (audio.sample_rate, audio.duration_s, audio.channels, split)
    loud, drawn = loudness if np.isfinite(loudness) else None, peaks(audio.samples)
    mono, whole = to_analysis(audio), audio if wanted["stems"] == "demucs" else None
    del audio  # an hour of it is over a gigabyte, and the mix is all that the rest needs
    operations = tuple(wanted["corrections"])
    state = _state(mono, path, song_id, operations, wanted["featuriser"], whole)
    return Song(path, state, *figures, loud, drawn)


def default_cache_dir(data_dir: Path) -> Path:
    return data_dir / ".cache"


def load_library(
    data_dir: str | Path,
    cache_dir: str | Path | None = None,
    split: str = "train",
    featuriser: str = "fast",
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Song]:
    """The usable songs of data_dir/<split>, sorted by name.

    progress(done, total, title) is called after each file. A file that cannot be used is logged as
    a warning and left out; DataError when the folder is missing or none is usable.
    """
    data_dir = Path(data_dir)
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    folder, cache = data_dir / split, Path(cache_dir or default_cache_dir(data_dir))
    songs: list[Song] = []
    reasons: list[str] = []
    paths = find_songs(folder)
    for done, path in enumerate(paths, 1):
        try:
            songs.append(load_song(path, cache, featuriser=featuriser, split=split))
        except CoreError as error:
            reasons.append(str(error))
            log.warning("left out: %s", error)
        if progress is not None:
            progress(done, len(paths), path.stem)
    sources = sorted({song.state.stem_source for song in songs})
    if len(sources) > 1:
        log.warning(
            "%s: the songs' stems come from different sources (%s), so their stem features do not "
            "compare; analyse all again with one --stems",
            folder,
            ", ".join(sources),
        )
    if not songs:
        why = "; ".join(reasons) or "it holds no WAV, FLAC, OGG or MP3 files"
        raise DataError(f"{folder}: no usable song ({why})")
    return songs
