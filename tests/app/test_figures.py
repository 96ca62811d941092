"""Figures against other libraries, closed forms and published examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from feedback_app.figures import davidson
from feedback_app.figures.agreement import _alpha_of, _coincidences, alpha, kappa, kappas
from feedback_app.figures.annotators import bias, marks
from feedback_app.figures.behaviour import behaviour, joins_of, mean_with_interval
from feedback_app.figures.intervals import binomial_p, share_of, wilson
from feedback_app.figures.leaderboard import (
    choose_clusters,
    leaderboard,
    tabulate,
    win_rate,
    with_covariates,
)
from feedback_app.figures.rounds import rounds

# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C: four observers,
# twelve units, five categories, missing data. Nominal alpha 0.743.
FOUR_OBSERVERS = """
    1 2 3 3 2 1 4 1 2 . . .
    1 2 3 3 2 2 4 1 2 5 . 3
    . 3 3 3 2 3 4 2 2 5 1 .
    1 2 3 3 2 4 4 1 2 5 1 ."""
# The three coders of the encyclopaedia's example: nominal alpha 0.691.
THREE_CODERS = """
    . . . . . 3 4 1 2 1 1 3 3 . 3
    1 . 2 1 3 3 4 3 . . . . . . .
    . . 2 1 3 4 4 . 2 1 1 3 3 . 4"""


def value_counts(table: str, values: int) -> np.ndarray:
    rows = [line.split() for line in table.split("\n") if line.strip()]
    return np.array(
        [
            [sum(row[i] == str(v + 1) for row in rows) for v in range(values)]
            for i in range(len(rows[0]))
        ]
    )


@pytest.mark.parametrize(
    ("table", "values", "published"), [(FOUR_OBSERVERS, 5, 0.743), (THREE_CODERS, 4, 0.691)]
)
def test_alpha_of_published_tables(table: str, values: int, published: float) -> None:
    counts = value_counts(table, values)
    found = alpha(counts, np.ones(len(counts), dtype=int))
    assert found["alpha"] == pytest.approx(published, abs=5e-4)
    assert found["low"] < found["alpha"] < found["high"]
    # counting like items together changes nothing, and the interval's own sums are the library's
    kinds, items = np.unique(counts, axis=0, return_counts=True)
    assert alpha(kinds, items)["alpha"] == pytest.approx(found["alpha"])
    paired = counts[counts.sum(1) >= 2].astype(float)
    assert float(_alpha_of(_coincidences(paired).sum(0))) == pytest.approx(found["alpha"])


def test_alpha_is_one_at_full_agreement_and_nought_by_chance() -> None:
    rng = np.random.default_rng(0)
    same = alpha(np.array([[3, 0, 0], [0, 0, 3]]), np.array([40, 60]))
    assert (same["alpha"], same["low"], same["high"], same["raw"]) == (1, 1, 1, 1)
    answers = rng.integers(0, 3, size=(3000, 2))
    counts = np.stack([(answers == v).sum(1) for v in range(3)], axis=1)
    chance = alpha(counts, np.ones(3000, dtype=int))
    assert chance["low"] < 0 < chance["high"] and chance["high"] - chance["low"] < 0.12
    assert chance["raw"] == pytest.approx(1 / 3, abs=0.04)
    assert alpha(np.array([[1, 0, 0]]), np.array([9])) is None
    one_answer = alpha(np.array([[2, 0, 0]]), np.array([9]))
    assert one_answer["alpha"] is None and one_answer["raw"] == 1


def test_alpha_s_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Two people who answer alike with probability .6, else by chance: alpha is .36."""
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(120):
        truth = rng.integers(0, 2, 150)
        both = [np.where(rng.random(150) < 0.6, truth, rng.integers(0, 2, 150)) for _ in range(2)]
        counts = np.stack([sum(b == v for b in both) for v in range(2)], axis=1)
        found = alpha(counts, np.ones(150, dtype=int), seed=trial, samples=200)
        inside += found["low"] <= 0.36 <= found["high"]
    assert 0.88 <= inside / 120 <= 0.995


