"""What the database may keep in memory is bounded by a setting."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from feedback_app.services import open_services

BOUND_MB = 64


def used_mb(cursor: Any) -> float:
    found = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
    return float(found[0]) / 2**20


def test_pages_leave_the_memory_and_large_queries_still_answer(tmp_path: Path) -> None:
    with closing(
        open_services(
            tmp_path, auto_prepare=False, auto_generate=False, database_memory_mb=BOUND_MB
        )
    ) as services:
        cursor = services.store.database.cursor()
        cursor.execute("CREATE TABLE filler (word VARCHAR)")  # md5 of each number, twice
        for part in range(4):
            cursor.execute(
                "INSERT INTO filler SELECT md5((i // 2)::VARCHAR) FROM range(?, ?) AS t(i)",
                [part * 1_000_000, (part + 1) * 1_000_000],
            )
            cursor.execute("CHECKPOINT").fetchall()
            assert used_mb(cursor) <= BOUND_MB
        assert (tmp_path / "preferences.duckdb").stat().st_size / 2**20 > BOUND_MB
        found = cursor.execute(
            "SELECT count(*), sum(n) FROM (SELECT count(*) AS n FROM filler GROUP BY word)"
        )
        assert found.fetchone() == (2_000_000, 4_000_000)
        assert used_mb(cursor) <= BOUND_MB
    assert not list(tmp_path.glob("*.tmp"))  # what a large query put beside the file is gone
