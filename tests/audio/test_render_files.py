"""What is written has exactly the rate, channels and length that source and EDL say."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.audio.io import read_audio
from rlhf_core.audio.render import match_loudness, render_pair
from rlhf_core.editing.edl import edl_from_json
from rlhf_core.types import BeatGrid
from tests.audio.edits import random_edl

SOURCES = [(".wav", "PCM_16"), (".wav", "PCM_24"), (".wav", "FLOAT"), (".flac", "PCM_24")]


def grid_of(seed: int, beats: int) -> BeatGrid:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.25, 0.6, beats + 1))
    return BeatGrid(times, np.arange(beats) % 4, 120.0)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000]),
    channels=st.sampled_from([1, 2]),
    source=st.sampled_from(SOURCES),
    suffix=st.sampled_from([".wav", ".flac"]),
)
def test_rate_channels_and_length(
    seed: int, rate: int, channels: int, source: tuple[str, str], suffix: str
) -> None:
    grid, rng = grid_of(seed, 12), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = 0.1 * rng.standard_normal((round((grid.times[-1] + 0.1) * rate), channels))
        soundfile.write(folder / f"x{source[0]}", noise.clip(-0.9, 0.9), rate, subtype=source[1])
        audio = read_audio(folder / f"x{source[0]}")
        edls = {"a": random_edl(grid, seed), "original": random_edl(grid, seed + 1)}
        matched = match_loudness(audio, edls)
        for side, path in matched.write(folder / "out", suffix).items():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels) == (rate, channels)
            assert info.frames == round(edls[side].duration_s * rate)
            written = soundfile.read(path, dtype="float32", always_2d=True)[0]
            np.testing.assert_allclose(written, matched.array(side), atol=0.51 / 32768)


def test_blocks_are_the_whole() -> None:
    """Read in stretches of any length, a render is the same to the bit."""
    grid, rng = grid_of(3, 40), np.random.default_rng(3)
    samples = (0.1 * rng.standard_normal((round(grid.times[-1] * 8000) + 1, 2))).astype(np.float32)
    from rlhf_core.audio.io import Audio

    audio = Audio(samples, 8000, Path("noise.wav"))
    edls = {"original": random_edl(grid, 4)}
    render = match_loudness(audio, edls).renders["original"]
    whole = render.read(0, render.frames)
    for size in (1, 17, 999, 50_000):
        count = 40 if size == 1 else -(-render.frames // size)
        for start in range(0, count * size, size):
            end = min(start + size, render.frames)
            np.testing.assert_array_equal(render.read(start, end), whole[start:end])
    np.testing.assert_array_equal(np.concatenate([b.copy() for b in render.blocks()]), whole)
    pair = render_pair(audio, *[edls["original"]] * 3)
    np.testing.assert_array_equal(pair.a, pair.b)


def test_exports_agree_with_each_other_and_read_back() -> None:
    edl = random_edl(grid_of(7, 64), 7)
    data = json.loads(json.dumps(edl.to_json(), allow_nan=False))
    assert edl_from_json(data, edl.beat_times).segments == edl.segments
    rows = list(csv.DictReader(io.StringIO(edl.to_csv())))
    labels = [line.split("\t") for line in edl.to_audacity_labels().splitlines()]
    assert len(rows) == len(labels) == len(data["segments"]) == len(edl.segments)
    position = 0.0
    for row, label, segment in zip(rows, labels, data["segments"], strict=True):
        assert float(row["out_start_s"]) == segment["out_start_s"]
        assert abs(float(label[0]) - position) < 2e-6
        position = float(row["out_end_s"])
        assert abs(float(label[1]) - position) < 2e-6
        assert label[2].startswith(f"beats {row['start_beat']}-")
        length = float(row["end_s"]) - float(row["start_s"])
        assert abs(length - (position - float(row["out_start_s"]))) < 1e-9
    assert abs(position - edl.duration_s) < 1e-9
