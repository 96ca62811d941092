"""Stems by Demucs with a stand-in for the package (tests/audio/fake_demucs); never a download."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rlhf_core import precache_stems
from rlhf_core.audio.feature_table import FEATURE_SLICES, STEMS
from rlhf_core.audio.library import load_library, load_song
from rlhf_core.errors import ConfigError

FAKE = Path(__file__).parent / "fake_demucs"


@pytest.fixture
def song_file(tmp_path: Path) -> Path:
    """Twelve seconds, 120 BPM: a bass tone of 80 Hz, ever louder, under clicks (synthetic)."""
    rate = 22050
    time = np.arange(12 * rate) / rate
    mono = 0.3 * np.sin(2 * np.pi * 80 * time) * time / 12
    for beat in np.arange(0.25, 11.9, 0.5):
        at = int(beat * rate)
        mono[at : at + 400] += 0.3 * np.random.default_rng(1).standard_normal(400)
    path = tmp_path / "train" / "song.wav"
    path.parent.mkdir()
    soundfile.write(path, np.stack([mono, 0.8 * mono], axis=1), rate)
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file of weights, and the stand-in package on the path."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "955717e8-00000000.th").write_bytes(b"synthetic")
    monkeypatch.setenv("DEMUCS_WEIGHTS", str(folder))
    monkeypatch.syspath_prepend(str(FAKE))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "demucs"]:
        del sys.modules[name]


def test_separated_stems_become_features(song_file: Path, tmp_path: Path, weights: Path) -> None:
    proxies = load_song(song_file, tmp_path / "a").state
    separated = load_song(song_file, tmp_path / "b", stem_source="demucs").state
    assert (proxies.stem_source, separated.stem_source) == ("proxies", "demucs htdemucs")
    first = FEATURE_SLICES["stem_energy"].start
    np.testing.assert_array_equal(proxies.features[:, :first], separated.features[:, :first])
    energy = dict(zip(STEMS, separated.features[:, FEATURE_SLICES["stem_energy"]].T, strict=True))
    centroid = separated.features[:, FEATURE_SLICES["stem_centroid"]]
    assert 60 < float(np.median(centroid[4:-1, STEMS.index("bass")])) < 150  # the tone's 80 Hz
    # twice as loud on beat 2n as on beat n: 6 dB
    assert energy["bass"][16] - energy["bass"][8] == pytest.approx(6, abs=1.0)
    np.testing.assert_allclose(energy["drums"], energy["vocals"], atol=1e-3)  # equal parts
    share = separated.features[:, FEATURE_SLICES["stem_ratio"]].sum(axis=1)
    np.testing.assert_allclose(share, 1.0, atol=1e-5)


def test_the_source_of_stems_stays_until_another_is_asked_for(
    song_file: Path, tmp_path: Path, weights: Path
) -> None:
    cache = tmp_path / "cache"
    assert load_song(song_file, cache).state.stem_source == "proxies"
    assert load_song(song_file, cache, stem_source="demucs").state.stem_source != "proxies"
    assert load_song(song_file, cache).state.stem_source == "demucs htdemucs"
    assert load_song(song_file, cache, stem_source="proxies").state.stem_source == "proxies"


def test_a_library_of_mixed_sources_is_told(
    song_file: Path, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = song_file.with_name("other.wav")
    samples, rate = soundfile.read(song_file)
    soundfile.write(other, 0.5 * samples, rate)
    load_song(other, tmp_path / ".cache", stem_source="demucs")
    with caplog.at_level(logging.WARNING):
        load_library(tmp_path)
    assert "demucs htdemucs, proxies" in caplog.text


def test_without_the_package_it_says_what_to_install(
    song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("demucs"):
        pytest.skip("demucs is installed here")
    assert precache_stems.main([str(song_file), "--stems", "demucs"]) == 2
    message = capsys.readouterr().err
    assert "rlhf-audio-editor[demucs]" in message and "--stems proxies" in message
    with pytest.raises(ConfigError, match="not installed"):
        load_song(song_file, tmp_path / "c", stem_source="demucs")


def test_missing_or_broken_weights_are_named(song_file: Path, weights: Path) -> None:
    (file,) = weights.iterdir()
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_song(song_file, weights, stem_source="demucs")
    file.unlink()
    with pytest.raises(ConfigError, match=r"holds no weights.*955717e8"):
        load_song(song_file, weights, stem_source="demucs")


def test_the_command_separates(
    song_file: Path, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert precache_stems.main([str(tmp_path), "--stems", "demucs", "--workers", "1"]) == 0
    song = load_song(song_file, tmp_path / ".cache")
    assert song.state.stem_source == "demucs htdemucs"
