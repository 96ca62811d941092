"""The charts and tables of the People tab, from `Operations.people()`: pure functions to HTML.

Votes of judges are counted apart and enter no figure. Estimates carry 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_app.figures.annotators import chance
from feedback_app.ui import charts, text
from feedback_app.ui.estimates import Dot, dot_chart, matrix
from feedback_app.ui.results_charts import FEW_VOTES, grid
from feedback_app.ui.text import Html, esc

Row = Mapping[str, Any]
MOST_ROWS = 24  # in a chart; the table has everybody
CHOICES = {"a": "A", "b": "B", "tie": "a tie", "both_bad": "both bad", "skip": "can't judge"}


def voters(found: Row) -> list[Row]:
    """People who voted, most votes first."""
    return sorted(
        (row for row in found["people"] if row.get("figures")),
        key=lambda row: (-int(row["votes"]), str(row["name"])),
    )


def summary_html(found: Row) -> Html:
    """How many vote, and how alike."""
    agreement = found.get("agreement")
    counting = [row for row in voters(found) if row["weight"] > 0]
    rows: dict[str, object] = {
        "people who vote": text.number(len(voters(found))),
        "votes by people": text.number(sum(int(row["votes"]) for row in voters(found))),
    }
    if agreement is None:
        note = "" if counting else (
            "Add annotators below and send them their invitations; figures follow the votes. "
        )  # fmt: skip
        note += _for_agreement(int(found["votes_per_pair"]))
        return text.join(text.figures(rows), text.notice(note, "info"))
    rows["Krippendorff's α"] = text.interval(
        agreement["alpha"], agreement["low"], agreement["high"], share=False
    )
    rows["raw agreement"] = text.percent(agreement["raw"])
    rows["pairs judged by two or more"] = text.number(agreement["items"])
    return text.join(text.figures(rows), text.notice(_reading(agreement), "info"))


def _for_agreement(votes_per_pair: int) -> str:
    """What is missing for figures of agreement."""
    if votes_per_pair < 2:
        return (
            "Each pair is given to one person, so there is no agreement to measure: for that, set "
            "votes_per_pair to 2 or more in the workspace's settings.json and start the app again."
        )
    return (
        f"Each pair is given to {votes_per_pair} people; agreement shows once two have judged "
        "the same ones."
    )


def _reading(agreement: Row) -> str:
    """What an alpha means here, in a sentence."""
    if agreement["alpha"] is None:
        return "Everybody always gave the same answer: there is nothing to tell apart yet."
    if agreement["low"] is not None and agreement["low"] <= 0:
        return (
            "α may well be 0, agreement by chance: too few votes, or edits that people cannot "
            "tell apart."
        )
    return (
        "α is 0 at agreement by chance and 1 at full agreement. Tastes differ: for preferences "
        "0.2 to 0.5 is common, and a reward model can only learn what people share."
    )


def charts_html(found: Row) -> Html:
    """How people vote, in rows with intervals; kappa of every two of them."""
    rows = voters(found)[:MOST_ROWS]
    if not rows:
        return Html("")
    drawn = [
        _kappas(found, [str(row["name"]) for row in rows]),
        _shares("Agrees with others", rows, "agrees", "share of others' answers", None,
                "Share of other people's answers on the same pairs that were the same."),
        _shares("Repeats the same answer", rows, "repeats", "share of hidden repeats", None,
                "Hidden repeats with the sides swapped."),
        _shares("Votes for the left side", rows, "left", "share of decided votes", 0.5, _tests(
            rows, "left")),
        _shares("Votes for the side played first", rows, "first", "share of decided votes", 0.5,
                _tests(rows, "first")),
        _shares("Prefers a broken edit", rows, "gold", "share of gold pairs", None,
                "Gold pairs hold one obviously broken edit: the fewer the better."),
        _speed(rows),
        _reliability(found, rows),
    ]  # fmt: skip
    return grid(*drawn)


def _shares(
    title: str, rows: Sequence[Row], name: str, x_label: str, half: float | None, about: str
) -> Html:
    dots = []
    for row in rows:
        one = row["figures"].get(name)
        if one is not None:
            dots.append(
                Dot(str(row["name"]), one["share"], one["low"], one["high"],
                    note=f"of {text.number(round(one['of']))}", faint=one["of"] < FEW_VOTES)
            )  # fmt: skip
    if not dots:
        about = {
            "agrees": "Nobody has judged a pair that somebody else judged.",
            "repeats": "No hidden repeat was voted on yet; they come now and then by themselves.",
            "gold": "No gold pair was voted on yet; they come now and then by themselves.",
        }.get(name, "No decided vote in the app yet: imported votes do not know their sides.")
    return dot_chart(
        title,
        dots,
        x_label=x_label,
        reference=None if half is None else (half, "even"),
        bounds=(0.0, 1.0),
        as_percent=True,
        about=about,
    )


def _tests(rows: Sequence[Row], name: str) -> str:
    """The exact tests of a half, in words."""
    found = [
        (str(row["name"]), row["figures"][name]["p"]) for row in rows if row["figures"].get(name)
    ]
    odd = [f"{who} {chance(p)}" for who, p in found if p < 0.05]
    told = f"Below 0.05: {', '.join(odd)}." if odd else "None is below 0.05."
    return (
        f"Exact binomial test against a half, {text.plural(len(found), 'person', 'people')}. {told}"
    )


def _speed(rows: Sequence[Row]) -> Html:
    dots = [
        charts.Bar(
            str(row["name"]),
            _whole(row["figures"]["votes_per_hour"]),
            note=f"({row['figures']['median_s']:.1f} s)"
            if charts.is_real(row["figures"]["median_s"])
            else "",
        )
        for row in rows
    ]
    return charts.bar_chart(
        "Votes per hour",
        dots,
        x_label="votes per hour of sitting (median seconds from heard to vote)",
    )


def _whole(value: Any) -> int | None:
    return round(value) if charts.is_real(value) else None


def _reliability(found: Row, rows: Sequence[Row]) -> Html:
    dots = [
        Dot(str(row["name"]), row["figures"]["reliability"])
        for row in rows
        if charts.is_real(row["figures"]["reliability"])
    ]
    source = found.get("reliability_from")
    about = "Known once a reward model was trained on people's votes (Train tab)."
    if source:
        about = f"From the fit of {source}: how steeply votes follow the reward; 1 is as the rest."
    return dot_chart(
        "Reliability in the reward's fit",
        dots,
        x_label="relative to the others",
        reference=(1.0, "as the rest"),
        bounds=(0.0, 1.5),
        about=about,
    )


def _kappas(found: Row, names: Sequence[str]) -> Html:
    values = {
        (row["first"], row["second"]): (
            row["kappa"],
            f"κ {text.interval(row['kappa'], row['low'], row['high'], share=False)}, "
            f"raw {text.percent(row['raw'])}, {text.plural(row['items'], 'pair')}",
        )
        for row in found["pairs_of_people"]
    }
    counting = [name for name in names if any(name in key for key in values)]
    about = "0 by chance, 1 full agreement; intervals on hovering."
    if not values:
        about = "Cohen's κ needs two people who judged the same pairs."
    return matrix("Cohen's κ of every two people", counting, values, about=about)


# -- tables ---------------------------------------------------------------------------------------


def people_table(rows: Sequence[Row]) -> Html:
    """Everybody with their votes; those of judges (programs) are counted apart."""
    if not rows:
        return text.empty("Nobody yet. Add an annotator below.")
    headers: tuple[str, ...] = (
        "Name",
        "Role",
        "Votes",
        "Counts",
        "Last vote",
        "State",
        "Headphones",
        "What is odd",
    )
    judged = any(int(row.get("simulated") or 0) for row in rows)
    if judged:
        headers = (*headers[:3], "Simulated votes", *headers[3:])
    return text.table(headers, [_row(row, judged) for row in rows])


def _row(row: Row, judged: bool) -> list[object]:
    simulated = int(row.get("simulated") or 0)
    state = text.chip("can sign in", "good")
    if row.get("disabled"):
        state = text.chip("disabled", "bad")
    elif not row.get("can_sign_in", True):
        state = text.chip("judge" if simulated else "imported", "warn" if simulated else "plain")
    weight = float(row.get("weight", 1.0))
    counts = text.chip("left out", "bad") if weight == 0 else text.percent(weight)
    check = row.get("headphones")
    tone = {"passed": "good", "failed": "bad", "skipped": "plain"}.get(str(check), "plain")
    marks = "".join(f"<li>{esc(mark)}</li>" for mark in row.get("marks") or [])
    cells: list[object] = [
        Html(f"<b>{esc(row['name'])}</b>"),
        row.get("role"),
        text.number(int(row.get("votes") or 0)),
        counts,
        text.when(row.get("last_vote")),
        state,
        text.chip(check, tone) if check else text.DASH,
        Html(f'<ul class="fa-marks">{marks}</ul>') if marks else text.DASH,
    ]
    if judged:
        cells.insert(3, text.number(simulated))
    return cells


def changes_table(rows: Sequence[Row]) -> Html:
    """Who was excluded or weighted, newest first."""
    if not rows:
        return Html("")
    return text.table(
        ("When", "Whose votes", "From", "To", "By", "Reason", ""),
        [
            (text.when(row["created_at"]), row["annotator"], text.percent(row["before"]),
             text.percent(row["after"]), row["changed_by"] or text.DASH,
             row["reason"] or text.DASH, _taken_back(row))
            for row in rows
        ],
    )  # fmt: skip


def _taken_back(row: Row) -> Html:
    if not row["undone_at"]:
        return Html("")
    by = f" by {row['undone_by']}" if row["undone_by"] else ""
    return text.chip(f"taken back {text.when(row['undone_at'])}{by}")


def effect_html(told: Row) -> Html:
    """The figures before and after a change of weight that has not been made."""
    before, after = told["before"], told["after"]
    alphas = [
        Dot(words, side["agreement"]["alpha"], side["agreement"]["low"], side["agreement"]["high"])
        for words, side in (("now", before), ("with the change", after))
        if side["agreement"] is not None
    ]
    now = {row["version"]: row for row in before["leaderboard"]}
    then = {row["version"]: row["strength"] for row in after["leaderboard"]}
    dots = [
        Dot(name, row["strength"], row["low"], row["high"], second=then.get(name))
        for name, row in now.items()
    ]
    votes = (
        f"{told['name']} at {text.percent(after['weight'])} in place of "
        f"{text.percent(before['weight'])}: {before['votes']:g} votes to learn from would be "
        f"{after['votes']:g}. The reward model learns of it when it is trained next."
    )
    return text.join(
        text.notice(votes, "info"),
        grid(
            dot_chart("Krippendorff's α", alphas, x_label="alpha", bounds=(0.0, 1.0),
                      about="No pair was judged by two people who count." if not alphas else ""),
            dot_chart("Strength of versions", dots, x_label="Bradley-Terry strength (log-odds)",
                      reference=(0.0, "average"), names=("now", "with the change"),
                      about="No version has met another." if not dots else ""),
        ),
    )  # fmt: skip


def tags_html(rows: Sequence[Row]) -> Html:
    """How often each tag was given."""
    bars = [charts.Bar(str(row["tag"]), int(row["votes"])) for row in rows[:MOST_ROWS]]
    if not bars:
        return Html("")
    return grid(charts.bar_chart("Tags", bars, x_label="votes with the tag"))


def comments_table(rows: Sequence[Row]) -> Html:
    """Votes with their tags and comments, as they were typed."""
    if not rows:
        return text.empty("No vote with a comment or a tag fits.")
    return text.table(
        ("When", "Who", "Chose", "Tags", "Comment", "Song", "Pair"),
        [
            (
                text.when(row["created_at"]),
                row["annotator"],
                _chose(row),
                text.join(*(text.chip(tag) for tag in row["tags"] or [])),
                Html(f'<span class="fa-comment">{esc(row["comment"])}</span>'),
                row["title"],
                Html(f'<code title="{esc(row["pair_id"])}">{esc(str(row["pair_id"])[:8])}</code>'),
            )
            for row in rows
        ],
        tall=True,
    )


def _chose(row: Row) -> str:
    side = CHOICES.get(str(row["choice"]), str(row["choice"]))
    made = {"a": row["policy_a"], "b": row["policy_b"]}.get(row["choice"])
    return f"{side} ({made})" if made else side
