"""The charts of the Results tab, from `Operations.results()`: pure functions to HTML.

People's and judges' votes never share a chart. Estimates carry 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_app.ui import charts, text
from feedback_app.ui.estimates import Dot, dot_chart
from feedback_app.ui.text import Html, esc
from rlhf_core.editing.actions import Action

FEW_VOTES = 30  # below this an interval of a share is wider than ± 18 points
VERSIONS_SHOWN = 12
ACTIONS_SHOWN = 5
Rows = Sequence[Mapping[str, Any]]
RESAMPLED = {"song": "whole songs", "annotator": "whole annotators", "vote": "single votes"}


def grid(*drawn: str) -> Html:
    """Charts side by side where there is room."""
    return Html(f'<div class="fa-charts fa-fill">{"".join(drawn)}</div>')


def summary_html(found: Mapping[str, Any]) -> Html:
    """The votes, people's and programs' apart."""
    human = int(found.get("votes_human") or 0)
    simulated = int(found.get("votes_simulated") or 0)
    counted = text.figures(
        {
            "votes by people": text.number(human),
            "simulated votes (dry runs)": text.number(simulated),
            "rounds": text.number(
                sum(not row.get("simulated") for row in found.get("rounds") or [])
            ),
        }
    )
    notes = []
    if human < FEW_VOTES:
        notes.append(
            f"{text.plural(human, 'vote')} by people so far: too few to tell versions apart. "
            f"From about {FEW_VOTES} on, intervals begin to mean something; 200 tell 60 % from "
            "50 %."
        )
    left_out = found.get("left_out") or []
    if left_out:
        notes.append(f"Votes of {', '.join(left_out)} are left out (People tab).")
    return text.join(counted, *(text.notice(note, "warn") for note in notes))


def _column(rows: Rows, name: str) -> list[float | None]:
    return [float(row[name]) if charts.is_real(row.get(name)) else None for row in rows]


def short(version: str) -> str:
    """A version's name for an axis.

    >>> short("policy_v12")
    'v12'
    """
    return version.removeprefix("policy_")


def rounds_html(rounds: Rows) -> Html:
    """Over the rounds: reward accuracy against the ceiling, win rate by people, votes.

    A round is a trained policy with its reward model. Dry runs are counted, not drawn.
    """
    real = [row for row in rounds if not row.get("simulated")]
    dry = len(rounds) - len(real)
    note = ""
    if dry:
        words = f"{text.plural(dry, 'round')} of dry runs with simulated votes left out here."
        note = Html(f'<p class="fa-quiet">{esc(words)}</p>')
    if not real:
        empty = text.empty(
            "No round yet: retrain the reward once there are votes, then the policy (Train tab)."
        )
        return text.join(empty, note)
    index = [float(i + 1) for i in range(len(real))]
    names = {x: short(str(row.get("policy") or int(x))) for x, row in zip(index, real, strict=True)}
    drawn = [
        _accuracy_chart(real, index, names),
        _win_chart(real, index, names),
        _votes_chart(real, index, names),
    ]
    return text.join(grid(*drawn), note)


Names = Mapping[float, str]


def _accuracy_chart(rounds: Rows, index: Sequence[float], names: Names) -> Html:
    bounds = (_column(rounds, "accuracy_low"), _column(rounds, "accuracy_high"))
    accuracy = _column(rounds, "accuracy")
    ceiling = [_column(rounds, f"ceiling{end}") for end in ("", "_low", "_high")]
    return charts.line_chart(
        "Reward accuracy against the ceiling",
        [
            charts.Series("on songs left out", index, accuracy, *bounds),
            charts.Series("ceiling: how alike people answer", index, *ceiling),
        ],
        x_label="round (its policy)",
        y_label="share of votes right",
        reference=(0.5, "chance"),
        bounds=(0.4, 1.0),
        x_names=names,
    )


def _win_chart(rounds: Rows, index: Sequence[float], names: Names) -> Html:
    human = [row.get("human") or {} for row in rounds]
    bounds = (_column(human, "low"), _column(human, "high"))
    unheard = [str(row.get("policy")) for row in rounds if not row.get("human")]
    about = ""
    if unheard:
        about = (
            f"Nobody has compared {', '.join(unheard)} with its parent yet: make pairs against "
            "the older version on the Train tab; those that wait are given by and by."
        )
    return charts.line_chart(
        "Human win rate against the parent",
        [charts.Series("new version", index, _column(human, "win_rate"), *bounds)],
        x_label="round (its policy)",
        y_label="share of pairs won",
        reference=(0.5, "no better"),
        bounds=(0.0, 1.0),
        x_names=names,
        about=about,
    )


def _votes_chart(rounds: Rows, index: Sequence[float], names: Names) -> Html:
    return charts.line_chart(
        "Votes used",
        [charts.Series("votes", index, _column(rounds, "votes"))],
        x_label="round (its policy)",
        y_label="votes",
        bounds=(0.0, 1.0),
        x_names=names,
    )


# -- versions compared ----------------------------------------------------------------------------


def leaderboard_html(
    rows: Rows, about: Mapping[str, Any], covariates: Mapping[str, Any] | None = None
) -> Html:
    """Versions by strength, with and without length and loudness held equal, and their effects."""
    if not rows:
        return text.empty(
            "No version has met another yet. Make pairs against an older version (Train tab), and "
            "let people vote on them."
        )
    effects = (covariates or {}).get("effects") or []
    held = {row["version"]: row["strength"] for row in (covariates or {}).get("rows") or []}
    drawn = [strength_chart(rows, about, held if effects else {})]
    if effects:
        drawn.append(_effects_chart(effects))
    notes = [text.notice(note, "warn") for note in about.get("notes") or []]
    return text.join(grid(*drawn), *notes)


def strength_chart(rows: Rows, about: Mapping[str, Any], held: Mapping[str, float]) -> Html:
    """Strengths in log-odds round 0 with bootstrap intervals."""
    dots = [
        Dot(
            str(row.get("version")),
            row.get("strength"),
            row.get("low"),
            row.get("high"),
            note=f"({text.number(round(float(row.get('votes') or 0)))})",
            second=held.get(str(row.get("version"))),
            faint=float(row.get("votes") or 0) < FEW_VOTES,
        )
        for row in rows
    ]
    tie = about.get("tie")
    words = [f"Intervals: 95 %, resampling {RESAMPLED.get(str(about.get('resampled')), 'votes')}."]
    if charts.is_real(tie):
        words.append(f"{text.percent(tie)} of votes are ties or both bad.")
    words.append("In brackets: votes; an open dot has few. +1 wins 73 % against 0.")
    names = ("as people voted", "length and loudness held equal") if held else ()
    return dot_chart(
        "Strength",
        dots,
        x_label="Bradley-Terry strength (log-odds; ties by Davidson)",
        reference=(0.0, "average"),
        names=names,
        about=" ".join(words),
    )


def _effects_chart(effects: Rows) -> Html:
    dots = [
        Dot(f"{row['step']}", row["wins"], row["wins_low"], row["wins_high"]) for row in effects
    ]
    return dot_chart(
        "What length and loudness are worth",
        dots,
        x_label="share of decided votes won, else equal",
        reference=(0.5, "nothing"),
        bounds=(0.3, 0.7),
        as_percent=True,
        about=(
            "From all pairs, one version's own among them. Both edits are played at one loudness: "
            "louder means before that. An interval clear of 50 % means that votes follow length "
            "or level; compare the diamonds with the dots."
        ),
    )


# -- what policies do -----------------------------------------------------------------------------


def behaviour_html(rows: Rows) -> Html:
    """Keep ratio, joins, actions and dense components, version by version."""
    shown = [row for row in rows if row.get("keep_ratio") and not row.get("simulated")]
    shown = shown[-VERSIONS_SHOWN:]
    if not shown:
        return text.empty("No edits yet: add songs, then the first pairs are made.")
    index = [float(i + 1) for i in range(len(shown))]
    names = {x: short(str(row["version"])) for x, row in zip(index, shown, strict=True)}
    common: dict[str, Any] = {"x_label": "policy version", "x_names": names}
    drawn = [
        _mean_chart("Beats kept", shown, "keep_ratio", index, (0.0, 1.0), "share of the passage",
                    common),
        _mean_chart("Joins", shown, "joins_per_edit", index, (0.0, 1.0), "joins per edit", common),
        charts.line_chart("Actions used", action_lines(shown, index), y_label="share of actions",
                          bounds=(0.0, 0.01), about=_other_actions(shown), **common),
        _dense_chart(shown, index, common),
    ]  # fmt: skip
    return grid(*drawn)


def _mean_chart(
    title: str,
    rows: Rows,
    name: str,
    index: Sequence[float],
    bounds: tuple[float, float],
    y_label: str,
    common: Mapping[str, Any],
) -> Html:
    values = [row[name] for row in rows]
    line = charts.Series(
        title.lower(),
        index,
        _column(values, "mean"),
        _column(values, "low"),
        _column(values, "high"),
    )
    return charts.line_chart(title, [line], y_label=y_label, bounds=bounds, **common)


def _used(rows: Rows) -> list[Action]:
    """Actions other than KEEP, most used first over the versions shown."""
    total: dict[Action, float] = {
        action: sum(float((row.get("actions") or {}).get(action.name, 0)) for row in rows)
        for action in Action
        if action != Action.KEEP
    }
    return sorted(total, key=lambda action: (-total[action], action))


def action_lines(rows: Rows, index: Sequence[float]) -> list[charts.Series]:
    """Shares of all actions, over versions, of the ones used most. KEEP is the rest."""
    lines = []
    for action in _used(rows)[:ACTIONS_SHOWN]:
        shares = [
            float((row.get("actions") or {}).get(action.name, 0))
            / (sum((row.get("actions") or {}).values()) or 1)
            for row in rows
        ]
        lines.append(charts.Series(action.name.replace("_", " ").lower(), index, shares))
    return lines


def _other_actions(rows: Rows) -> str:
    others = [action.name.replace("_", " ").lower() for action in _used(rows)[ACTIONS_SHOWN:]]
    return f"Used less: {', '.join(others)}. Keep is the rest."


def _dense_chart(rows: Rows, index: Sequence[float], common: Mapping[str, Any]) -> Html:
    parts = [row.get("dense_components") or {} for row in rows]
    names = sorted({name for part in parts for name in part})
    lines = [charts.Series(name.replace("_", " "), index, _column(parts, name)) for name in names]
    return charts.line_chart(
        "Dense reward on unseen songs",
        lines,
        y_label="component (0 to 1)",
        bounds=(0.0, 1.0),
        about="" if names else "Known once a version was evaluated; the first policy is not.",
        **common,
    )
