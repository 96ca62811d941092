"""Exports in every form: there and back without loss, same query same bytes, filters, audio."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from conftest import add_pairs, add_song, fresh
from votes_of_all_kinds import PAIRS, VOTES, Cast, exported, fill

from feedback_app.errors import InvalidError
from feedback_app.exchange import SUFFIXES
from feedback_app.services import Services

typed = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
text = typed | st.text("='+-@\t\r ＝x", max_size=5)
listened = st.none() | st.fixed_dictionaries(
    {"first_side": st.sampled_from(["left", "right"]), "left_s": st.floats(0, 1e6)}
)


@st.composite
def casts(draw: Callable[[Any], Any]) -> list[Cast]:
    """Votes by three people and a program; nobody votes twice on a pair save for repeats."""
    wanted = draw(
        st.lists(
            st.tuples(st.integers(0, PAIRS - 1), st.sampled_from(["ann", "zoë <b>", "judge"]),
                      st.booleans()),
            unique=True, max_size=14,
        )
    )  # fmt: skip
    found = []
    for pair, annotator, repeat in wanted:
        choice = draw(st.sampled_from(["a", "b", "tie", "both_bad", "skip"]))
        strengths = st.sampled_from([None, 1, 2, 3]) if choice in "ab" else st.none()
        found.append(
            Cast(
                pair, annotator, choice, draw(strengths), draw(st.none() | text),
                draw(st.none() | st.lists(text, max_size=2).map(tuple)), draw(listened),
                draw(st.booleans()), annotator == "judge", repeat and annotator != "judge",
            )
        )  # fmt: skip
    return found


def check_returns(votes: list[Cast], seed: int) -> None:
    """Byte for byte, also those forms that hold less than the record: what they hold returns."""
    with TemporaryDirectory() as name, closing(fresh(Path(name) / "here")) as here:
        fill(here, PAIRS, votes, seed)
        for form in SUFFIXES:
            written = exported(here, form, Path(name) / "out")
            with closing(fresh(Path(name) / form)) as there:
                answer = there.operations.import_votes(str(written))
                assert answer["rejected"] == []
                again = exported(there, form, Path(name) / "back")
                assert again.read_bytes() == written.read_bytes(), form
                if form == "parquet":  # and one form holds what the others hold
                    for other in ("csv", "jsonl", "trl", "arena", "imitation"):
                        twice = exported(there, other, Path(name) / "others")
                        once = exported(here, other, Path(name) / "out")
                        assert twice.parent.name == once.parent.name


@pytest.mark.long
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # shrinking would open thousands of workspaces
)
@given(casts(), st.integers(0, 2**16))
def test_any_votes_come_back_from_another_workspace(votes: list[Cast], seed: int) -> None:
    check_returns(votes, seed)


def test_every_form_comes_back_from_another_workspace() -> None:
    check_returns(VOTES, 0)


@pytest.fixture
def filled(services: Services) -> Services:
    fill(services, PAIRS, VOTES)
    return services


def rows(services: Services, **wanted: Any) -> pd.DataFrame:
    """What an export holds; its preview, which other queries make, is held to that."""
    found = pd.read_parquet(services.operations.export("parquet", **wanted)["path"])
    shown = services.operations.preview_export(limit=100, **wanted)
    assert shown["votes"] == len(found)
    assert [row["vote_id"] for row in shown["rows"]] == list(found["vote_id"])
    return found


def test_filters_take_what_they_say(filled: Services) -> None:
    assert len(rows(filled)) == 11
    assert set(rows(filled, only_simulated=True)["annotator"]) == {"judge"}
    assert len(rows(filled, include_simulated=True)) == 13
    assert set(rows(filled, annotators=["bob"])["annotator"]) == {"bob"}
    assert set(rows(filled, pools=["repeat", "gold"])["pool"]) == {"repeat", "gold"}
    assert set(rows(filled, splits=["test"])["song_id"]) == {f"{1:016x}"}
    sides = rows(filled, versions=["policy_v3"])[["policy_a", "policy_b"]]
    assert len(sides) and (sides == "policy_v3").any(axis=1).all()
    # p0: a, a (its repeat left out), p1: b, a, p3: both bad twice; p5's can't judge does not count
    assert set(rows(filled, agreement=0.9)["pair_id"]) == {"p0", "p3"}
    assert set(rows(filled, agreement=0.5)["pair_id"]) == {"p0", "p1", "p3"}
    filled.operations.set_weight("bob", 0.0)
    assert "bob" not in set(rows(filled)["annotator"]) and rows(filled, agreement=0.5).empty
    for wrong in ({"agreement": 1.5}, {"pools": ["nowhere"]}, {"rounds": [0]}, {"audio": "mp3"}):
        with pytest.raises(InvalidError):
            filled.operations.export("csv", **wrong)


def test_choices_and_counts_are_of_the_votes_that_stand(filled: Services) -> None:
    everything = rows(filled, include_simulated=True)
    choices = filled.operations.export_choices()
    assert choices["annotators"] == sorted(set(everything["annotator"]))
    assert choices["versions"] == sorted(set(everything["policy_a"]) | set(everything["policy_b"]))
    assert choices["rounds"] == 1
    one, row = everything.iloc[0], "vote_id, seq, pair_id, annotator, kind, undoes, choice"
    rest = "simulated, source, created_at"
    filled.store.database.execute(  # ann changes her mind on one pair, takes back another
        f"INSERT INTO votes ({row}, {rest}) SELECT uuid(), 1000, pair_id, annotator, 'vote', NULL,"
        f" 'tie', {rest} FROM votes WHERE vote_id = ?::UUID",
        [one["vote_id"]],
    )
    assert len(rows(filled)) == 11 and one["vote_id"] not in set(rows(filled)["vote_id"])
    filled.store.database.execute(
        f"INSERT INTO votes ({row}, {rest}) SELECT uuid(), 1001, pair_id, annotator, 'undo',"
        f" vote_id, NULL, {rest} FROM votes WHERE seq = 1000"
    )
    assert len(rows(filled)) == 11 and one["vote_id"] in set(rows(filled)["vote_id"])


def test_a_round_ends_where_a_trained_policy_begins(filled: Services) -> None:
    filled.store.database.execute(
        "INSERT INTO policies (version, path, parent, status, created_at) VALUES"
        " ('policy_v2', 'x', 'policy_v1', 'active', '2026-03-01 15:30:00')"
    )  # after the fourth vote: they are an hour apart from 12:00
    assert len(rows(filled, rounds=[1])) == 4
    assert len(rows(filled, rounds=[2])) == 7
    assert len(rows(filled, rounds=[1, 2])) == 11
    assert rows(filled, rounds=[3]).empty
    assert filled.operations.export_choices()["rounds"] == 2


def test_the_same_query_gives_the_same_bytes_and_name(filled: Services, tmp_path: Path) -> None:
    for form in SUFFIXES:
        first = filled.operations.export(form)
        again = filled.operations.export(form, str(tmp_path))
        assert Path(first["folder"]).name == Path(again["folder"]).name
        for path in Path(first["folder"]).iterdir():
            assert path.read_bytes() == (Path(again["folder"]) / path.name).read_bytes()
        zipped = Path(first["folder"]).with_suffix(".zip")
        with zipfile.ZipFile(zipped) as archive:
            assert sorted(archive.namelist()) == sorted(
                p.name for p in Path(first["folder"]).iterdir()
            )
            assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_the_table_means_what_the_card_says(filled: Services) -> None:
    made = filled.operations.export("parquet")
    table = duckdb.read_parquet(made["path"])
    card = (Path(made["folder"]) / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and made["sha256"] in card
    assert all(f"| {name} |" in card for name in table.columns)
    assert "votes | 11 (a 4, b 3, both_bad 2, skip 1, tie 1)" in card
    assert "| split `train` | 5 votes, 1 songs |" in card and "All votes are by people" in card
    one = pd.read_parquet(made["path"]).iloc[0]
    assert one["first_played"] == "a" and one["b_first"]  # b was left, the right one was played
    played = [b for s in one["segments_a"] for b in range(s["start_beat"], s["end_beat"])]
    seconds = sum(one["beat_times"][b - 3] - one["beat_times"][b - 4] for b in played)
    assert seconds == pytest.approx(one["duration_a"], abs=1e-4)
    marked = filled.operations.export("csv", include_simulated=True)
    card = (Path(marked["folder"]) / "README.md").read_text(encoding="utf-8")
    assert "**2 of these votes are simulated**" in card and "simulated_votes: 2" in card


def test_no_cell_of_a_csv_is_a_formula(filled: Services, tmp_path: Path) -> None:
    """Read by a library, not by us: text behind an apostrophe, numbers as they are."""
    path = Path(filled.operations.export("csv")["path"])
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    risky = [c for c in cells if c[:1] in tuple("=+-@\t\r\n＝＋－＠")]
    assert all(re.fullmatch(r"-[0-9.e-]+", cell) for cell in risky)
    comments = pd.read_csv(path, keep_default_na=False)["comment"]
    assert {"'=1+1", "''=1+1"} <= set(comments)
    answer = filled.operations.sql("SELECT '=1+1' AS \"=x\", -2 AS n, comment FROM votes LIMIT 3")
    with Path(answer["csv"]).open(encoding="utf-8", newline="") as file:
        head, first, *_ = csv.reader(file)
    assert head == ["'=x", "n", "comment"] and first[:2] == ["'=1+1", "-2"]
    assert answer["rows"][0][0] == "=1+1"  # the page shows what is there
    (tmp_path / "list.csv").write_text("pair_id,annotator,choice,comment\np2,eve,a,'=typed\n")
    filled.operations.import_votes(str(tmp_path / "list.csv"))
    assert "=typed" in set(rows(filled)["comment"])


def test_pseudonyms_stand_for_people_in_every_form(filled: Services, tmp_path: Path) -> None:
    """The same ones in every export of a workspace, kept on the way, others elsewhere."""
    names = {"ann", "bob"}
    wanted = {"pseudonyms": True, "annotators": ["ann", "bob", "judge"]}
    for form in SUFFIXES:
        folder = exported(filled, form, tmp_path / "out", **wanted).parent
        for path in folder.iterdir():
            content = path.read_bytes()
            if path.suffix == ".npz":
                content = str(np.load(path)["votes"]).encode()
            assert not any(re.search(rf'["|, ]{n}["|, .]', str(content)) for n in names), path
    known = rows(filled, include_simulated=True).set_index("vote_id")["annotator"]
    hidden = rows(filled, include_simulated=True, pseudonyms=True).set_index("vote_id")["annotator"]
    called = dict(zip(known, hidden[known.index], strict=True))
    assert called["judge"] == "judge" and len(set(called.values())) == 3
    assert re.fullmatch("annotator-[0-9a-f]{12}", called["ann"])
    secret = filled.store.secret("pseudonyms").encode()
    digest = hmac.new(secret, b"ann", hashlib.sha256).hexdigest()
    assert called["ann"] == f"annotator-{digest[:12]}"
    first = rows(filled, annotators=["bob"], pseudonyms=True)
    assert set(first["annotator"]) == {called["bob"]}
    made = exported(filled, "parquet", tmp_path / "out", pseudonyms=True)
    with closing(fresh(tmp_path / "there")) as there:
        there.operations.import_votes(str(made))
        again = exported(there, "parquet", tmp_path / "back", pseudonyms=True)
        assert again.read_bytes() == made.read_bytes()
        assert there.store.secret("pseudonyms").encode() != secret


def test_a_preview_shows_the_first_rows(filled: Services) -> None:
    for form in SUFFIXES:
        shown = filled.operations.preview_export(form, limit=2)
        assert shown["votes"] == 11 and len(shown["rows"]) == 2
        names = [column["name"] for column in shown["columns"]]
        assert list(shown["rows"][0]) == names
        json.dumps(shown, allow_nan=False)


@pytest.fixture
def heard(services: Services) -> Iterator[Services]:
    """Pairs with audio, a vote on each, and an analysed song."""
    add_song(services), add_pairs(services, 2)
    lines = "pair_id,annotator,choice\npair0000,ann,a\npair0001,ann,b\n"
    path = services.workspace.root / "votes.csv"
    path.write_text(lines)
    services.operations.import_votes(str(path))
    np.savez(
        services.workspace.cache / "0123456789abcdef.npz",
        times=np.arange(33) * 0.5, bar_phase=np.arange(32) % 4,
        features=np.random.default_rng(0).normal(size=(32, 121)).astype(np.float32),
        waveform=np.zeros(400), meta=np.array('{"feature_version": "beat-features-1"}'),
    )  # fmt: skip
    yield services


def finished(services: Services, run_id: str, wait: Callable[..., Any]) -> dict[str, Any]:
    view = wait(services, run_id)
    assert view["state"] == "finished", view["log_tail"]
    return dict(view["results"])


@pytest.fixture
def wait() -> Callable[[Services, str], dict[str, Any]]:
    """Look after the runs until this one has ended."""

    def until(services: Services, run_id: str) -> dict[str, Any]:
        child = services.jobs._children[run_id]
        child.wait(timeout=60)
        services.jobs.poll()
        return dict(services.operations.run_view(run_id))

    return until


def test_audio_and_features_come_along_and_return(
    heard: Services, tmp_path: Path, wait: Callable[..., Any]
) -> None:
    """Audio makes the export a run of its own; what it wrote is taken in elsewhere, with sound."""
    started = heard.operations.export("jsonl", audio="wav", features=True)
    made = finished(heard, started["run_id"], wait)
    table = pd.read_json(made["path"], lines=True)
    folder = Path(made["folder"])
    assert made["rows"] == 2 and made["missing_files"] == 0
    for name in ("audio_a", "audio_b", "audio_original"):
        samples, rate = soundfile.read(folder / table[name][1])
        assert rate == 8000 and len(samples) > 8000 * 10
    features = np.load(folder / table["features"][0])
    assert features["features"].shape == (32, 121) and len(set(features["names"])) == 121
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == 2 + 6 + 1
    archive = folder.with_suffix(".zip")
    with closing(fresh(tmp_path / "there")) as there:
        assert there.operations.import_votes(str(archive)) == {"accepted": 2, "rejected": []}
        stored = there.store.edit("pair0001-a")["audio_path"]
        ours, theirs = folder / table["audio_a"][1], there.workspace.resolve(stored)
        assert ours.read_bytes() == theirs.read_bytes()


def test_fragments_have_the_songs_features_on_request(heard: Services) -> None:
    data = np.load(heard.operations.export("imitation", features=True)["path"])
    song = np.load(heard.workspace.cache / "0123456789abcdef.npz")["features"]
    assert data["fragments1_obs"].shape == (2 * 33, 3 + 121)
    np.testing.assert_array_equal(data["fragments2_obs"][33:65, 3:], song)
    assert list(data["preferences"]) == [1.0, 0.0]
    (heard.workspace.cache / "0123456789abcdef.npz").unlink()
    with pytest.raises(InvalidError, match="no analysis"):
        heard.operations.export("imitation", features=True)


def test_bad_rows_of_full_records_are_told_and_good_ones_go_in(
    filled: Services, tmp_path: Path
) -> None:
    lines = exported(filled, "jsonl", tmp_path).read_text(encoding="utf-8").split("\n")[:-1]
    good = [json.loads(line) for line in lines]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"actions_a": [1, 2]}, "one per beat"), ({"actions_b": [11] * 36}, "action id 11"),
        ({"vote_id": "x"}, "not a UUID"), ({"start_beat": "four"}, "not a int32"),
        ({"beat_times": [0.0] * 37}, "rise"), ({"created_at": "yesterday"}, "timestamp"),
        ({"segments_a": [{"start_beat": 0}]}, "segments"), ({"pool": "x"}, "pool 'x'"),
        ({"source": "simulate"}, "marked as simulated"), ({"listened": [1]}, "listened"),
        ({"strength": True}, "strength"), ({"annotator_weight": 1.5}, "annotator_weight"),
        ({"annotator": "a" * 61}, "annotator"),
    ]  # fmt: skip
    path = tmp_path / "mixed.jsonl"
    mixed = [good[0] | change for change, _ in wrong] + good
    path.write_text("\n".join(json.dumps(row) for row in mixed) + "\n", encoding="utf-8")
    with closing(fresh(tmp_path / "there")) as there:
        answer = there.operations.import_votes(str(path))
        assert answer["accepted"] == len(good)
        assert [row["line"] for row in answer["rejected"]] == list(range(1, len(wrong) + 1))
        for row, (_, words) in zip(answer["rejected"], wrong, strict=True):
            assert words in row["reason"], row
        again = there.operations.import_votes(str(path))
        assert again["accepted"] == 0 and "here already" in again["rejected"][-1]["reason"]
        known = filled.operations.import_votes(str(path))
        assert known["accepted"] == 0 and len(known["rejected"]) == len(mixed)
