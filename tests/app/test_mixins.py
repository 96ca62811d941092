"""Operations and the store are put together from parts: no part may hide another's method."""

from __future__ import annotations

from collections import Counter

import pytest

from feedback_app.operations import Operations
from feedback_app.store import Store


@pytest.mark.parametrize("whole", [Operations, Store])
def test_no_part_hides_another_s_method(whole: type) -> None:
    parts = [part for part in whole.__mro__ if part not in (whole, object)]
    names = Counter(name for part in parts for name in vars(part) if not name.startswith("__"))
    assert len(parts) > 3
    assert [name for name, count in names.items() if count > 1] == []