def test_kappa_is_sklearn_s() -> None:
    rng = np.random.default_rng(2)
    first = rng.integers(0, 3, 200)
    second = np.where(rng.random(200) < 0.5, first, rng.integers(0, 3, 200))
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    found = kappa(table)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(first, second))
    assert found["raw"] == pytest.approx(float((first == second).mean()))
    # Fleiss, Cohen and Everitt's (1969) large-sample error, about as wide as the bootstrap
    assert found["high"] - found["low"] == pytest.approx(4 * 0.05, abs=0.06)
    rows = [{"first": "ann", "second": "bob", "answer_first": i, "answer_second": j,
             "n": int(table[i, j])} for i in range(3) for j in range(3)]  # fmt: skip
    (pair,) = kappas(rows)
    assert (pair["first"], pair["second"], pair["items"]) == ("ann", "bob", 200)
    assert pair["kappa"] == pytest.approx(found["kappa"])


@pytest.mark.parametrize(("count", "total"), [(9, 10), (5, 10), (0, 7), (60, 100), (5100, 10000)])
def test_the_test_of_a_half_is_scipy_s(count: int, total: int) -> None:
    assert binomial_p(count, total) == pytest.approx(binomtest(count, total).pvalue, rel=1e-9)


def test_wilson_interval_of_a_known_case() -> None:
    # 8 of 10: (0.490, 0.943), as in Wilson (1927) and every table since
    share, low, high = wilson(8, 10)
    assert (share, round(low, 3), round(high, 3)) == (0.8, 0.490, 0.943)
    limits = binomtest(37, 90).proportion_ci(method="wilson")
    assert wilson(37, 90)[1:] == pytest.approx((limits.low, limits.high))
    assert share_of(0, 0) is None


# -- Bradley-Terry-Davidson -----------------------------------------------------------------------


def games(
    strengths: np.ndarray, nu: float, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) who met, (n,) outcome 0 first, 1 second, 2 tie, drawn from Davidson's model."""
    sides = np.array([rng.choice(len(strengths), 2, replace=False) for _ in range(n)])
    power = np.exp(strengths)[sides]
    tie = nu * np.sqrt(power.prod(1))
    cut = np.cumsum(np.column_stack([power, tie]) / (power.sum(1) + tie)[:, None], axis=1)
    return sides, (rng.random(n)[:, None] > cut).sum(1)


