"""Small charts as SVG text for `gr.HTML`: pure functions, no state, no library.

Every chart is a `<figure>` with a title, axis labels and a text alternative, escaped by `text.esc`.
Colours are classes (`s0`…`s7` series, `e-…` kinds of segment) whose values stand in research.css
for light and dark: a palette that colour-blind people tell apart (Okabe and Ito). Coordinates are
SVG user units in a view box of `WIDTH` by a height; the figure scales to its column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from feedback_app.ui.text import Html, esc, number, percent

WIDTH = 380
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
MAX_POINTS = 300
N_COLOURS = 8


@dataclass(frozen=True)
class Series:
    """One line: points in the order of x, with an optional interval round each y.

    A point whose y is None or not finite breaks the line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r}: {len(self.x)} x but {len(values)} {name} values"
                )


@dataclass(frozen=True)
class Bar:
    """One bar with an optional interval; `note` stands behind its value."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    colour: int = 0


@dataclass(frozen=True)
class Scale:
    """A linear map from data to drawing units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def is_real(value: object) -> bool:
    """Whether a value can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def nice_ticks(low: float, high: float, count: int = 4, least: float = 0.0) -> list[float]:
    """Round values that cover [low, high] in about `count` steps, each `least` or more.

    >>> nice_ticks(0.0, 1.0)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * max(size, 1e-3):  # flat, as far as anybody can see
        pad = size * 0.1 if size > 1e-9 else 0.5
        low, high = low - pad, high + pad
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = 3 - math.floor(math.log10(step))
    return [round(i * step, places) for i in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number, short.

    >>> tick_text(40000.0), tick_text(0.25), tick_text(-3.0)
    ('40k', '0.25', '-3')
    """
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:.4g}"


def thin(series: Series, limit: int = MAX_POINTS) -> Series:
    """At most `limit` points, the first and the last among them."""
    n = len(series.x)
    if n <= limit:
        return series
    keep = [round(i * (n - 1) / (limit - 1)) for i in range(limit)]

    def pick(values: Sequence[float | None] | None) -> list[float | None] | None:
        return None if values is None else [values[i] for i in keep]

    return Series(
        series.name,
        [series.x[i] for i in keep],
        [series.y[i] for i in keep],
        pick(series.low),
        pick(series.high),
    )


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    height: int = 190,
    reference: tuple[float, str] | None = None,
    bounds: tuple[float, float] | None = None,
    x_names: Mapping[float, str] | None = None,
    about: str = "",
) -> Html:
    """Lines over one x axis, with interval bars, an optional named reference line and a legend.

    bounds: (low, high) that the y axis covers at least. x_names: what stands at values of x in
    place of numbers. Nothing to draw gives a line that says so.
    """
    drawn = [thin(line) for line in series if any(is_real(y) for y in line.y)]
    if not drawn:
        return nothing(title, about)
    y_ticks = _y_ticks(drawn, [*(bounds or ()), *([reference[0]] if reference else ())])
    xs = [x for line in drawn for x in line.x]
    counted = all(x == int(x) for x in xs)
    x_ticks = nice_ticks(min(xs), max(xs), least=1.0 if counted else 0.0)
    x_low, x_high = (min(xs), max(xs)) if max(xs) > min(xs) else (x_ticks[0], x_ticks[-1])
    across = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    down = Scale(y_ticks[0], y_ticks[-1], height - BOTTOM, TOP)
    named = {x: x_names[x] for x in sorted(set(xs)) if x in x_names} if x_names else {}
    if named:
        x_ticks = _spread(list(named))
        across = _roomy(across)
    labels = {x: named.get(x, tick_text(x)) for x in x_ticks}
    parts = [_axes(across, down, labels, y_ticks, height, x_label, y_label)]
    if reference:
        parts.append(_reference_line(down(reference[0]), reference[1]))
    for i, line in enumerate(drawn):
        parts.append(_line(line, i % N_COLOURS, across, down))
    names = [(i % N_COLOURS, line.name) for i, line in enumerate(drawn)]
    key = legend(names) if len(series) > 1 else ""
    return figure(title, "".join(parts), height, key, _summary(title, drawn), about=about)


def _y_ticks(lines: Sequence[Series], more: Sequence[float]) -> list[float]:
    """Ticks that cover all values and intervals of the lines, and more."""
    ys = [v for line in lines for v in (*line.y, *(line.low or ()), *(line.high or ()))]
    real = [float(v) for v in (*ys, *more) if v is not None and is_real(v)]
    return nice_ticks(min(real), max(real))


def _spread(values: list[float], most: int = 8) -> list[float]:
    """At most `most` of the values, evenly, the last among them."""
    step = -(-len(values) // most)
    return values[(len(values) - 1) % step :: step]


def _roomy(across: Scale) -> Scale:
    """The same scale with half a step's room at both ends, for names under the points."""
    room = min(28.0, (across.end - across.start) / 6)
    return Scale(across.low, across.high, across.start + room, across.end - room)


def _line(line: Series, colour: int, across: Scale, down: Scale) -> str:
    points: list[str] = []
    parts: list[str] = []
    pen = "M"
    for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if y is None or not is_real(y):
            pen = "M"
            continue
        points.append(f"{pen}{across(x)} {down(y)}")
        pen = "L"
        low = line.low[i] if line.low else None
        high = line.high[i] if line.high else None
        if low is not None and high is not None and is_real(low) and is_real(high):
            parts.append(_whisker_down(across(x), down(low), down(high), colour))
        if len(line.x) <= 30:
            text = f"{line.name}: {number(y, 3)} at {number(x)}"
            parts.append(
                f'<circle class="dot s{colour}" cx="{across(x)}" cy="{down(y)}" r="3">'
                f"<title>{esc(text)}</title></circle>"
            )
    path = f'<path class="line s{colour}" d="{" ".join(points)}"/>'
    return path + "".join(parts)


def _whisker_down(x: float, low: float, high: float, colour: int) -> str:
    d = f"M{x} {low}V{high}M{x - 4} {low}h8M{x - 4} {high}h8"
    return f'<path class="whisker s{colour}" d="{d}"/>'


def _axes(
    across: Scale,
    down: Scale,
    x_ticks: Mapping[float, str],
    y_ticks: Sequence[float],
    height: int,
    x_label: str,
    y_label: str,
) -> str:
    parts = []
    for tick in y_ticks:
        y = down(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick end" x="{LEFT - 5}" y="{y + 3.5}">{tick_text(tick)}</text>'
        )
    base = height - BOTTOM
    for tick, text in x_ticks.items():
        if across.low <= tick <= across.high:
            x = across(tick)
            parts.append(f'<text class="tick mid" x="{x}" y="{base + 14}">{esc(text)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="name mid" x="{middle}" y="{height - 4}">{esc(x_label)}</text>')
    side = (TOP + base) / 2
    parts.append(
        f'<text class="name mid" transform="translate(10 {side}) rotate(-90)">{esc(y_label)}</text>'
    )
    return "".join(parts)


def _reference_line(y: float, name: str) -> str:
    return (
        f'<path class="reference" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
        f'<text class="tick" x="{LEFT + 4}" y="{y - 4}">{esc(name)}</text>'
    )


def bar_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    x_label: str,
    bounds: tuple[float, float] = (0.0, 0.0),
    reference: tuple[float, str] | None = None,
    as_percent: bool = False,
    names: Sequence[str] = (),
    row: float = 22,
) -> Html:
    """Horizontal bars with interval whiskers, one row each, values at the right.

    bounds: what the axis covers at least; bars start at 0 where the axis holds it.
    names: what the bars' colours 0, 1 … mean, for a legend; row: a bar's height with its gap.
    """
    drawn = [bar for bar in bars if is_real(bar.value)]
    if not drawn:
        return nothing(title)
    ends = [v for bar in drawn for v in (bar.value, bar.low, bar.high) if v is not None]
    real = [float(v) for v in (*ends, *bounds, 0.0) if is_real(v)]
    if reference:
        real.append(reference[0])
    ticks = nice_ticks(min(real), max(real))
    left, right = 108, 88
    height = TOP + row * len(drawn) + BOTTOM + (12 if reference else 0)
    top = TOP + (12 if reference else 0)
    across = Scale(ticks[0], ticks[-1], left, WIDTH - right)
    parts = [value_axis(across, ticks, top, height - BOTTOM, x_label, as_percent)]
    parts += [_bar(bar, across, top + i * row, row, as_percent) for i, bar in enumerate(drawn)]
    if reference:
        x = across(reference[0])
        parts.append(f'<path class="reference" d="M{x} {top - 2}V{height - BOTTOM}"/>')
        parts.append(f'<text class="tick mid" x="{x}" y="{top - 4}">{esc(reference[1])}</text>')
    told = "; ".join(f"{bar.label} {value_text(bar.value, as_percent)}" for bar in drawn)
    key = legend(enumerate(names)) if names else ""
    return figure(title, "".join(parts), height, key, f"{title}: {told}")


