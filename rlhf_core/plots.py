"""Pictures of a training and of an evaluation, as PNG files.

Only `Figure` objects: pyplot keeps global state, which a library must not touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlhf_core.files import atomic_path
from rlhf_core.history import Columns, Value

BLUE, ORANGE, GREY = "#2f6fb0", "#c8641b", "#8a8a8a"
SMOOTH = 9  # updates in the running mean drawn over the noisy line


def _points(steps: Sequence[Value], values: Sequence[Value]) -> tuple[list[float], list[float]]:
    known = [(s, v) for s, v in zip(steps, values, strict=True) if s is not None and v is not None]
    return [float(s) for s, _ in known], [float(v) for _, v in known]


def _running_mean(values: list[float]) -> list[float]:
    half = SMOOTH // 2
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def training_figure(columns: Columns, title: str = "") -> Figure:
    """2 x 2: total reward, policy loss, reward components, value loss (what DPO lacks is said)."""
    figure = Figure(figsize=(12, 8))
    FigureCanvasAgg(figure)
    # Fixed margins: the layout engines take longer than the drawing, and this is drawn often.
    figure.subplots_adjust(0.07, 0.07, 0.98, 0.92, wspace=0.18, hspace=0.3)
    panels = (
        ("Total reward", ("total_reward",)),
        ("Policy loss", ("policy_loss",)),
        ("Reward components", ("learned_reward", "dense_reward")),
        ("Value loss", ("value_loss",)),
    )
    for axes, (name, keys) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        drawn = False
        for key, colour in zip(keys, (BLUE, ORANGE), strict=False):
            x, y = _points(columns.get("step", []), columns.get(key, []))
            if not x:
                continue
            drawn = True
            axes.plot(x, y, color=colour, alpha=0.35, linewidth=1)
            axes.plot(x, _running_mean(y), color=colour, label=key.replace("_", " "))
        if drawn:
            axes.legend(frameon=False)
        else:
            axes.text(0.5, 0.5, "not measured", ha="center", color=GREY, transform=axes.transAxes)
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.25)
    if title:
        figure.suptitle(title)
    return figure


def bars_figure(
    names: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    label: str,
    reference: float | None = None,
) -> Figure:
    """Horizontal bars with intervals; `reference` draws a line (chance, or 0)."""
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    errors = [
        [max(0.0, v - a) for v, a in zip(values, low, strict=True)],
        [max(0.0, b - v) for v, b in zip(values, high, strict=True)],
    ]
    axes.barh(list(names), list(values), xerr=errors, color=BLUE, ecolor=GREY, capsize=3)
    if reference is not None:
        axes.axvline(reference, color=ORANGE, linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.grid(axis="x", alpha=0.25)
    return figure


def reliability_figure(
    stated: Sequence[float],
    observed: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    votes: Sequence[int],
    title: str = "",
) -> Figure:
    """Shares that people preferred (with intervals) against the probabilities that were stated."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    errors = [
        [max(0.0, v - a) for v, a in zip(observed, low, strict=True)],
        [max(0.0, b - v) for v, b in zip(observed, high, strict=True)],
    ]
    axes.errorbar(
        list(stated), list(observed), yerr=errors, color=BLUE, ecolor=GREY, marker="o", capsize=3
    )
    for x, y, count in zip(stated, observed, votes, strict=True):
        axes.annotate(f"{count}", (x, y), (6, -12), textcoords="offset points", color=GREY)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        title=title,
        xlabel="stated probability that a is preferred",
        ylabel="share of votes for a (numbers: votes)",
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return figure


def edits_figure(contenders: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What edits are like, by contender (`comparison.summary` of each): how often each action but
    KEEP is used, and joins, output length and dense components.
    """
    names = list(contenders)
    figure = Figure(figsize=(12, 2.2 + 0.6 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    begun = [0.0] * len(names)
    for index, action in enumerate(next(iter(contenders.values()))["actions"]):
        if action == "KEEP":
            continue
        shares = [contenders[name]["actions"][action] for name in names]
        left.barh(names, shares, left=begun, label=action.lower(), color=f"C{index}")
        begun = [a + b for a, b in zip(begun, shares, strict=True)]
    left.set(xlabel="share of beats with an action other than keep")
    left.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    measures: dict[str, list[float]] = {
        "length of output / input": [contenders[name]["duration_ratio"] for name in names],
        "joins / 10": [contenders[name]["joins_per_edit"] / 10 for name in names],
    }
    for part in next(iter(contenders.values()))["dense_components"]:
        measures[part.replace("_", " ")] = [
            contenders[name]["dense_components"][part] for name in names
        ]
    for index, (label, values) in enumerate(measures.items()):
        right.plot(values, names, "o", color=f"C{index}", alpha=0.7, label=label)
    right.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    right.grid(alpha=0.25)
    left.invert_yaxis()
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def save_training_plot(path: Path, columns: Columns, title: str = "") -> None:
    """The 2 x 2 plot of a training as a PNG file."""
    save_figure(training_figure(columns, title), path)
