"""The UI's own scripts, styles and pictures at /static, cached for good under a versioned URL.

`static_url("player.js")` gives `/static/player.js?v=<hash of the bytes>`; a URL with `v` may be
kept for a year, one without must be asked again. Nothing but the listed kinds is served, so the
Python sources beside them are not.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from rlhf_core.files import sha256_of

FOLDER = Path(__file__).parent / "ui"
KINDS = (".js", ".css", ".svg", ".png", ".woff2", ".webp", ".json")


def static_url(name: str) -> str:
    """The versioned URL of a file of `feedback_app/ui`."""
    return f"/static/{name}?v={sha256_of(FOLDER / name)[:12]}"


class UiFiles(StaticFiles):
    """Static files by allowed kind, with cache headers."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not path.endswith(KINDS):
            raise HTTPException(status_code=404)
        response = await super().get_response(path, scope)
        versioned = "v" in parse_qs(scope.get("query_string", b"").decode("latin-1"))
        response.headers["cache-control"] = (
            "public, max-age=31536000, immutable" if versioned else "no-cache"
        )
        return response
