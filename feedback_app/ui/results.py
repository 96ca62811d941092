"""The Results tab: what the loop has learned, which version people like, and any pair to listen to.

Human and simulated votes never share a figure. Every share comes with its interval; a note stands
where votes are too few to say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from feedback_app.ui import charts, drawings, text
from feedback_app.ui.guard import Guard, Loader
from feedback_app.ui.text import Html, esc
from rlhf_core.editing.actions import Action

FEW_VOTES = 30  # below this an interval of a share is wider than ± 18 points
VERSIONS_SHOWN = 6


def build(operations: Any, guard: Guard) -> Loader:
    """Build the tab where it is called."""
    gr.HTML(text.heading("What the loop has learned"))
    summary = gr.HTML(elem_id="results-summary")
    drawn = gr.HTML(elem_id="results-charts")
    gr.HTML(
        text.heading(
            "Policy versions compared by people",
            "Bradley-Terry strength from human votes on pairs of two versions.",
        )
    )
    board = gr.HTML(elem_id="leaderboard")
    gr.HTML(text.heading("What each policy does"))
    behaviour = gr.HTML(elem_id="behaviour")
    gr.HTML(
        text.heading("Listen to a pair", "Both edits of one passage, with what was done to it.")
    )
    with gr.Column(elem_classes="fa-panel"):
        pair = gr.Dropdown([], label="Pair", elem_id="pair-picker")
        player = gr.HTML(elem_id="pair-player")

    def load() -> dict[Any, Any]:
        found = operations.results()
        pairs = operations.list_pairs(limit=100)
        picked = pairs[0]["pair_id"] if pairs else None
        return {
            summary: summary_html(found),
            drawn: charts_html(found.get("rounds") or []),
            board: leaderboard_html(found.get("leaderboard") or []),
            behaviour: behaviour_html(found.get("policy_behaviour") or []),
            pair: gr.Dropdown(
                choices=[(pair_label(row), row["pair_id"]) for row in pairs], value=picked
            ),
            player: pair_html(operations.pair_view(picked)) if picked else no_pair(),
        }

    def pick(pair_id: str | None) -> dict[Any, Any]:
        return {player: pair_html(operations.pair_view(pair_id)) if pair_id else no_pair()}

    pair.input(guard(pick), [pair], [player], show_progress="hidden")
    return Loader(guard(load), [summary, drawn, board, behaviour, pair, player])


def no_pair() -> Html:
    return text.empty("No pair yet. Make some on the Train tab.")


def summary_html(found: Mapping[str, Any]) -> Html:
    """The votes, people's and programs' apart."""
    human = int(found.get("votes_human") or 0)
    simulated = int(found.get("votes_simulated") or 0)
    counted = text.figures(
        {
            "votes by people": text.number(human),
            "simulated votes (dry runs)": text.number(simulated),
            "rounds": text.number(len(found.get("rounds") or [])),
        }
    )
    few = ""
    if human < FEW_VOTES:
        few = text.notice(
            f"{text.plural(human, 'vote')} by people so far: too few to tell versions apart. "
            f"From about {FEW_VOTES} on, intervals begin to mean something; 200 tell 60 % from "
            "50 %.",
            "warn",
        )
    return text.join(counted, few)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    return [float(row[name]) if charts.is_real(row.get(name)) else None for row in rows]


def charts_html(rounds: Sequence[Mapping[str, Any]]) -> Html:
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
            "No round yet: retrain the reward once there are votes, then the policy."
        )
        return text.join(empty, note)
    drawn = [_accuracy_chart(real), _win_chart(real), _votes_chart(real)]
    return text.join(Html(f'<div class="fa-charts">{"".join(drawn)}</div>'), note)


def _numbers(rounds: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(row.get("round", i + 1)) for i, row in enumerate(rounds)]


def _accuracy_chart(rounds: Sequence[Mapping[str, Any]]) -> Html:
    index = _numbers(rounds)
    bounds = (_column(rounds, "accuracy_low"), _column(rounds, "accuracy_high"))
    accuracy = _column(rounds, "accuracy")
    return charts.line_chart(
        "Reward accuracy against the ceiling",
        [
            charts.Series("held-out accuracy", index, accuracy, *bounds),
            charts.Series("ceiling: people's repeats", index, _column(rounds, "ceiling")),
        ],
        x_label="round",
        y_label="share of votes right",
        reference=(0.5, "chance"),
        bounds=(0.4, 1.0),
    )


def _win_chart(rounds: Sequence[Mapping[str, Any]]) -> Html:
    human = [row.get("human") or {} for row in rounds]
    bounds = (_column(human, "low"), _column(human, "high"))
    return charts.line_chart(
        "Human win rate against the parent",
        [charts.Series("new version", _numbers(rounds), _column(human, "win_rate"), *bounds)],
        x_label="round",
        y_label="share of pairs won",
        reference=(0.5, "no better"),
        bounds=(0.0, 1.0),
    )


def _votes_chart(rounds: Sequence[Mapping[str, Any]]) -> Html:
    return charts.line_chart(
        "Votes used",
        [charts.Series("votes", _numbers(rounds), _column(rounds, "votes"))],
        x_label="round",
        y_label="votes",
        bounds=(0.0, 1.0),
    )


def leaderboard_html(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Versions by strength with their intervals and votes."""
    if not rows:
        return text.empty(
            "No version has met another yet. Make pairs against an older version, and let people "
            "vote on them."
        )
    bars = [
        charts.Bar(
            str(row.get("version")),
            row.get("strength"),
            row.get("low"),
            row.get("high"),
            note=f"({int(row.get('votes') or 0)} votes)",
        )
        for row in rows
    ]
    few = [str(row.get("version")) for row in rows if int(row.get("votes") or 0) < FEW_VOTES]
    note = ""
    if few:
        note = text.notice(
            f"Fewer than {FEW_VOTES} votes on {', '.join(few)}: the order may still turn over.",
            "warn",
        )
    chart = charts.bar_chart("Strength", bars, x_label="Bradley-Terry strength (log-odds)")
    return text.join(Html(f'<div class="fa-charts">{chart}</div>'), note)


