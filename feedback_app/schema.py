"""The database's schema: migrations in order, each recorded in the transaction that makes it.

Conventions: times are UTC without a zone; JSON columns hold what `json.dumps` wrote; paths inside
the workspace are stored relative to it. `votes` is append-only: undo is a row of its own that
names the vote's UUID and may arrive before it, so "the current votes" is a view.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import duckdb

from feedback_app.cursors import first_row
from feedback_app.errors import WorkspaceError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE songs (
            song_id VARCHAR PRIMARY KEY, path VARCHAR NOT NULL, title VARCHAR NOT NULL,
            duration_s DOUBLE, sample_rate INTEGER, channels INTEGER, n_beats INTEGER,
            tempo_bpm DOUBLE, beat_source VARCHAR, beat_confidence DOUBLE, stem_source VARCHAR,
            split VARCHAR NOT NULL DEFAULT 'train', status VARCHAR NOT NULL, error VARCHAR,
            waveform JSON, beat_times JSON, bar_phase JSON, synthetic BOOLEAN NOT NULL,
            added_at TIMESTAMP NOT NULL)""",
        """CREATE TABLE policies (
            version VARCHAR PRIMARY KEY, path VARCHAR NOT NULL, parent VARCHAR, run_id VARCHAR,
            reward_model VARCHAR, snapshot VARCHAR, status VARCHAR NOT NULL, algorithm VARCHAR,
            metrics JSON, created_at TIMESTAMP NOT NULL)""",
        """CREATE TABLE reward_models (
            version VARCHAR PRIMARY KEY, path VARCHAR NOT NULL, run_id VARCHAR, snapshot VARCHAR,
            status VARCHAR NOT NULL, synthetic BOOLEAN NOT NULL, metrics JSON, n_votes INTEGER,
            created_at TIMESTAMP NOT NULL)""",
        """CREATE TABLE edits (
            edit_id VARCHAR PRIMARY KEY, song_id VARCHAR NOT NULL, start_beat INTEGER NOT NULL,
            end_beat INTEGER NOT NULL, policy VARCHAR NOT NULL, preset VARCHAR,
            temperature DOUBLE, seed BIGINT, actions JSON NOT NULL, edl JSON NOT NULL,
            audio_path VARCHAR NOT NULL, duration_s DOUBLE NOT NULL, peaks JSON)""",
        """CREATE TABLE pairs (
            pair_id VARCHAR PRIMARY KEY, song_id VARCHAR NOT NULL, edit_a VARCHAR NOT NULL,
            edit_b VARCHAR NOT NULL, original_path VARCHAR NOT NULL, original_duration_s DOUBLE,
            original_edl JSON NOT NULL, original_peaks JSON, pool VARCHAR NOT NULL,
            regions_a JSON NOT NULL, regions_b JSON NOT NULL, gains_db JSON, loudness_lufs DOUBLE,
            run_id VARCHAR, created_at TIMESTAMP NOT NULL, retired BOOLEAN NOT NULL,
            beats_changed BOOLEAN NOT NULL DEFAULT false)""",
        """CREATE TABLE assignments (
            assignment_id VARCHAR PRIMARY KEY, pair_id VARCHAR NOT NULL,
            annotator VARCHAR NOT NULL, b_first BOOLEAN NOT NULL, first_side VARCHAR NOT NULL,
            media_left VARCHAR NOT NULL, media_right VARCHAR NOT NULL,
            media_original VARCHAR NOT NULL, state VARCHAR NOT NULL,
            leased_until TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL)""",
        "CREATE SEQUENCE vote_order",
        """CREATE TABLE votes (
            vote_id UUID PRIMARY KEY, seq BIGINT NOT NULL DEFAULT nextval('vote_order'),
            assignment_id VARCHAR, pair_id VARCHAR, annotator VARCHAR NOT NULL,
            kind VARCHAR NOT NULL CHECK (kind IN ('vote', 'undo')), undoes UUID,
            choice VARCHAR CHECK (choice IN ('a', 'b', 'tie', 'both_bad', 'skip')),
            strength TINYINT CHECK (strength BETWEEN 1 AND 3), tags JSON, comment VARCHAR,
            listened JSON, response_ms BIGINT, client JSON, simulated BOOLEAN NOT NULL,
            source VARCHAR NOT NULL CHECK (source IN ('app', 'import', 'simulate')),
            created_at TIMESTAMP NOT NULL,
            CHECK ((kind = 'undo') = (undoes IS NOT NULL)),
            CHECK ((kind = 'vote') = (choice IS NOT NULL)))""",
        """CREATE VIEW current_votes AS
            SELECT * FROM votes AS v
            WHERE kind = 'vote' AND NOT EXISTS (
                SELECT 1 FROM votes AS u WHERE u.kind = 'undo' AND u.undoes = v.vote_id
                AND u.annotator = v.annotator)
            QUALIFY row_number() OVER (
                PARTITION BY pair_id, annotator, simulated ORDER BY seq DESC) = 1""",
        """CREATE TABLE annotators (
            name VARCHAR PRIMARY KEY, role VARCHAR NOT NULL, password VARCHAR,
            created_at TIMESTAMP NOT NULL, disabled BOOLEAN NOT NULL, weight DOUBLE NOT NULL)""",
        """CREATE TABLE sessions (
            token_hash VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
            expires_at TIMESTAMP NOT NULL)""",
        """CREATE TABLE runs (
            run_id VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, argv JSON, folder VARCHAR NOT NULL,
            pid INTEGER, pid_started VARCHAR, state VARCHAR NOT NULL, ingested BOOLEAN NOT NULL,
            created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP, settings JSON NOT NULL,
            error VARCHAR)""",
    ),
    (
        # Hidden repeats, what had to be heard as it was told to the page, notes on single votes,
        # and headphone checks. A repeat's vote stands beside the first one, not in its place.
        "DROP VIEW current_votes",
        "ALTER TABLE assignments ADD COLUMN repeat_of VARCHAR",
        "ALTER TABLE assignments ADD COLUMN required_left_s DOUBLE",
        "ALTER TABLE assignments ADD COLUMN required_right_s DOUBLE",
        "ALTER TABLE votes ADD COLUMN flags JSON",
        # DuckDB lets no other change of a filled table follow a column with a default
        "ALTER TABLE votes ADD COLUMN repeat BOOLEAN DEFAULT false",
        """CREATE VIEW current_votes AS
            SELECT * FROM votes AS v
            WHERE kind = 'vote' AND NOT EXISTS (
                SELECT 1 FROM votes AS u WHERE u.kind = 'undo' AND u.undoes = v.vote_id
                AND u.annotator = v.annotator)
            QUALIFY row_number() OVER (
                PARTITION BY pair_id, annotator, simulated, coalesce(repeat, false)
                ORDER BY seq DESC) = 1""",
        """CREATE TABLE headphone_checks (
            check_id VARCHAR PRIMARY KEY, annotator VARCHAR NOT NULL,
            outcome VARCHAR NOT NULL CHECK (outcome IN ('passed', 'failed', 'skipped')),
            correct INTEGER, trials INTEGER, details JSON, created_at TIMESTAMP NOT NULL)""",
    ),
    (
        # What a vote on a waiting pair is expected to tell the newest reward model, and why each
        # assignment was given: score, random, cross, gold or repeat.
        """CREATE TABLE pair_scores (
            pair_id VARCHAR PRIMARY KEY, reward_model VARCHAR NOT NULL,
            information DOUBLE NOT NULL, place INTEGER NOT NULL, run_id VARCHAR,
            created_at TIMESTAMP NOT NULL)""",
        "ALTER TABLE assignments ADD COLUMN reason VARCHAR",
        "ALTER TABLE assignments ADD COLUMN information DOUBLE",
    ),
    (
        # Who was excluded or weighted and why, so that it can be taken back.
        """CREATE TABLE weight_changes (
            change_id VARCHAR PRIMARY KEY, annotator VARCHAR NOT NULL, before DOUBLE NOT NULL,
            after DOUBLE NOT NULL, reason VARCHAR, created_at TIMESTAMP NOT NULL,
            undone_at TIMESTAMP)""",
    ),
    (
        # Who changed a weight and who took that back; and what pseudonyms in exports are made
        # with, so that a person has the same one in all of them. Without defaults: DuckDB cannot
        # replay its log of a column added with one.
        "ALTER TABLE weight_changes ADD COLUMN changed_by VARCHAR",
        "ALTER TABLE weight_changes ADD COLUMN undone_by VARCHAR",
        "CREATE TABLE secrets (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
    ),
)


