"""Nothing that somebody typed becomes markup."""

from __future__ import annotations

import doctest
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.ui import charts, text


class Reader(HTMLParser):
    """Collects the tags, the attributes and the text that a browser would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


typed = st.text(
    alphabet=st.characters(exclude_characters="\r\x00", exclude_categories=["Cs", "Cc"]),
    max_size=40,
)


@given(typed)
def test_escaped_text_is_read_back_as_it_was_and_holds_no_markup(value: str) -> None:
    inside = read(f"<p>{text.esc(value)}</p>")
    assert inside.tags == ["p"]
    assert inside.words == value
    quoted = read(f'<a title="{text.esc(value)}"></a>')
    assert quoted.attributes == [("title", value)]
    assert "${" not in text.esc(value) and "{{" not in text.esc(value)


@given(typed)
def test_pieces_escape_what_they_are_given(value: str) -> None:
    pieces = {
        "table": text.table(["a"], [[value]]),
        "facts": text.facts({value: value}),
        "figures": text.figures({value: value}),
        "chip": text.chip(value, value),
        "notice": text.notice(value or "x"),
        "heading": text.heading(value, value),
        "empty": text.empty(value),
    }
    tags = {name: set(read(html).tags) for name, html in pieces.items()}
    assert tags["table"] == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags["facts"] == {"dl", "dt", "dd"}
    assert tags["chip"] == {"span"}
    assert tags["notice"] | tags["empty"] == {"div"}
    assert tags["figures"] == {"div", "strong", "span"}
    assert tags["heading"] <= {"div", "h2", "p"}


def test_ready_html_is_left_alone_and_plain_text_beside_it_is_not() -> None:
    assert text.join(text.Html("<b>x</b>"), "<i>") == "<b>x</b>&lt;i&gt;"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (3600, "1:00:00"), (3725, "1:02:05"), (None, "–")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_figures_that_are_missing_or_not_finite_are_a_dash() -> None:
    assert [text.number(v) for v in (None, float("nan"), float("inf"), "7", True)] == ["–"] * 5
    assert text.interval(None, 0.1, 0.2) == "–"
    assert text.interval(0.5, None, 0.2) == "50 %"


def test_moments_in_any_form() -> None:
    assert text.when("2026-11-22T14:05:09Z") == "2026-11-22 14:05"
    assert text.when(0) == "1970-01-01 00:00"
    assert text.when("yesterday") == "yesterday"
    assert text.when(None) == "–"


def test_the_examples_in_the_docstrings_hold() -> None:
    for module in (text, charts):
        outcome = doctest.testmod(module)
        assert outcome.attempted > 0 and outcome.failed == 0