def design_of(sides: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((len(sides), n))
    out[np.arange(len(sides)), sides[:, 0]] = 1
    out[np.arange(len(sides)), sides[:, 1]] = -1
    return out


def test_two_versions_with_ties_have_a_closed_form() -> None:
    # Davidson (1970): log(wins / losses), and nu = ties / sqrt(wins * losses)
    found = davidson.fit(np.array([[1.0, -1.0]]), np.array([[3000.0, 1000.0, 500.0]]))
    assert found.coefficients[0] - found.coefficients[1] == pytest.approx(np.log(3), abs=1e-3)
    assert np.exp(found.log_tie) == pytest.approx(500 / np.sqrt(3e6), abs=1e-3)


def test_without_ties_it_is_a_logistic_regression() -> None:
    rng = np.random.default_rng(3)
    sides, outcome = games(np.array([0.0, 0.5, 1.0, -0.7]), 0.0, 300, rng)
    design = design_of(sides, 4)
    counts = np.eye(3)[outcome]
    counts[:, 2] = 0
    sklearn = LogisticRegression(
        C=davidson.PRIOR_SD**2, fit_intercept=False, tol=1e-10, max_iter=1000
    ).fit(design, outcome == 0)
    # a fixed tie parameter far below any tie's makes Davidson's model Bradley and Terry's
    found = davidson.fit(design, counts * 1.0)
    assert float(found.log_tie) < -5
    assert found.coefficients == pytest.approx(sklearn.coef_[0], abs=0.01)


def test_ties_and_covariates_are_a_general_optimiser_s() -> None:
    rng = np.random.default_rng(4)
    sides, outcome = games(np.array([0.0, 0.6, -0.4]), 0.8, 400, rng)
    design = np.column_stack([design_of(sides, 3), rng.normal(size=400)])
    weights = rng.choice([0.5, 1.0], 400)

    def minus_log_posterior(x: np.ndarray) -> float:
        power = np.exp(design @ x[:-1])  # first against second, in Davidson's own terms
        nu = np.exp(x[-1])
        total = power + 1 + nu * np.sqrt(power)
        chance = np.column_stack([power / total, 1 / total, nu * np.sqrt(power) / total])
        likelihood = (weights * np.log(chance[np.arange(400), outcome])).sum()
        prior = (x[:-1] ** 2).sum() + (x[-1] - np.log(0.5)) ** 2
        return float(prior / (2 * davidson.PRIOR_SD**2) - likelihood)

    best = minimize(minus_log_posterior, np.zeros(5), method="BFGS", options={"gtol": 1e-7})
    found = davidson.fit(design, np.eye(3)[outcome] * weights[:, None])
    assert np.append(found.coefficients, found.log_tie) == pytest.approx(best.x, abs=1e-4)
    step = 1e-3 * np.eye(5)
    curvature = [
        [
            sum(
                i * j * minus_log_posterior(best.x + i * step[row] + j * step[column])
                for i in (1, -1)
                for j in (1, -1)
            )
            / 4e-6
            for column in range(5)
        ]
        for row in range(5)
    ]
    assert found.covariance == pytest.approx(np.linalg.inv(curvature), rel=0.01, abs=1e-3)


def test_samples_fitted_together_are_as_fitted_alone() -> None:
    rng = np.random.default_rng(5)
    design = design_of(np.array([[0, 1], [1, 2], [0, 2]]), 3)
    counts = rng.integers(0, 30, (7, 3, 3)).astype(float)
    together = davidson.fit(design, counts)
    for i in range(7):
        alone = davidson.fit(design, counts[i])
        assert together.coefficients[i] == pytest.approx(alone.coefficients, abs=1e-7)


def columns_of(rows: list[tuple[str, str, str, str, float, float, float]]) -> dict:
    names = ("policy_a", "policy_b", "song", "annotator", "won_a", "won_b", "ties")
    columns = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
    total = columns["won_a"] + columns["won_b"] + columns["ties"]
    return columns | {"squares": total}


def test_a_leaderboard_finds_the_order_and_its_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(6)
    truth = np.array([-0.6, 0.0, 0.6])
    inside, orders = 0, 0
    for trial in range(40):
        sides, outcome = games(truth, 0.5, 360, rng)
        rows = [
            (f"v{a}", f"v{b}", f"song{i % 12}", "ann", *np.eye(3)[o])
            for i, ((a, b), o) in enumerate(zip(sides, outcome, strict=True))
        ]
        found = leaderboard(columns_of(rows), seed=trial, samples=150)
        by_name = {row["version"]: row for row in found["rows"]}
        orders += [row["version"] for row in found["rows"]] == ["v2", "v1", "v0"]
        inside += sum(by_name[f"v{i}"]["low"] <= truth[i] <= by_name[f"v{i}"]["high"]
                      for i in range(3))  # fmt: skip
    assert found["resampled"] == "song" and found["clusters"] == 12
    assert orders >= 37
    assert 0.85 <= inside / 120 <= 0.99


def test_what_is_resampled_is_songs_then_people_then_votes_and_is_said() -> None:
    base = [("v1", "v2", f"s{i % 3}", f"p{i % 2}", 1.0, 0.0, 0.0) for i in range(20)]
    assert choose_clusters(columns_of(base)) == "vote"
    told = leaderboard(columns_of(base))
    assert told["resampled"] == "vote" and any("too narrow" in note for note in told["notes"])
    assert any("Fewer than 30 votes" in note for note in told["notes"])
    people = [(*row[:3], f"p{i % 6}", *row[4:]) for i, row in enumerate(base)]
    assert leaderboard(columns_of(people))["resampled"] == "annotator"
    songs = [(*row[:2], f"s{i % 6}", *row[3:]) for i, row in enumerate(base)]
    assert leaderboard(columns_of(songs))["resampled"] == "song"
    empty = leaderboard(columns_of(base[:0]))
    assert empty["rows"] == []


def test_versions_that_never_met_are_said_to_be_incomparable() -> None:
    rows = [("v1", "v2", f"s{i % 6}", "p", 1.0, 1.0, 0.0) for i in range(30)]
    rows += [("v3", "v4", f"s{i % 6}", "p", 1.0, 0.0, 0.0) for i in range(30)]
    found = leaderboard(columns_of(rows))
    assert found["groups"] == 2 and any("never met" in note for note in found["notes"])


def test_counts_are_the_same_whichever_version_is_a() -> None:
    rows = [("v1", "v2", "s", "p", 3.0, 1.0, 2.0), ("v2", "v1", "s", "p", 4.0, 5.0, 1.0)]
    table = tabulate(columns_of(rows), "song")
    assert table.names == ["v1", "v2"]
    assert table.counts.tolist() == [[[8.0, 5.0, 3.0]]]
    within = tabulate(columns_of([("v1", "v1", "s", "p", 3.0, 1.0, 2.0)]), "song")
    assert within.names == []


def test_a_taste_for_length_is_not_taken_for_a_better_version() -> None:
    """People here only like the longer edit, and v2 makes longer ones."""
    rng = np.random.default_rng(7)
    n = 4000
    new_is_a = rng.random(n) < 0.5
    longer = rng.normal(2.0, 4.0, n).round()  # of v2 over v1
    first_longer = np.where(new_is_a, longer, -longer)
    wins = rng.random(n) < 1 / (1 + np.exp(-0.1 * first_longer))
    columns = {
        "policy_a": np.where(new_is_a, "v2", "v1"), "policy_b": np.where(new_is_a, "v1", "v2"),
        "song": np.array([f"s{i % 20}" for i in range(n)]), "longer_s": first_longer,
        "louder_db": np.zeros(n), "won_a": wins * 1.0, "won_b": 1.0 - wins, "ties": np.zeros(n),
    }  # fmt: skip
    plain = {row["version"]: row["strength"] for row in leaderboard(columns)["rows"]}
    adjusted = with_covariates(columns)
    held = {row["version"]: row["strength"] for row in adjusted["rows"]}
    assert plain["v2"] - plain["v1"] > 0.12
    assert abs(held["v2"] - held["v1"]) < 0.12
    (length,) = adjusted["effects"]  # level never differed
    assert length["name"] == "length" and length["low"] < 0.5 < length["high"]
    assert length["wins"] == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.04)
    assert with_covariates({name: values[:0] for name, values in columns.items()})["rows"] == []
    alone = with_covariates(columns | {"policy_a": columns["policy_b"]})
    assert alone["rows"] == [] and len(alone["effects"]) == 1  # nobody met, but length still tells


