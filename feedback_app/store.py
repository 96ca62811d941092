"""All SQL of the app, in classes by subject (`store_*.py`); `Store` is their sum.

Reads return plain dictionaries with JSON columns decoded; writes go through the one writer thread
of `database`. Functions whose first argument is a cursor run inside a write. Values are bound.
"""

from __future__ import annotations

from feedback_app.store_accounts import AccountRows
from feedback_app.store_exports import ExportRows
from feedback_app.store_library import LibraryRows
from feedback_app.store_lineage import LineageRows
from feedback_app.store_ranking import RankRows
from feedback_app.store_runs import RunRows
from feedback_app.store_statistics import StatisticsRows
from feedback_app.store_votes import VoteRows


class Store(
    AccountRows,
    LibraryRows,
    VoteRows,
    RankRows,
    RunRows,
    LineageRows,
    StatisticsRows,
    ExportRows,
):
    """Everything that is read from and written to the database."""

    def close(self) -> None:
        """Commit what waits and close the file."""
        self.database.close()
