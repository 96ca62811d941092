"""SQL of songs, edits, pairs, and of policy and reward-model versions."""

from __future__ import annotations

from typing import Any

from feedback_app.cursors import first_row
from feedback_app.database import Database, Row, fetch, utc_now
from feedback_app.errors import ConflictError, NotFoundError
from feedback_app.json_columns import decoded, dumps, insert
from feedback_app.store_runs import DRY_RUNS

SONG_JSON = ("waveform", "beat_times", "bar_phase")
EDIT_JSON = ("actions", "edl", "peaks")
PAIR_JSON = ("original_edl", "original_peaks", "regions_a", "regions_b", "gains_db")


def insert_pair(
    cursor: Any, pair: Row, edits: list[Row], run_id: str | None, *, retired: bool = False
) -> bool:
    """A pair and its edits, as rows of plain values; False where the pair is there already."""
    cursor.execute("SELECT 1 FROM pairs WHERE pair_id = ?", [pair["pair_id"]])
    if first_row(cursor) is not None:
        return False
    for edit in edits:
        row = edit | {name: dumps(edit.get(name)) for name in EDIT_JSON}
        insert(cursor, "edits", row, ignore=True)
    row = pair | {name: dumps(pair.get(name)) for name in PAIR_JSON}
    insert(cursor, "pairs", row | {"run_id": run_id, "created_at": utc_now(), "retired": retired})
    return True


def next_version(cursor: Any, table: str, prefix: str, first: int) -> str:
    """The next free name of a version: prefix and one more than the highest number.

    Edits may be by policies of another workspace, whose votes were imported: those names are taken.
    """
    names = f"SELECT version FROM {table}"
    if table == "policies":
        names += " UNION SELECT policy FROM edits"
    cursor.execute(
        f"SELECT coalesce(max(substr(version, ?)::INTEGER) + 1, ?)"
        f" FROM ({names}) WHERE regexp_full_match(version, ? || '[0-9]+')",
        [len(prefix) + 1, first, prefix],
    )
    return f"{prefix}{first_row(cursor)[0]}"


