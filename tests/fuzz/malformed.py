"""Strategies for malformed files: good ones that were cut, flipped, spliced; and arbitrary JSON.

Not all that they make is malformed: a flipped bit of a sample is another sample. The tests in full
therefore count what was refused, and want `WANTED` different ones of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = 25  # examples in `make test`
WANTED = 200  # different malformed ones of each kind in `make test-long`


def quick(count: int = QUICK) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def refused(count: int, kind: st.SearchStrategy[Any], check: Callable[[Any], bool]) -> int:
    """How many different ones of so many examples `check` says were refused."""
    found: set[str] = set()

    @quick(count)
    @given(kind)
    def each(example: Any) -> None:
        if check(example):
            found.add(repr(example))

    each()
    return len(found)


TEXT = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "\x00",
        "'; DROP TABLE votes; --",
        "<script>",
        "../../x",
        "nan",
        "1e400",
        "\ud7ff\u202e",
        "=1+1",
    ]
)
NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 2**200, 1e308, 0, -1, 0.5])
)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the good files with one to four damages; the first bytes are hit most."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        early = min(len(data) - 1, 128)
        at = draw(st.integers(0, early) | st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("cut", "flip", "noise", "remove", "insert", "double", "ends")))
        if kind == "cut":
            del data[at:]
        elif kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "noise":
            data[at : at + length] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "double":
            data += data[at : at + 4096]
        else:
            data[at : at + 8] = draw(
                st.sampled_from((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7))
            )
    return bytes(data)


@st.composite
def altered(draw: st.DrawFn, good: Any) -> Any:
    """A good JSON value in which one to three things are others, missing or too many."""
    value = good
    for _ in range(draw(st.integers(1, 3))):
        value = _alter(draw, value, 0)
    return value


def _alter(draw: st.DrawFn, value: Any, depth: int) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(("deep", "deep", "drop", "replace", "extra")))
        if kind == "drop":
            return {name: item for name, item in value.items() if name != key}
        if kind == "extra":
            return value | {draw(TEXT): draw(JSON)}
        return value | {
            key: draw(JSON) if kind == "replace" else _alter(draw, value[key], depth + 1)
        }
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        kind = draw(st.sampled_from(("deep", "drop", "replace", "double")))
        if kind == "drop":
            return value[:at] + value[at + 1 :]
        if kind == "double":
            return value + value[at:]
        one = draw(JSON) if kind == "replace" else _alter(draw, value[at], depth + 1)
        return [*value[:at], one, *value[at + 1 :]]
    return draw(JSON)