def value_text(value: float | None, as_percent: bool) -> str:
    """A value as a chart in rows tells it; a dash where there is none."""
    return percent(value) if as_percent else number(value)


def value_axis(
    across: Scale, ticks: Sequence[float], top: float, base: float, x_label: str, as_percent: bool
) -> str:
    """The axis of a chart in rows: lines from top to base at the ticks, their values and a name."""
    parts = []
    for tick in ticks:
        x = across(tick)
        text = f"{100 * tick:g} %" if as_percent else tick_text(tick)
        parts.append(f'<path class="grid" d="M{x} {top}V{base}"/>')
        parts.append(f'<text class="tick mid" x="{x}" y="{base + 14}">{text}</text>')
    middle = (across.start + across.end) / 2
    parts.append(f'<text class="name mid" x="{middle}" y="{base + 30}">{esc(x_label)}</text>')
    return "".join(parts)


def _bar(bar: Bar, across: Scale, y: float, row: float, share: bool) -> str:
    value = float(bar.value or 0.0)
    zero = across(min(max(0.0, across.low), across.high))
    x, middle = across(value), y + row / 2
    colour = bar.colour % N_COLOURS
    name = bar.label if len(bar.label) <= 18 else bar.label[:17] + "…"
    text = f"{bar.label}: {value_text(bar.value, share)} {bar.note}".strip()
    thick = 0.6 * row
    parts = [
        f'<text class="tick end" x="102" y="{middle + 4}">{esc(name)}</text>',
        f'<rect class="bar s{colour}" x="{min(zero, x)}" y="{middle - thick / 2:.1f}" '
        f'height="{thick:.1f}" width="{max(abs(x - zero), 1):.2f}">'
        f"<title>{esc(text)}</title></rect>",
    ]
    if bar.low is not None and bar.high is not None and is_real(bar.low) and is_real(bar.high):
        a, b = across(bar.low), across(bar.high)
        d = f"M{a} {middle}H{b}M{a} {middle - 4}v8M{b} {middle - 4}v8"
        parts.append(f'<path class="whisker plain" d="{d}"/>')
    shown = f"{value_text(bar.value, share)} {bar.note}".strip()
    parts.append(f'<text class="tick" x="{WIDTH - 82}" y="{middle + 4}">{esc(shown)}</text>')
    return "".join(parts)


