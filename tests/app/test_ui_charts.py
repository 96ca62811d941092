"""Charts and drawings: well-formed, escaped, and with as many marks as there are data."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.ui import charts, drawings
from rlhf_core.editing.actions import Action
from rlhf_core.editing.edl import build_edl
from rlhf_core.types import BeatGrid, Passage

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "</svg><script>alert('x')</script>\" & ${1}"
numbers = st.floats(-1e9, 1e9, allow_nan=False)


def parse(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [item for item in root.iter() if name in (item.get("class") or "").split()]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_any_numbers_give_well_formed_lines_inside_the_frame(
    points: list[tuple[float, float]],
) -> None:
    xs = sorted(x for x, _ in points)
    line = charts.Series("s", xs, [y for _, y in points])
    root = parse(charts.line_chart("t", [line], x_label="x", y_label="y", height=190))
    (path,) = of_class(root, "line")
    found = [float(v) for v in re.findall(r"-?[\d.]+(?:e-?\d+)?", path.get("d") or "")]
    assert len(found) == 2 * len(points)
    assert all(0 <= x <= charts.WIDTH for x in found[::2])
    assert all(0 <= y <= 190 for y in found[1::2])


def test_a_line_has_its_points_in_the_right_places() -> None:
    line = charts.Series("s", [0, 1, 2], [0.0, 1.0, 0.5])
    root = parse(charts.line_chart("t", [line], x_label="x", y_label="y", height=190))
    dots = [(float(d.get("cx", "")), float(d.get("cy", ""))) for d in of_class(root, "dot")]
    low, high = 190 - charts.BOTTOM, charts.TOP
    assert dots == [
        (charts.LEFT, low),
        ((charts.LEFT + charts.WIDTH - charts.RIGHT) / 2, high),
        (charts.WIDTH - charts.RIGHT, (low + high) / 2),
    ]


def test_missing_values_break_the_line_and_intervals_are_drawn_where_known() -> None:
    line = charts.Series(
        "s", [0, 1, 2, 3], [1.0, None, 2.0, math.nan], [0.5, None, None, 0], [1.5, None, 2, 1]
    )
    root = parse(charts.line_chart("t", [line], x_label="x", y_label="y"))
    (path,) = of_class(root, "line")
    assert (path.get("d") or "").count("M") == 2
    assert len(of_class(root, "whisker")) == 1
    assert len(of_class(root, "dot")) == 2


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    n = 5000
    line = charts.thin(
        charts.Series("s", [float(i) for i in range(n)], [float(i) for i in range(n)])
    )
    assert len(line.x) == charts.MAX_POINTS
    assert (line.x[0], line.x[-1]) == (0.0, n - 1.0)
    assert list(line.x) == list(line.y) and sorted(set(line.x)) == list(line.x)


def test_bars_have_lengths_in_proportion_and_whiskers() -> None:
    bars = [charts.Bar("a", 0.25, 0.1, 0.4), charts.Bar("b", 0.5), charts.Bar("gone", None)]
    root = parse(charts.bar_chart("t", bars, x_label="x", bounds=(0, 1), as_percent=True))
    widths = [float(bar.get("width", "")) for bar in of_class(root, "bar")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.02)
    assert len(of_class(root, "whisker")) == 1
    assert "50 %" in "".join(root.itertext())


def test_negative_bars_grow_to_the_left_of_zero() -> None:
    bars = [charts.Bar("down", -1.0), charts.Bar("up", 1.0)]
    root = parse(charts.bar_chart("t", bars, x_label="x"))
    down, up = of_class(root, "bar")
    ends = float(down.get("x", "")) + float(down.get("width", ""))
    assert ends == pytest.approx(float(up.get("x", "")), abs=0.02)


@given(numbers, numbers)
def test_ticks_cover_the_range_evenly(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = charts.nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    gaps = np.diff(ticks)
    assert np.all(gaps > 0) and np.allclose(gaps, gaps[0], rtol=1e-6)


def test_words_in_charts_are_escaped() -> None:
    drawn = [
        charts.line_chart(
            NASTY, [charts.Series(NASTY, [0.0], [1.0])], x_label=NASTY, y_label=NASTY,
            reference=(1.0, NASTY),
        ),
        charts.bar_chart(
            NASTY, [charts.Bar(NASTY, 1.0, note=NASTY)], x_label=NASTY, names=[NASTY],
            reference=(1.0, NASTY),
        ),
        charts.line_chart(NASTY, [], x_label="x", y_label="y"),
        drawings.waveform([0.5], 1.0, [0.0], [0], title=NASTY),
        drawings.edl_drawing(build_edl([0] * 16, grid(16), Passage(0, 16)).to_json(), name=NASTY),
    ]  # fmt: skip
    for html in drawn:
        root = parse(html)
        assert not [item for item in root.iter() if item.tag.endswith("script")]
        assert "${" not in html


def test_a_series_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x but 1 y"):
        charts.Series("s", [0.0, 1.0], [1.0])


def grid(n: int) -> BeatGrid:
    return BeatGrid(np.arange(n + 1) * 0.5, np.arange(n) % 4, 120.0)


def test_the_waveform_shows_every_beat_and_downbeat() -> None:
    beats = [i * 0.5 for i in range(16)]
    html = drawings.waveform([0.1, 0.9, 2.0], 8.0, beats, [i % 4 for i in range(16)], title="t")
    root = parse(html)
    (plain,), (down,) = of_class(root, "beat"), of_class(root, "downbeat")
    assert (plain.get("d") or "").count("M") == 12
    assert (down.get("d") or "").count("M") == 4


def kinds(changes: dict[int, Action]) -> list[tuple[str, int, int]]:
    actions = [int(changes.get(i, Action.KEEP)) for i in range(32)]
    edl = build_edl(actions, grid(32), Passage(0, 32)).to_json()
    found = drawings.stretches(edl)
    assert found[-1].out_end_s == pytest.approx(edl["duration_s"])
    return [(part.kind, part.first_beat, part.last_beat) for part in found]


def test_stretches_tell_what_was_done() -> None:
    assert kinds({}) == [("kept", 0, 31)]
    assert kinds({4: Action.CUT}) == [("kept", 0, 3), ("kept", 5, 31)]
    assert kinds({4: Action.LOOP}) == [("kept", 0, 4), ("repeat", 4, 4), ("kept", 5, 31)]
    assert kinds({8: Action.REPEAT_BAR}) == [("kept", 0, 11), ("repeat", 8, 11), ("kept", 12, 31)]
    assert kinds({8: Action.SWAP_BAR}) == [
        ("kept", 0, 7), ("moved", 12, 15), ("moved", 8, 11), ("kept", 16, 31),
    ]  # fmt: skip
    assert kinds({2: Action.FADE_IN, 3: Action.FADE_IN})[1] == ("fade", 2, 3)
    assert kinds({5: Action.GAIN_DOWN})[1] == ("quieter", 5, 5)
    assert kinds({5: Action.GAIN_UP})[1] == ("louder", 5, 5)
    assert kinds({5: Action.REVERSE})[1] == ("reverse", 5, 5)


def test_the_edl_drawing_marks_what_was_cut_at_its_place_in_the_original() -> None:
    actions = [int(Action.CUT) if 8 <= i < 12 else 0 for i in range(32)]
    edl = build_edl(actions, grid(32), Passage(0, 32)).to_json()
    root = parse(drawings.edl_drawing(edl))
    (cut,) = of_class(root, "e-cut")
    assert float(cut.get("x", "")) == pytest.approx(drawings.SPAN * 8 / 32)
    assert float(cut.get("width", "")) == pytest.approx(drawings.SPAN * 4 / 32, abs=2)