def test_a_win_rate_counts_ties_half_and_weights_widen_it() -> None:
    rows = [("v2", "v1", "s", "p", 30.0, 5.0, 0.0), ("v1", "v2", "s", "p", 5.0, 0.0, 0.0),
            ("v2", "v1", "t", "p", 0.0, 0.0, 10.0)]  # fmt: skip
    columns = columns_of(rows)
    found = win_rate(columns, "v2", "v1")
    assert found is not None and found["win_rate"] == pytest.approx(35 / 50)
    assert (found["low"], found["high"]) == pytest.approx(wilson(35, 50)[1:])
    half = {n: v / 2 if n in ("won_a", "won_b", "ties") else v for n, v in columns.items()}
    weighted = win_rate(half | {"squares": columns["squares"] / 4}, "v2", "v1")
    assert weighted is not None and weighted["votes"] == 25
    assert weighted["low"] == pytest.approx(found["low"])  # all alike: as if nobody was weighted
    assert win_rate(columns, "v3", "v1") is None


# -- people, rounds, behaviour --------------------------------------------------------------------


def test_a_bias_is_marked_when_it_is_both_sure_and_large() -> None:
    nothing = dict.fromkeys(("left", "first", "gold", "too_fast", "repeats"))
    assert marks(nothing | {"left": bias(30, 40)}, None)[0].startswith("75 % for the left side")
    assert "right side" in marks(nothing | {"left": bias(10, 40)}, None)[0]
    assert "played second" in marks(nothing | {"first": bias(10, 40)}, None)[0]
    assert marks(nothing | {"left": bias(7, 10)}, None) == []  # may well be chance
    assert marks(nothing | {"left": bias(5300, 10000)}, None) == []  # sure, but small
    assert "2 times in 4" in marks(nothing | {"gold": share_of(2, 4)}, None)[0]
    assert marks(nothing | {"gold": share_of(1, 1)}, None) == []
    assert "50 % of votes too fast" in marks(nothing | {"too_fast": share_of(15, 30)}, None)[0]
    assert "own answers" in marks(nothing | {"repeats": share_of(5, 12)}, None)[0]
    assert "agrees with others" in marks(nothing, share_of(30, 100))[0]