def behaviour_html(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Keep ratio, joins and the actions used, over versions."""
    shown = [row for row in rows if charts.is_real(row.get("keep_ratio"))][-VERSIONS_SHOWN:]
    if not shown:
        return text.empty("No edits yet.")
    kept = [
        charts.Bar(str(row["version"]), row.get("keep_ratio"), colour=i)
        for i, row in enumerate(shown)
    ]
    joins = [
        charts.Bar(str(row["version"]), row.get("joins_per_edit"), colour=i)
        for i, row in enumerate(shown)
    ]
    newest = shown[-2:]
    drawn = [
        charts.bar_chart(
            "Beats kept", kept, x_label="share of the passage", bounds=(0, 1), as_percent=True
        ),
        charts.bar_chart("Joins", joins, x_label="joins per edit"),
        charts.bar_chart(
            "Actions used",
            action_bars([row.get("actions") or {} for row in newest]),
            x_label="share of all actions (KEEP left out)",
            as_percent=True,
            names=[str(row["version"]) for row in newest],
            row=13,
        ),
    ]
    return Html(f'<div class="fa-charts">{"".join(drawn)}</div>')


def action_bars(versions: Sequence[Mapping[str, Any]]) -> list[charts.Bar]:
    """Shares of all actions, in the order of their ids without KEEP; the versions side by side."""
    bars = []
    for action in Action:
        if action == Action.KEEP:
            continue
        words = action.name.replace("_", " ").lower()
        for i, counts in enumerate(versions):
            share = counts.get(action.name, 0) / (sum(counts.values()) or 1)
            bars.append(charts.Bar("" if i else words, share, colour=i))
    return bars


def pair_label(row: Mapping[str, Any]) -> str:
    votes = text.plural(int(row.get("votes") or 0), "vote")
    return (
        f"{row.get('title')} · {row.get('policy_a')} / {row.get('policy_b')} · "
        f"{row.get('pool')} · {votes} · {str(row['pair_id'])[:8]}"
    )


def pair_html(pair: Mapping[str, Any]) -> Html:
    """Both edits and the original: a player and a drawing each, and who won."""
    edits = [("A", pair["edit_a"]), ("B", pair["edit_b"])]
    passage = pair["edit_a"]["edl"]["passage"]
    span = max(
        float(passage["end_s"]) - float(passage["start_s"]),
        *(float(edit["edl"]["duration_s"]) for _, edit in edits),
    )
    sides = "".join(_side(name, edit, span) for name, edit in edits)
    source = esc(f"/research/original/{pair['pair_id']}")
    about = (
        f"{pair['title']}, beats {passage['start_beat']}–{int(passage['end_beat']) - 1} · "
        f"{pair.get('pool')} pair"
    )
    return Html(
        f'<div class="fa-pair"><p><b>{esc(about)}</b></p>{_votes(pair)}'
        f'<div class="fa-side"><h4>Original</h4>'
        f'<audio controls preload="none" src="{source}"></audio></div>{sides}'
        f"{drawings.edl_legend()}</div>"
    )


def _side(name: str, edit: Mapping[str, Any], span: float) -> str:
    maker = edit.get("policy")
    if edit.get("preset"):
        maker = f"heuristic editor {edit['preset']}"
    known = [
        f"made by {maker}",
        text.duration(edit.get("duration_s")),
        f"temperature {text.number(edit['temperature'])}" if edit.get("temperature") else "",
        f"seed {edit['seed']}" if edit.get("seed") is not None else "",
    ]
    about = " · ".join(part for part in known if part)
    return (
        f'<div class="fa-side"><h4>{name} <small>{esc(about)}</small></h4>'
        f'<audio controls preload="none" src="{esc("/research/media/" + str(edit["edit_id"]))}">'
        f"</audio>{drawings.edl_drawing(edit['edl'], span_s=span, name=f'edit {name}')}</div>"
    )


def _votes(pair: Mapping[str, Any]) -> str:
    counts = {"for A": "votes_a", "for B": "votes_b", "ties": "ties", "both bad": "both_bad"}
    told = [f"{int(pair.get(key) or 0)} {name}" for name, key in counts.items() if pair.get(key)]
    return f'<p class="fa-quiet">Votes: {esc(", ".join(told) or "none yet")}</p>'
