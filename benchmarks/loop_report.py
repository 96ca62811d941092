"""What the cells of `loop.py` say together: the table, the bars of the project, and two plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rlhf_core.files import read_json, write_json
from rlhf_core.plots import save_figure

Rounds = list[dict[str, Any]]
Cells = dict[str, Rounds]
COLOURS = {"proxy": "tab:orange", "gold": "tab:blue"}
EVEN = {"mean": 0.5, "low": 0.5, "high": 0.5}


def report(out: Path) -> Cells:
    """Every cell found in `out`, summed up in files beside them."""
    cells: Cells = {}
    for folder in sorted(path.parent for path in out.glob("*/round_0.json")):
        paths = sorted(folder.glob("round_*.json"))
        cells[folder.name] = [read_json(path) for path in paths]
    small = {
        name: [{k: v for k, v in row.items() if k != "votes"} for row in rounds]
        for name, rounds in cells.items()
    }
    write_json(out / "results.json", small)
    (out / "table.md").write_text(summary(cells), encoding="utf-8")
    save_figure(overoptimisation(cells), out / "overoptimisation.png")
    save_figure(win_rates(cells), out / "winrates.png")
    return cells


def summary(cells: Cells) -> str:
    """A table in Markdown, one line a cell, and the bars of DESIGN section 12 per algorithm."""
    lines = [
        "| judge-algorithm-seed | votes right | beats first, by round | beats parent, by round "
        "| beats best preset, by round | gate, cross votes, by round | KL | CPU s a round |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(name, rounds) for name, rounds in cells.items()),
    ]
    groups: dict[str, list[Rounds]] = {}
    for name, rounds in cells.items():
        _, algorithm, _, *marks = name.split("-", 3)
        groups.setdefault(" ".join([algorithm, *marks]), []).append(rounds)
    return "\n".join(lines) + "\n" + "".join(_bars(*group) for group in groups.items())


def _line(name: str, rounds: Rounds) -> str:
    def each(key: str) -> str:
        return " / ".join(f"{row[key]['mean']:.0%}" for row in rounds)

    right = np.mean([vote["right"] for row in rounds for vote in row["votes"]])
    verdicts = " / ".join(
        f"{row['verdict']['decision']}, {row['cross'][0]}:{row['cross'][1]}, "
        + ("taken" if row["taken"] else "left")
        for row in rounds
    )
    drift = " / ".join(f"{row['kl_to_parent']:.2f}" for row in rounds)
    seconds = median(sum(row["seconds"].values()) for row in rounds)
    return (
        f"| {name} | {right:.0%} | {each('first')} | {each('parent')} | {each('preset')} "
        f"| {verdicts} | {drift} | {seconds:.0f} |"
    )


def _bars(name: str, cells: Sequence[Rounds]) -> str:
    lines = [f"\n{name}, {len(cells)} cells:\n"]
    final = [standing(rounds) for rounds in cells]
    for key, against in (("first", "the first policy"), ("preset", "the best preset")):
        values = sorted(row[key]["mean"] for row in final)
        lines.append(
            f"- policy in place against {against}: median {median(values):.0%}, "
            f"worst {values[0]:.0%}"
        )
    accepted = [[row for row in r if row["verdict"]["decision"] == "accept"] for r in cells]
    taken = [[row for row in rounds if row["taken"]] for rounds in cells]
    for said, kept in (
        ("accepted by the gate alone", accepted),
        ("accepted with the cross votes, so taken", taken),
    ):
        rows = [row for rounds in kept for row in rounds]
        worse = sum(row["parent"]["high"] < 0.5 for row in rows)
        lines.append(
            f"- rounds {said}: median {median(map(len, kept)):g} of "
            f"{max(map(len, cells))}; wholly below the parent: {worse} of {len(rows)}"
        )
    left = [row for rounds in cells for row in rounds if not row["taken"]]
    good = sum(row["parent"]["low"] > 0.5 for row in left)
    lines.append(f"- rounds left: {len(left)}, wholly above the parent though: {good}")
    parts: dict[str, float] = {}
    for part in ("fit", "train", "gate"):
        parts[part] = median(row["seconds"][part] for rounds in cells for row in rounds)
    text = ", ".join(f"{part} {value:.1f}" for part, value in parts.items())
    lines.append(f"- CPU seconds of a round, median: {text}")
    return "\n".join(lines) + "\n"


def standing(rounds: Rounds) -> dict[str, Any]:
    """The round whose policy is in place at the end (the first policy wins half against itself).

    Until a proposal is taken the first policy is in place; what it wins against the best preset
    was not measured, so the worst is assumed.
    """
    taken = [row for row in rounds if row["taken"]]
    return taken[-1] if taken else {"first": EVEN, "preset": dict.fromkeys(EVEN, 0.0)}


def overoptimisation(cells: Cells) -> Figure:
    """Proxy and gold against the square root of the KL, one panel a round."""
    rounds = max(len(rows) for rows in cells.values())
    figure = Figure(figsize=(5 * rounds, 4))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, rounds, squeeze=False, sharey=True)[0]
    for number, axes in enumerate(panels):
        for key, colour in COLOURS.items():
            for index, rows in enumerate(cells.values()):
                if number >= len(rows):
                    continue
                path = rows[number]["path"]
                x = [max(0.0, point["kl"]) ** 0.5 for point in path]
                y = [point[key] for point in path]
                name = {"proxy": "reward (proxy)", "gold": "judge (gold)"}[key]
                axes.plot(x, y, "o-", color=colour, alpha=0.5, ms=3, label=None if index else name)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(title=f"round {number + 1}", xlabel="√KL to the parent, nats per decision")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("gain over the parent, deviations of its edits")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    return figure


def win_rates(cells: Cells) -> Figure:
    """The policy in place after each round, against the first one and against the best preset."""
    figure = Figure(figsize=(10, 4))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    judges = list(dict.fromkeys(name.split("-")[0] for name in cells))
    for axes, key, title in zip(
        panels, ("first", "preset"), ("the first policy", "the best preset"), strict=True
    ):
        for name, rounds in cells.items():
            judge, algorithm, *_ = name.split("-")
            y = [0.5] if key == "first" else []
            for count in range(1, len(rounds) + 1):
                known = key == "first" or any(row["taken"] for row in rounds[:count])
                y.append(standing(rounds[:count])[key]["mean"] if known else np.nan)
            x = range(len(rounds) - len(y) + 1, len(rounds) + 1)
            style = "o-" if algorithm == "ppo" else "s:"
            axes.plot(x, y, style, color=f"C{judges.index(judge)}", ms=4, alpha=0.8)
        axes.axhline(0.5, color="grey", linewidth=0.8)
        axes.set(title=f"against {title}", xlabel="rounds of 150 votes", ylim=(0, 1))
        axes.set_xticks(range(4))
        axes.grid(alpha=0.25)
    for index, judge in enumerate(judges):
        panels[1].plot([], [], color=f"C{index}", label=judge)
    panels[1].plot([], [], "o-", color="grey", label="PPO")
    panels[1].plot([], [], "s:", color="grey", label="DPO")
    panels[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    panels[0].set_ylabel("win rate by the judge, unseen songs")
    figure.tight_layout()
    return figure
