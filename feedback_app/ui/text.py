"""Words and small pieces of HTML for the researcher's page: everything in them is escaped.

Titles, names, comments and error messages were typed by people. `esc` is the one way for such text
into HTML; the functions here that build HTML escape whatever they are given, so a caller can not
forget it. A piece of ready HTML is marked by its type, `Html`, and is then left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

# `$`, `{` and backticks mean something to Gradio's client-side templates: as entities they are text
_TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})
DASH = "–"


class Html(str):
    """HTML that is already safe to show."""

    __slots__ = ()


def esc(value: object) -> str:
    """Any value as text that is safe in HTML content and in quoted attributes.

    >>> esc('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    if isinstance(value, Html):
        return value
    return escape("" if value is None else str(value), quote=True).translate(_TEMPLATE)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, digits: int = 2) -> str:
    """A number for reading, or a dash where there is none.

    >>> number(1234567), number(0.12345), number(None)
    ('1,234,567', '0.12', '–')
    """
    found = _finite(value)
    if found is None:
        return DASH
    if isinstance(value, int) or (found == int(found) and abs(found) >= 1000):
        return f"{int(found):,}"
    return f"{found:.{digits}f}"


def percent(value: object) -> str:
    """A share of 1 as a percentage.

    >>> percent(0.704)
    '70 %'
    """
    found = _finite(value)
    return DASH if found is None else f"{100 * found:.0f} %"


def interval(value: object, low: object, high: object, *, share: bool = True) -> str:
    """A figure with its interval.

    >>> interval(0.7, 0.61, 0.78)
    '70 % (61–78)'
    """
    show = percent(value) if share else number(value)
    bounds = (_finite(low), _finite(high))
    if bounds[0] is None or bounds[1] is None or show == DASH:
        return show
    if share:
        return f"{show} ({100 * bounds[0]:.0f}{DASH}{100 * bounds[1]:.0f})"
    return f"{show} ({number(bounds[0])} to {number(bounds[1])})"


def duration(seconds: object) -> str:
    """A span of time: 8 s, 1:05, 2:03:10.

    >>> duration(65.2)
    '1:05'
    """
    found = _finite(seconds)
    if found is None:
        return DASH
    whole = max(0, round(found))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def when(value: object) -> str:
    """A moment (ISO text, epoch seconds or datetime) as `2026-11-22 14:05` in UTC."""
    if value is None or value == "":
        return DASH
    if isinstance(value, (int, float)):
        moment = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, datetime):
        moment = value
    else:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            return str(value)
    return moment.strftime("%Y-%m-%d %H:%M")


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 vote`, `1,204 votes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def label(key: str) -> str:
    """A figure's key as words: `win_rate_parent` → `Win rate parent`."""
    return key.replace("_", " ").strip().capitalize()


def chip(text: object, tone: str = "plain") -> Html:
    """A small label. tone: plain, good, warn, bad, info."""
    return Html(f'<span class="fa-chip fa-{esc(tone)}">{esc(text)}</span>')


def notice(text: object, tone: str = "info") -> Html:
    """A line that says what happened; nothing for an empty text."""
    if not text:
        return Html("")
    return Html(f'<div class="fa-notice fa-{esc(tone)}" role="status">{esc(text)}</div>')


def heading(title: str, about: str = "") -> Html:
    """A section's title with one line about it."""
    line = f"<p>{esc(about)}</p>" if about else ""
    return Html(f'<div class="fa-heading"><h2>{esc(title)}</h2>{line}</div>')


def empty(text: str) -> Html:
    """What stands where there is nothing yet, and what to do about it."""
    return Html(f'<div class="fa-empty">{esc(text)}</div>')


def facts(rows: Mapping[str, object]) -> Html:
    """Name and value, one line each."""
    body = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in rows.items())
    return Html(f'<dl class="fa-facts">{body}</dl>')


def figures(rows: Mapping[str, object]) -> Html:
    """Large figures side by side, each over its name."""
    body = "".join(
        f'<div class="fa-figure"><strong>{esc(value)}</strong><span>{esc(name)}</span></div>'
        for name, value in rows.items()
    )
    return Html(f'<div class="fa-figures">{body}</div>')


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str = "",
    tall: bool = False,
) -> Html:
    """A table that scrolls sideways by itself on narrow screens; a tall one also downwards."""
    head = "".join(f'<th scope="col">{esc(name)}</th>' for name in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption>{esc(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="fa-scroll{" fa-tall" if tall else ""}" tabindex="0">'
        f'<table class="fa-table">{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def join(*parts: str) -> Html:
    """Ready pieces put one after the other. Plain text among them is escaped."""
    return Html("".join(esc(part) for part in parts))
