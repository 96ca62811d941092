"""The data's part of the Operations in memory: answers have the real shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback_app.errors import InvalidError

NASTY_CELL = "<img src=x onerror=alert(3)>"


class FakeData:
    """Exports, imports, questions."""

    calls: list[tuple[str, dict[str, Any]]]
    exports: Path

    def export(self, format: str, **wanted: Any) -> dict[str, Any]:
        self.calls.append(("export", {"format": format, **wanted}))
        if wanted.get("audio"):
            return {"run_id": "e1"}
        folder = self.exports / f"preferences-{format}-0123456789ab"
        path = folder / f"preferences.{format}"
        return {"path": str(path), "folder": str(folder), "rows": 41, "sha256": "0" * 64,
                "missing_files": 0}  # fmt: skip

    def preview_export(self, format: str, **wanted: Any) -> dict[str, Any]:
        columns = [{"name": "comment", "kind": "string", "about": NASTY_CELL}]
        rows = [{"comment": NASTY_CELL}, {"comment": None}]
        return {"votes": 41, "columns": columns, "rows": rows}

    def export_choices(self) -> dict[str, Any]:
        return {"versions": ["policy_v1", NASTY_CELL], "annotators": [NASTY_CELL], "rounds": 2}

    def sql(self, query: str) -> dict[str, Any]:
        if "DROP" in query:
            raise InvalidError("DROP is not allowed here: the box only reads. Write a SELECT.")
        return {"columns": ["n", NASTY_CELL], "types": ["BIGINT", "VARCHAR"],
                "rows": [["1", NASTY_CELL]], "count": 7, "more": False, "seconds": 0.1,
                "snapshot": "a" * 64, "csv": str(self.exports / "query-1.csv")}  # fmt: skip

    def import_votes(self, path: str, versions_as: str = "") -> dict[str, Any]:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        bad = [
            {"line": i, "reason": f"choice {line!r} is not one of a, b, tie, both_bad, skip"}
            for i, line in enumerate(lines, start=1)
            if "<" in line
        ]
        return {"accepted": len(lines) - len(bad), "rejected": bad}