def test_rounds_keep_people_and_judges_apart() -> None:
    policies = [
        {"version": f"v{i}", "parent": f"v{i - 1}" if i > 1 else None, "reward_model": "r1",
         "status": "active", "metrics": {"simulated": i == 3}, "created_at": "2026"}
        for i in (1, 2, 3)
    ]  # fmt: skip
    human = columns_of(
        [("v2", "v1", "s", "p", 8.0, 2.0, 0.0), ("v3", "v2", "s", "p", 1.0, 1.0, 0.0)]
    )
    judged = columns_of([("v3", "v2", "s", "judge", 90.0, 10.0, 0.0)])
    reward = {"version": "r1", "n_votes": 12, "metrics": {"accuracy": 0.7, "ceiling": 0.8}}
    first, second = rounds(policies, [reward], human, judged)
    assert first["human"]["win_rate"] == 0.8 and first["judged"] is None
    assert first["accuracy"] == 0.7 and first["ceiling"] == 0.8 and first["votes"] == 12
    assert second["simulated"] and second["judged"]["win_rate"] == 0.9
    assert second["human"]["votes"] == 2


def test_joins_are_where_the_source_does_not_play_straight_on() -> None:
    straight = [[beat, beat * 0.5, 0.5, 0] for beat in range(8)]
    assert joins_of(straight) == 0
    assert joins_of(straight[:3] + straight[5:]) == 1
    assert joins_of([straight[0], straight[0], straight[1]]) == 1


def test_behaviour_counts_beats_joins_and_actions() -> None:
    straight = [[beat, beat * 0.5, 0.5, 0] for beat in range(8)]
    edits = [
        {"actions": [0] * 8, "beats": straight},
        {"actions": [0, 0, 0, 1, 1, 0, 0, 0], "beats": straight[:3] + straight[5:]},
    ]
    found = behaviour(edits, ("KEEP", "CUT"))
    assert found["keep_ratio"]["mean"] == pytest.approx((1 + 6 / 8) / 2)
    assert found["joins_per_edit"]["mean"] == 0.5
    assert found["actions"] == {"KEEP": 14 / 16, "CUT": 2 / 16}
    assert mean_with_interval([2.0]) == {"mean": 2.0, "low": None, "high": None, "of": 1}
    assert behaviour([], ("KEEP",))["keep_ratio"] is None
