"""The dataset out and in, in the forms that other tools read.

`query` says what is wanted, `record` what the full record is, `forms` and `imitation` what it
becomes, `dataset` writes it as a folder with its `card`, `reading` takes the same forms in again.
`python -m feedback_app.exchange` is the run behind a large export.
"""

from feedback_app.exchange.query import POOLS, SUFFIXES, VOTERS, Query, query_from

__all__ = ["POOLS", "SUFFIXES", "VOTERS", "Query", "query_from"]