def legend(entries: Iterable[tuple[object, str]]) -> str:
    """What colours mean: (number of the colour, words)."""
    items = "".join(
        f'<span class="key"><i class="s{esc(colour)}"></i>{esc(name)}</span>'
        for colour, name in entries
    )
    return f'<div class="fa-legend">{items}</div>'


def _summary(title: str, lines: Sequence[Series]) -> str:
    told = []
    for line in lines:
        last = next((y for y in reversed(line.y) if is_real(y)), None)
        told.append(f"{line.name} ends at {number(last, 3)}")
    return f"{title}: {'; '.join(told)}"


def nothing(title: str, about: str = "") -> Html:
    """A chart's place while there is nothing to draw; about: what to do for it."""
    return Html(
        f'<figure class="fa-chart"><figcaption>{esc(title)}</figcaption>'
        f'<div class="fa-empty">{esc(about or "nothing to draw yet")}</div></figure>'
    )


def figure(
    title: str,
    body: str,
    height: float,
    key: str,
    told: str,
    width: float = WIDTH,
    about: str = "",
) -> Html:
    """A chart from its drawn body. key: a legend; told: the text alternative; about: a footnote."""
    foot = f'<p class="fa-quiet">{esc(about)}</p>' if about else ""
    return Html(
        f'<figure class="fa-chart"><figcaption>{esc(title)}</figcaption>'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{esc(told)}">{body}</svg>{key}{foot}</figure>'
    )