class LibraryRows:
    """Songs, edits, pairs and versions."""

    database: Database

    def songs(self) -> list[Row]:
        """Every song, oldest first, without the long arrays."""
        return self.database.rows(
            f"""SELECT * EXCLUDE ({", ".join(SONG_JSON)}),
                (SELECT count(*) FROM pairs AS p WHERE p.song_id = songs.song_id) AS pairs
            FROM songs WHERE status <> 'removed' ORDER BY added_at, title, song_id"""
        )

    def song(self, song_id: str) -> Row:
        row = self.database.row("SELECT * FROM songs WHERE song_id = ?", [song_id])
        if row is None:
            raise NotFoundError(f"there is no song {song_id!r}")
        return decoded(row, SONG_JSON)

    def find_song(self, song_id: str) -> Row | None:
        return self.database.row("SELECT * FROM songs WHERE song_id = ?", [song_id])

    def reanalyse_song(self, song_id: str, path: str, title: str) -> None:
        """A song that failed, or that was known from imported votes only, has a file now."""
        values = {"status": "analysing", "error": None, "path": path, "title": title}
        self.database.write(lambda cursor: self.update_song(cursor, song_id, values))

    def beats_changed(self, song_id: str) -> None:
        """The song is analysed again on other beats; its pairs are not shown any more."""

        def work(cursor: Any) -> None:
            self.update_song(cursor, song_id, {"status": "analysing", "error": None})
            cursor.execute(
                "UPDATE pairs SET retired = true, beats_changed = true WHERE song_id = ?",
                [song_id],
            )

        self.database.write(work)

    def song_counts(self, song_id: str) -> Row:
        """What hangs on a song: pairs (those still shown), votes of people and of programs."""
        found = self.database.row(
            """SELECT (SELECT count(*) FROM pairs WHERE song_id = ?) AS pairs,
                (SELECT count(*) FROM pairs WHERE song_id = ? AND NOT retired) AS shown,
                count(*) FILTER (NOT v.simulated) AS votes,
                count(DISTINCT v.annotator) FILTER (NOT v.simulated) AS people,
                count(*) FILTER (v.simulated) AS simulated
            FROM current_votes AS v JOIN pairs AS p USING (pair_id) WHERE p.song_id = ?""",
            [song_id] * 3,
        )
        assert found is not None
        return found

    def song_audio(self, song_id: str) -> list[str]:
        """Stored paths of the sounds that were rendered for a song's pairs."""
        rows = self.database.rows(
            """SELECT audio_path AS path FROM edits WHERE song_id = ?
            UNION SELECT original_path FROM pairs WHERE song_id = ? ORDER BY path""",
            [song_id] * 2,
        )
        return [str(row["path"]) for row in rows]

    def remove_song(self, song_id: str) -> None:
        """Its pairs are not shown, its votes in no snapshot any more; the rows stay as a record."""

        def work(cursor: Any) -> None:
            self.update_song(cursor, song_id, {"status": "removed", "error": None})
            cursor.execute(
                "UPDATE pairs SET retired = true, beats_changed = true WHERE song_id = ?",
                [song_id],
            )

        self.database.write(work)

    def add_song(self, song: Row) -> bool:
        """Insert a song that is being analysed; False where it is there already."""
        return self.database.write(lambda cursor: insert(cursor, "songs", song, ignore=True))

    def update_song(self, cursor: Any, song_id: str, values: Row) -> None:
        row = {n: dumps(v) if n in SONG_JSON else v for n, v in values.items()}
        assignments = ", ".join(f"{name} = ?" for name in row)
        cursor.execute(
            f"UPDATE songs SET {assignments} WHERE song_id = ?", [*row.values(), song_id]
        )

    def set_split(self, song_id: str, split: str) -> None:
        self.song(song_id)
        self.database.write(lambda cursor: self.update_song(cursor, song_id, {"split": split}))

    def edit(self, edit_id: str) -> Row:
        row = self.database.row("SELECT * FROM edits WHERE edit_id = ?", [edit_id])
        if row is None:
            raise NotFoundError(f"there is no edit {edit_id!r}")
        return decoded(row, EDIT_JSON)

    def pair(self, pair_id: str) -> Row:
        row = self.database.row("SELECT * FROM pairs WHERE pair_id = ?", [pair_id])
        if row is None:
            raise NotFoundError(f"there is no pair {pair_id!r}")
        return decoded(row, PAIR_JSON)

    def pair_with_edits(self, cursor: Any, pair_id: str) -> tuple[Row, dict[str, Row]]:
        """A pair and its edits {"a", "b"}, read inside a write."""
        pair = decoded(
            fetch(cursor, "SELECT * FROM pairs WHERE pair_id = ?", [pair_id])[0], PAIR_JSON
        )
        rows = fetch(
            cursor,
            "SELECT * FROM edits WHERE edit_id IN (?, ?)",
            [pair["edit_a"], pair["edit_b"]],
        )
        found = {row["edit_id"]: decoded(row, EDIT_JSON) for row in rows}
        return pair, {"a": found[pair["edit_a"]], "b": found[pair["edit_b"]]}

    def pairs(self) -> list[Row]:
        rows = self.database.rows("SELECT * FROM pairs ORDER BY created_at, pair_id")
        return [decoded(row, PAIR_JSON) for row in rows]

    def add_pair(self, pair: Row, edits: list[Row], run_id: str | None = None) -> bool:
        return self.database.write(lambda cursor: insert_pair(cursor, pair, edits, run_id))

    def list_pairs(self, limit: int) -> list[Row]:
        """The newest pairs with title, versions and number of current votes."""
        return self.database.rows(
            """SELECT p.pair_id, s.title, p.pool, ea.policy AS policy_a, eb.policy AS policy_b,
                p.created_at, p.retired, p.run_id,
                (SELECT count(*) FROM current_votes AS v WHERE v.pair_id = p.pair_id) AS votes
            FROM pairs AS p JOIN songs AS s USING (song_id)
            JOIN edits AS ea ON ea.edit_id = p.edit_a JOIN edits AS eb ON eb.edit_id = p.edit_b
            WHERE coalesce(p.run_id, '') NOT IN ("""
            + DRY_RUNS
            + ") ORDER BY p.created_at DESC, p.pair_id LIMIT ?",
            [limit],
        )

    def votes_on(self, pair_id: str) -> Row:
        """votes_a, votes_b, ties of one pair, from people's current votes."""
        row = self.database.row(
            """SELECT count(*) FILTER (choice = 'a') AS votes_a,
                count(*) FILTER (choice = 'b') AS votes_b,
                count(*) FILTER (choice IN ('tie', 'both_bad')) AS ties
            FROM current_votes WHERE pair_id = ? AND NOT simulated""",
            [pair_id],
        )
        assert row is not None
        return row

    def retire_unheard_pairs(self, but_of: str) -> None:
        """Pairs of older versions that nobody has been given make room for a new version's."""
        self.database.execute(
            """UPDATE pairs SET retired = true WHERE NOT retired
            AND NOT EXISTS (SELECT 1 FROM assignments AS a WHERE a.pair_id = pairs.pair_id
                AND a.state IN ('open', 'done'))
            AND NOT EXISTS (SELECT 1 FROM edits AS e WHERE e.policy = ?
                AND e.edit_id IN (pairs.edit_a, pairs.edit_b))""",
            [but_of],
        )

    def policies(self) -> list[Row]:
        rows = self.database.rows(
            "SELECT * FROM policies WHERE status <> 'deleted' ORDER BY created_at, version"
        )
        return [decoded(row, ("metrics",)) for row in rows]

    def policy(self, version: str) -> Row:
        row = self.database.row(
            "SELECT * FROM policies WHERE version = ? AND status <> 'deleted'", [version]
        )
        if row is None:
            raise NotFoundError(f"there is no policy version {version!r}")
        return decoded(row, ("metrics",))

    def active_policy(self) -> Row | None:
        row = self.database.row("SELECT * FROM policies WHERE status = 'active'")
        return None if row is None else decoded(row, ("metrics",))

    def activate_policy(self, version: str) -> None:
        """Make one version active; the one that was is retired."""
        self.policy(version)

        def work(cursor: Any) -> None:
            cursor.execute("UPDATE policies SET status = 'retired' WHERE status = 'active'")
            cursor.execute("UPDATE policies SET status = 'active' WHERE version = ?", [version])

        self.database.write(work)

    def reject_policy(self, version: str) -> None:
        def work(cursor: Any) -> None:
            cursor.execute("SELECT status FROM policies WHERE version = ?", [version])
            found = first_row(cursor)
            if found is None:
                raise NotFoundError(f"there is no policy version {version!r}")
            if found[0] == "active":
                raise ConflictError(f"{version} is active; promote another version first")
            cursor.execute("UPDATE policies SET status = 'rejected' WHERE version = ?", [version])

        self.database.write(work)

    def reward_models(self) -> list[Row]:
        rows = self.database.rows(
            "SELECT * FROM reward_models WHERE status <> 'deleted' ORDER BY created_at, version"
        )
        return [decoded(row, ("metrics",)) for row in rows]

    def reward_model(self, version: str) -> Row:
        row = self.database.row(
            "SELECT * FROM reward_models WHERE version = ? AND status <> 'deleted'", [version]
        )
        if row is None:
            raise NotFoundError(f"there is no reward model version {version!r}")
        return decoded(row, ("metrics",))

    def add_shipped_reward_model(self, path: str) -> None:
        """Register the bootstrap model that comes with the package as reward_v0."""

        def work(cursor: Any) -> None:
            row = {
                "version": next_version(cursor, "reward_models", "reward_v", 0),
                "path": path,
                "status": "active",
                "synthetic": True,
                "metrics": "{}",
                "n_votes": 0,
                "created_at": utc_now(),
            }
            insert(cursor, "reward_models", row)

        self.database.write(work)

    def active_reward_model(self) -> Row | None:
        row = self.database.row("SELECT * FROM reward_models WHERE status = 'active'")
        return None if row is None else decoded(row, ("metrics",))

    def bootstrap_reward_model(self) -> Row | None:
        """The model that every training starts from: the newest made from synthetic edits, without
        votes, that was neither rejected nor deleted.
        """
        return self.database.row(
            "SELECT * FROM reward_models WHERE synthetic AND snapshot IS NULL"
            " AND status NOT IN ('deleted', 'rejected')"
            " ORDER BY created_at DESC LIMIT 1"
        )
