"""One pair to listen to: both edits and the original, drawn, with who made them and who won."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedback_app.ui import drawings, text
from feedback_app.ui.text import Html, esc


def no_pair() -> Html:
    return text.empty("No pair yet. Make some on the Train tab.")


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
