"""A checkpoint's figures as text for a terminal; nothing is cut off, unknown ones are shown too.

Shares are in per cent, log-losses in nats; intervals are 95 %.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rlhf_core.reward.metrics import wilson_interval

WIDTH: Final = 100
SCALE: Final = 41  # characters from 0 to 100 % in the reliability diagram
# What the report says in its own words; everything else is listed below it.
TOLD: Final = frozenset(
    (
        *("n_votes", "n_decisive", "n_songs", "n_annotators", "n_simulated"),
        *("log_loss_of_knowing_nothing", "ceiling", "ceiling_from", "consistency", "agreement"),
        *("evaluated_on", "baselines", "accuracy", "accuracy_low", "accuracy_high"),
        *("log_loss", "ece", "reliability", "gain_over_parent", "left_out_annotators"),
    )
)


def metrics_text(metrics: Mapping[str, Any]) -> list[str]:
    """All figures of a checkpoint, as lines."""
    lines = report_text(metrics) if "baselines" in metrics else []
    rest = {name: value for name, value in metrics.items() if not lines or name not in TOLD}
    return lines + values_text(rest)


def values_text(values: Mapping[str, Any], indent: int = 2) -> list[str]:
    """Nested values, one a line; many numbers of one kind share lines; nothing is left out."""
    gap = " " * indent
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{gap}{name}:")
            if len(value) > 4 and all(_plain(item) for item in value.values()):
                lines += _wrapped([f"{key} {_short(item)}" for key, item in value.items()], indent)
            else:
                lines += values_text(value, indent + 2)
        elif isinstance(value, (list, tuple)) and len(value):
            lines.append(f"{gap}{name}:")
            lines += _wrapped([_short(item) for item in value], indent)
        else:
            lines.append(f"{gap}{name}: {_short(value)}")
    return lines


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _wrapped(items: Sequence[str], indent: int) -> list[str]:
    gap = " " * (indent + 2)
    # Not between a name and its number.
    text = ", ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=gap, subsequent_indent=gap,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _short(value: Any) -> str:
    """A value as text; floats with four digits that mean something."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def report_text(metrics: Mapping[str, Any]) -> list[str]:
    """The report of a fit: how right, how calibrated, against whom, and what is possible."""
    people = metrics["n_annotators"]
    lines = [
        f"  {metrics['n_votes']} votes ({metrics['n_decisive']} decisive, "
        f"{metrics['n_simulated']} simulated) of {people} {'person' if people == 1 else 'people'} "
        f"on {metrics['n_songs']} songs",
        f"  measured on {metrics['evaluated_on']}",
        *_ceilings(metrics),
    ]
    if metrics["accuracy"] is None:
        return lines
    lines += ["", *_table(metrics), *_gain(metrics), "", *_people(metrics)]
    return lines + reliability_text(metrics.get("reliability", []))


def _ceilings(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, name, who, why in (
        ("consistency", "repeats", "people repeat their own answer", "nobody was asked twice"),
        ("agreement", "comparisons", "two people agree on a pair", "no pair was asked of two"),
    ):
        found = metrics.get(key)
        if found is None:
            lines.append(f"  how often {who}: not known, {why}")
            continue
        between = ""
        if "ceiling_low" in found:
            between = f" ({found['ceiling_low']:.1%} to {found['ceiling_high']:.1%})"
        lines.append(
            f"  {who} {found['agreement']:.1%} of {found[name]} times: "
            f"no model is right more often than {found['ceiling']:.1%}{between}"
        )
    return lines


def _row(name: str, values: Mapping[str, Any], more: str = "") -> str:
    if values["accuracy"] is None:
        return f"  {name:<26} not measured"
    between = f"{values['accuracy_low']:>6.1%} to {values['accuracy_high']:>6.1%}"
    rest = f"{values['log_loss']:>8.3f}   {values['ece']:>6.3f}{more}"
    return f"  {name:<26} {values['accuracy']:>7.1%}   {between}   {rest}"


def _table(metrics: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {'':<26} accuracy  95 % interval      log-loss      ECE",
        _row("this version", metrics),
    ]
    for name, values in metrics["baselines"].items():
        lines.append(_row(name.replace("_", " "), values, _about_parent(values)))
    nothing = metrics["log_loss_of_knowing_nothing"]
    return [*lines, f"  {'knowing nothing':<26} {0.5:>7.1%}   {'':<17}  {nothing:>8.3f}"]


def _about_parent(values: Mapping[str, Any]) -> str:
    if "version" not in values:
        return ""
    trunk = ", its own trunk" if values["own_trunk"] else ""
    # Tuned on votes, those left out among them: the report must not hide that it was told.
    trunk += ", which was tuned on votes judged here" if values.get("trunk_saw_votes") else ""
    whose = "its" if values["votes_known"] else "all"
    return f"   ({whose} {values['n_votes']} votes{trunk})"


def _gain(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("gain_over_parent")
    return [] if found is None else [f"  {gain_text(found)}"]


def gain_text(gain: Mapping[str, Any]) -> str:
    """How this version compares with its parent, in words."""
    better = "more" if gain["accuracy"] >= 0 else "less"
    return (
        f"right on {abs(gain['accuracy']):.1%} {better} of the votes than its parent, refitted on "
        f"the same folds (interval {gain['low']:+.1%} to {gain['high']:+.1%})"
    )


def _people(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("left_out_annotators")
    if not found:
        return []
    lines = ["  each person foreseen from the others' votes on other songs:"]
    rows = [_row(name, row, f"   {row['n_votes']} votes") for name, row in found.items()]
    return [*lines, *rows, ""]


def reliability_text(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reliability diagram: what people did (o and its interval) against what was stated (|).

    A calibrated model has its | inside almost every interval.
    """
    if not bins:
        return []
    lines = ["  said  came  votes  0 %" + " " * (SCALE - 8) + "100 %   | said, o came, - interval"]
    for row in bins:
        low, high = wilson_interval(round(row["observed"] * row["votes"]), row["votes"])
        places = [round(x * (SCALE - 1)) for x in (low, high, row["observed"], row["stated"])]
        line = [" "] * SCALE
        line[places[0] : places[1] + 1] = "-" * (places[1] - places[0] + 1)
        line[places[2]] = "o"
        line[places[3]] = "|" if places[3] != places[2] else "+"
        numbers = f"  {row['stated']:>4.0%}  {row['observed']:>4.0%}  {row['votes']:>5}"
        lines.append(f"{numbers}  [{''.join(line)}]")
    return [*lines, ""]