def schema_version(connection: Any) -> int:
    """The version of a database; 0 for an empty one."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY,"
        " applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp::TIMESTAMP)"
    )
    row = first_row(connection.execute("SELECT coalesce(max(version), 0) FROM schema_version"))
    return int(row[0])


def needs_migration(connection: Any) -> int | None:
    """The version of a database that `migrate` would change; None for the newest.

    Raises WorkspaceError when a newer app made it: its data must not be guessed at.
    """
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise WorkspaceError(
            f"the database has schema {version}, this app knows up to {len(MIGRATIONS)}. "
            "Start it with the newer app that made it."
        )
    return version if version < len(MIGRATIONS) else None


def migrate(connection: Any) -> int:
    """Bring a database to the newest schema; returns the version. See `needs_migration`."""
    version = needs_migration(connection)
    if version is None:
        return len(MIGRATIONS)
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version) VALUES (?)", [number])
            connection.execute("COMMIT")
        except duckdb.Error as error:
            with suppress(duckdb.TransactionException):  # a failed COMMIT has rolled back already
                connection.execute("ROLLBACK")
            raise WorkspaceError(
                f"the database could not be brought from schema {number - 1} to {number} "
                f"({error}). "
                "Nothing in it was changed."
            ) from error
    return len(MIGRATIONS)
