"""Edit decision lists against answers worked out by hand on a 16-beat passage at 120 BPM."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import EDL, build_edl, edl_from_json
from rlhf_core.errors import EditError
from rlhf_core.types import BeatGrid, Passage

START = 8
GRID = BeatGrid(np.arange(33) * 0.5, np.arange(32) % 4, tempo_bpm=120.0)
PASSAGE = Passage(START, START + 16)


def edl(**actions: Action) -> EDL:
    """An edit from beats named b0..b15 in the passage; the rest is kept."""
    ids = [int(actions.get(f"b{beat}", Action.KEEP)) for beat in range(16)]
    return build_edl(ids, GRID, PASSAGE)


def order(edit: EDL) -> list[int]:
    return [beat.source_beat - START for beat in edit.beats]


def test_keeping_everything_is_one_segment() -> None:
    edit = edl()
    assert len(edit.segments) == 1
    assert (edit.segments[0].start_beat, edit.segments[0].end_beat) == (8, 24)
    assert edit.duration_s == 8.0


def test_cut_and_loop() -> None:
    edit = edl(b2=Action.CUT, b5=Action.LOOP)
    assert order(edit) == [0, 1, 3, 4, 5, 5, *range(6, 16)]
    assert [(s.start_beat - 8, s.end_beat - 8) for s in edit.segments] == [(0, 2), (3, 6), (5, 16)]


def test_repeating_a_bar_plays_all_of_it_twice() -> None:
    assert order(edl(b4=Action.REPEAT_BAR)) == [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, *range(8, 16)]


def test_swapping_a_bar_with_the_next() -> None:
    assert order(edl(b4=Action.SWAP_BAR)) == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, *range(12, 16)]


def test_covered_beats_are_kept_whatever_was_asked() -> None:
    edit = edl(b4=Action.SWAP_BAR, b5=Action.CUT, b8=Action.REPEAT_BAR, b11=Action.LOOP)
    assert order(edit) == order(edl(b4=Action.SWAP_BAR))


def test_bar_actions_off_the_downbeat_or_without_room_count_as_keep() -> None:
    assert order(edl(b5=Action.REPEAT_BAR)) == list(range(16))
    assert order(edl(b12=Action.SWAP_BAR)) == list(range(16))
    assert order(edl(b12=Action.REPEAT_BAR)) == [*range(16), 12, 13, 14, 15]


def test_at_least_eight_beats_always_remain() -> None:
    edit = build_edl([int(Action.CUT)] * 16, GRID, PASSAGE)
    assert order(edit) == list(range(8, 16))


def test_neighbouring_fades_are_one_ramp() -> None:
    edit = edl(b0=Action.FADE_IN, b1=Action.FADE_IN, b14=Action.FADE_OUT, b15=Action.FADE_OUT)
    gains = [(beat.gain_start, beat.gain_end) for beat in edit.beats]
    assert gains[:2] == [(0.0, 0.5), (0.5, 1.0)]
    assert gains[-2:] == [(1.0, 0.5), (0.5, 0.0)]
    assert [(s.gain_start, s.gain_end) for s in edit.segments] == [(0, 1), (1, 1), (1, 0)]


def test_gain_and_reverse_are_segments_of_their_own() -> None:
    edit = edl(b3=Action.GAIN_DOWN, b7=Action.REVERSE, b8=Action.REVERSE)
    assert order(edit) == list(range(16))
    down = edit.segments[1]
    assert (
        20 * np.log10(down.gain_start) == pytest.approx(-6.0) and down.gain_end == down.gain_start
    )
    reversed_beats = [s.start_beat - START for s in edit.segments if s.reverse]
    assert reversed_beats == [7, 8]


def test_json_holds_the_map_from_output_to_source() -> None:
    data = edl(b2=Action.CUT).to_json()
    assert data["beats"][2] == [START + 3, 1.0, 0.5, 0]
    assert data["segments"][1]["start_s"] == 5.5 and data["segments"][1]["out_start_s"] == 1.0
    assert data["duration_s"] == 7.5


def test_csv_and_labels_are_read_by_their_readers() -> None:
    edit = edl(b2=Action.CUT, b9=Action.REVERSE)
    rows = list(csv.DictReader(io.StringIO(edit.to_csv())))
    assert len(rows) == len(edit.segments) and float(rows[-1]["out_end_s"]) == edit.duration_s
    for line in edit.to_audacity_labels().splitlines():
        start, end, text = line.split("\t")
        assert float(start) < float(end) and text.startswith("beats ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("segments"),
        lambda d: d["segments"][0].pop("reverse"),
        lambda d: d["segments"][0].update(start_beat=-1),
        lambda d: d["segments"][0].update(end_beat="many"),
        lambda d: d.update(segments=[]),
        lambda d: d.update(passage=None),
    ],
)
def test_a_malformed_list_is_refused(damage) -> None:
    edit = edl(b2=Action.CUT)
    data = edit.to_json()
    damage(data)
    with pytest.raises(EditError):
        edl_from_json(data, edit.beat_times)


def test_wrong_actions_are_named() -> None:
    with pytest.raises(EditError, match="16 integer actions"):
        build_edl([0] * 15, GRID, PASSAGE)
    with pytest.raises(EditError, match="action id 10"):
        build_edl([0] * 15 + [10], GRID, PASSAGE)
    with pytest.raises(EditError, match="the song has 32"):
        build_edl([0] * 32, GRID, Passage(8, 40))
