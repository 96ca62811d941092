"""Tables and the plot of `label_efficiency`, from the rows of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_core.files import write_text

Rows = list[dict[str, Any]]


def names_of(rows: Rows) -> list[str]:
    """The judges, in the order in which they first came."""
    return list(dict.fromkeys(row["judge"] for row in rows))


def seeds_of(rows: Rows) -> str:
    """How many seeds each judge has, as "5" or, where they differ, "2-3"."""
    counts = {len({r["seed"] for r in rows if r["judge"] == name}) for name in names_of(rows)}
    return "-".join(str(count) for count in sorted({min(counts), max(counts)}))


def tuning(rows: Rows) -> str:
    """Markdown: fine-tuning against the frozen trunk on the same votes, and what the gate did."""
    mine = [row for row in rows if row["method"] == "tuned"]
    out = ["| votes | frozen | tuned | gated | taken by the gate | judges | seeds |"]
    out.append("| --- | --- | --- | --- | --- | --- | --- |")
    for n in sorted({row["votes"] for row in mine}):
        some = [row for row in mine if row["votes"] == n]
        means = [np.mean([row[key] for row in some]) for key in ("frozen", "accuracy", "gated")]
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        taken = sum(row["accepted"] for row in some)
        judges = f"{len(names_of(some))} | {seeds_of(some)}"
        out.append(f"| {n} | {cells} | {taken} of {len(some)} | {judges} |")
    return "\n".join(out) if mine else ""


def of_real_songs(rows: Rows, method: str) -> str:
    """Markdown: accuracy on each real song left out, over judges (each the mean of its seeds)."""
    mine = [row for row in rows if row["method"] == method]
    if not mine:
        return ""
    count = len(mine[0]["songs"])
    names = " | ".join(f"song {i + 1}" for i in range(count))
    out = [f"| votes | median judge | worst judge | ECE median | {names} | judges | seeds |"]
    out.append("| --- | --- | --- | --- |" + " --- |" * (count + 2))
    for n in sorted({row["votes"] for row in mine}):
        some = [row for row in mine if row["votes"] == n]
        of = {name: [r for r in some if r["judge"] == name] for name in names_of(some)}
        acc = {name: float(np.mean([r["accuracy"] for r in own])) for name, own in of.items()}
        ece = [float(np.mean([r["ece"] for r in own])) for own in of.values()]
        worst = min(acc, key=lambda name: acc[name])
        songs = [
            np.median([np.mean([r["songs"][i] for r in own]) for own in of.values()])
            for i in range(count)
        ]
        each = " | ".join(f"{song:.3f}" for song in songs)
        out.append(
            f"| {n} | {np.median(list(acc.values())):.3f} | {acc[worst]:.3f} ({worst}) | "
            f"{np.median(ece):.3f} | {each} | {len(acc)} | {seeds_of(some)} |"
        )
    return "\n".join(out)


def table(rows: Rows, methods: Sequence[str]) -> str:
    """Markdown: per method and number of votes, over judges (each the mean of its seeds)."""
    out = ["| method | votes | median judge | worst judge | ECE median | judges | seeds |"]
    out.append("| --- | --- | --- | --- | --- | --- | --- |")
    for method in methods:
        for n in sorted({row["votes"] for row in rows if row["method"] == method}):
            mine = [row for row in rows if row["method"] == method and row["votes"] == n]
            of = {name: [r for r in mine if r["judge"] == name] for name in names_of(mine)}
            acc = {k: float(np.mean([r["accuracy"] for r in v])) for k, v in of.items() if v}
            ece = [float(np.mean([r["ece"] for r in v])) for v in of.values() if v]
            worst = min(acc, key=lambda k: acc[k])
            out.append(
                f"| {method} | {n} | {np.median(list(acc.values())):.3f} | {acc[worst]:.3f} "
                f"({worst}) | {np.median(ece):.3f} | {len(acc)} | {seeds_of(mine)} |"
            )
    return "\n".join(out)


def by_judge(rows: Rows) -> str:
    """Markdown: accuracy of each judge with the frozen trunk, by number of votes."""
    mine = [row for row in rows if row["method"] == "frozen"]
    sizes = sorted({row["votes"] for row in mine})
    out = ["| judge | " + " | ".join(map(str, sizes)) + " | ECE at 500 |"]
    out.append("| --- |" + " --- |" * (len(sizes) + 1))
    for name in names_of(mine):
        own = [row for row in mine if row["judge"] == name]
        if not own:
            continue
        cells = [
            np.mean([r["accuracy"] for r in own if r["votes"] == n] or [np.nan]) for n in sizes
        ]
        ece = np.mean([r["ece"] for r in own if r["votes"] == 500] or [np.nan])
        out.append(f"| {name} | " + " | ".join(f"{c:.3f}" for c in cells) + f" | {ece:.3f} |")
    return "\n".join(out)


def share_of_votes(rows: Rows) -> str:
    """How many chosen pairs reach what random pairs reach, by the curves of the mean judge.

    Each comparison is on the judges and seeds that have all it takes.
    """
    known = {(r["method"], r["votes"], r["judge"], r["seed"]): r["accuracy"] for r in rows}

    def sizes(method: str) -> list[int]:
        return sorted({r["votes"] for r in rows if r["method"] == method})

    out = []
    for n in sizes("frozen"):
        for last in range(2, len(sizes("chosen")) + 1):
            tried = sizes("chosen")[:last]
            needed = [("chosen", m) for m in tried] + [("frozen", n)]
            runs = sorted({key[2:] for key in known})
            runs = [run for run in runs if all((*each, *run) in known for each in needed)]
            if not runs:
                break
            *chosen, wanted = (np.mean([known[(*each, *run)] for run in runs]) for each in needed)
            if chosen[0] <= wanted <= max(chosen):
                rising = np.maximum.accumulate(chosen)
                need = np.exp(np.interp(wanted, rising, np.log(tried)))
                out.append(
                    f"{n} random pairs ({wanted:.3f}) = {need:.0f} chosen ({need / n:.0%}; "
                    f"{len(runs)} of judges x seeds)"
                )
                break
    return "; ".join(out)


def write_csv(rows: Rows, path: Path) -> None:
    """Every figure behind the tables, a line each. key: the bootstrap's; songs: accuracy on each
    real song left out; frozen, gated, accepted: of fine-tuning."""
    import pandas as pd

    columns = ["method", "trunks", "key", "judge", "seed", "votes", "accuracy", "ece"]
    made = pd.DataFrame(rows)
    made["songs"] = [" ".join(f"{x:.4f}" for x in row.get("songs", ())) for row in rows]
    made = made[[*columns, "frozen", "gated", "accepted", "songs"]].sort_values(columns[:6])
    write_text(path, made.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def plot(rows: Rows, methods: Sequence[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        sizes = sorted({row["votes"] for row in mine})
        if not sizes:
            continue
        groups = [
            [
                np.mean([r["accuracy"] for r in mine if r["votes"] == n and r["judge"] == name])
                for name in {r["judge"] for r in mine if r["votes"] == n}
            ]
            for n in sizes
        ]
        label = f"{method} ({len(names_of(mine))} judges)"
        (line,) = axes.plot(sizes, [np.median(g) for g in groups], marker="o", label=label)
        axes.plot(sizes, [min(g) for g in groups], ls=":", color=line.get_color())
    axes.set(xscale="log", xlabel="votes (simulated, 70 % consistent)", ylim=(0.45, 1))
    axes.set(ylabel="clean accuracy on unseen songs", title="median judge; dotted: worst judge")
    ticks = sorted({row["votes"] for row in rows})
    axes.set_xticks(ticks, labels=[str(n) for n in ticks])
    axes.minorticks_off()
    axes.axhline(0.5, color="grey", lw=0.8)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
