"""Charts of estimates: dots with their intervals in rows, and a matrix of people by people.

A dot and a line say what a bar would hide: how sure a figure is, and whether it could as well be
the reference. Same conventions as `charts`: pure functions, SVG text, escaped, colours by class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedback_app.ui import charts
from feedback_app.ui.charts import Scale, is_real, nice_ticks, value_text
from feedback_app.ui.text import DASH, Html, esc, number

NAMES, VALUES, TOP, BOTTOM, ROW = 100, 92, 14, 36, 24
WIDTH = 390
CELL, LABEL = 44, 96
MOST_PEOPLE = 14  # a larger matrix cannot be read; the table has everybody


@dataclass(frozen=True)
class Dot:
    """An estimate with its interval; `second` is another estimate of the same thing, drawn below.

    faint: an open dot, where the figure rests on few votes.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    second: float | None = None
    faint: bool = False


def dot_chart(
    title: str,
    dots: Sequence[Dot],
    *,
    x_label: str,
    reference: tuple[float, str] | None = None,
    bounds: tuple[float, float] | None = None,
    as_percent: bool = False,
    names: Sequence[str] = (),
    about: str = "",
) -> Html:
    """Estimates in rows with 95 % intervals, values at the right, a named line to compare with.

    bounds: what the axis covers at least. names: what the first and the second mark mean.
    """
    drawn = [dot for dot in dots if is_real(dot.value)]
    if not drawn:
        return charts.nothing(title, about)
    ends = [v for dot in drawn for v in (dot.value, dot.low, dot.high, dot.second) if is_real(v)]
    ends += list(bounds or ()) + ([reference[0]] if reference else [])
    real = [float(v) for v in ends if v is not None]
    ticks = nice_ticks(min(real), max(real))
    height = TOP + ROW * len(drawn) + BOTTOM
    across = Scale(ticks[0], ticks[-1], NAMES + 8, WIDTH - VALUES)
    parts = [charts.value_axis(across, ticks, TOP, height - BOTTOM, x_label, as_percent)]
    if reference:
        x = across(reference[0])
        parts.append(f'<path class="reference" d="M{x} {TOP - 2}V{height - BOTTOM}"/>')
        parts.append(f'<text class="tick mid" x="{x}" y="{TOP - 5}">{esc(reference[1])}</text>')
    parts += [_row(dot, across, TOP + i * ROW, as_percent) for i, dot in enumerate(drawn)]
    told = "; ".join(f"{dot.label} {value_text(dot.value, as_percent)}" for dot in drawn)
    legend = charts.legend(enumerate(names)) if names else ""
    return charts.figure(title, "".join(parts), height, legend, f"{title}: {told}", WIDTH, about)


def _row(dot: Dot, across: Scale, y: float, as_percent: bool) -> str:
    middle = y + ROW / 2 - (4 if dot.second is not None else 0)
    name = dot.label if len(dot.label) <= 18 else dot.label[:17] + "…"
    parts = [f'<text class="tick end" x="{NAMES}" y="{middle + 4}">{esc(name)}</text>']
    told = f"{dot.label}: {value_text(dot.value, as_percent)}"
    if is_real(dot.low) and is_real(dot.high):
        low, high = float(dot.low or 0), float(dot.high or 0)
        a, b = across(low), across(high)
        parts.append(f'<path class="whisker s0" d="M{a} {middle}H{b}M{a} {middle - 4}v8'
                     f'M{b} {middle - 4}v8"/>')  # fmt: skip
        told += f" ({value_text(low, as_percent)} to {value_text(high, as_percent)})"
    if dot.second is not None and is_real(dot.second):
        x = across(dot.second)
        parts.append(
            f'<path class="diamond s1" d="M{x} {middle + 4}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>'
        )
    kind = "dot s0 faint" if dot.faint else "dot s0"
    parts.append(
        f'<circle class="{kind}" cx="{across(float(dot.value or 0))}" cy="{middle}" r="4">'
        f"<title>{esc(f'{told} {dot.note}'.strip())}</title></circle>"
    )
    shown = f"{value_text(dot.value, as_percent)} {dot.note}".strip()
    parts.append(
        f'<text class="tick" x="{WIDTH - VALUES + 10}" y="{middle + 4}">{esc(shown)}</text>'
    )
    return "".join(parts)


def matrix(
    title: str,
    names: Sequence[str],
    values: Mapping[tuple[str, str], tuple[float | None, str]],
    *,
    about: str = "",
) -> Html:
    """People by people: a square per two, darker the more they agree (0 to 1; below 0 hatched).

    values: {(first, second): (value, words for the tooltip)}, either order; a dash where there is
    none.
    """
    shown = list(names)[:MOST_PEOPLE]
    if len(shown) < 2:
        return charts.nothing(title, about)
    width, height = LABEL + CELL * (len(shown) - 1), CELL * (len(shown) - 1) + 32
    parts = []
    for column, name in enumerate(shown[:-1]):
        x = LABEL + column * CELL + CELL / 2
        parts.append(
            f'<text class="tick mid" x="{x}" y="{height - 6}">{esc(_short(name, 7))}</text>'
        )
    for row, name in enumerate(shown[1:], start=1):
        y = 10 + (row - 1) * CELL
        parts.append(
            f'<text class="tick end" x="{LABEL - 8}" y="{y + CELL / 2 + 4}">'
            f"{esc(_short(name, 14))}</text>"
        )
        for column, other in enumerate(shown[:row]):
            found = values.get((name, other)) or values.get((other, name))
            parts.append(_cell(LABEL + column * CELL, y, f"{name} and {other}", found))
    told = "; ".join(
        f"{a} and {b} {number(value)}" for (a, b), (value, _) in values.items()
        if a in shown and b in shown
    )  # fmt: skip
    more = len(names) - len(shown)
    if more > 0:
        about = f"{about} The {len(shown)} with most votes; {more} more by command.".strip()
    body = "".join(parts)
    return charts.figure(title, body, height, "", f"{title}: {told}", max(width, 300), about)


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _cell(x: float, y: float, who: str, found: tuple[float | None, str] | None) -> str:
    size = CELL - 3
    value = None if found is None else found[0]
    if found is None or value is None or not is_real(value):
        words = f"{who}: {found[1] if found else 'no pair in common'}"
        return (
            f'<rect class="none" x="{x}" y="{y}" width="{size}" height="{size}" rx="3">'
            f"<title>{esc(words)}</title></rect>"
            f'<text class="tick mid" x="{x + size / 2}" y="{y + size / 2 + 4}">{DASH}</text>'
        )
    strength = min(max(value, 0.0), 1.0)
    kind = "cell below" if value < 0 else "cell"
    ink = "mid over" if strength > 0.55 else "mid"
    share = f"--share:{100 * (0.08 + 0.92 * strength):.0f}%"
    return (
        f'<rect class="{kind}" style="{share}" x="{x}" y="{y}" '
        f'width="{size}" height="{size}" rx="3"><title>{esc(f"{who}: {found[1]}")}</title></rect>'
        f'<text class="tick {ink}" x="{x + size / 2}" y="{y + size / 2 + 4}">{value:.2f}</text>'
    )
