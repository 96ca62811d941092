"""ASGI middlewares: who is asking, may they, and the headers that every answer carries.

Plain ASGI classes (FastAPI's `@app.middleware` halves throughput). `Gate` guards whole path
prefixes, so that every route of a mounted Gradio app, known or not, is behind its role; and of
Gradio's routes only those that the page uses are let through, so that a route which a new version
of Gradio brings is shut until somebody opens it here.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.answers import answer
from feedback_app.auth import Account, Sessions

COOKIE = "session"
SAFE = ("GET", "HEAD", "OPTIONS")
GATES = {"/annotate": ("annotator", "researcher"), "/research": ("researcher",)}
_PAGE = (
    r"/?|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+"
    r"|/gradio_api/(startup-events|info/?|theme\.css|app_id/?|heartbeat/\w+)"
)
# What the pages ask of Gradio, and our own routes below /research. `file=` is of uploads, never an
# address; the annotator's page calls nothing.
OPEN_PATHS = {
    ("/annotate", "GET"): re.compile(_PAGE),
    ("/research", "GET"): re.compile(
        rf"{_PAGE}|/(media|original|example|download|song)/.+"
        r"|/gradio_api/(queue/data|upload_progress|file=/.+)"
    ),
    ("/research", "POST"): re.compile(
        r"/uploads|/gradio_api/(queue/join|run/\w+|upload|cancel|reset)/?"
    ),
}
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    # Gradio's page needs inline scripts and eval; everything still comes from this server.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
    ),
}
MEGABYTE = 1024 * 1024
BODY_LIMIT = 128 * 1024
PAGE_BODY_LIMIT = 8 * MEGABYTE


class SecurityHeaders:
    """Adds the fixed headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        await self.app(scope, receive, with_headers)


class SameOrigin:
    """Refuses unsafe requests that another site's page has made."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        checked = scope["type"] == "http" and scope["method"] not in SAFE
        if checked and not _same_origin(Headers(scope=scope)):
            await answer(send, 403, {"error": "this request came from another site"})
            return
        await self.app(scope, receive, send)


class BodyLimits:
    """Bounds the size of request bodies, whether their length is told beforehand or not."""

    def __init__(self, app: ASGIApp, max_upload_total_mb: int) -> None:
        self.app = app
        self.upload = max_upload_total_mb * MEGABYTE

    def _limit(self, path: str) -> int:
        if path.startswith("/research/gradio_api/upload"):
            return self.upload
        # a command may name thousands of files; who has no token is refused before it is read
        pages = (*GATES, "/control")
        return PAGE_BODY_LIMIT if any(_under(path, prefix) for prefix in pages) else BODY_LIMIT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE:
            await self.app(scope, receive, send)
            return
        limit, taken = self._limit(scope["path"]), 0
        words = f"a request to this address is at most {limit} bytes"
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            await answer(send, 413, {"error": words})
            return

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:  # it came in pieces, without a length
                raise HTTPException(413, words)
            return message

        await self.app(scope, counted, send)


class Gate:
    """Puts the account into the scope, and guards the prefixes of `GATES` by role."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self.app = app
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        account = self.sessions.account(token)
        scope["account"] = account
        prefix = next((prefix for prefix in GATES if _under(scope["path"], prefix)), None)
        if prefix is None:
            await self.app(scope, receive, send)
        elif account is not None and account.role in GATES[prefix]:
            await self._inside(prefix, scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(scope, headers, account, send)

    async def _inside(self, prefix: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through what the page uses, and nothing else of what Gradio answers."""
        method: str = scope.get("method", "")  # a websocket has none
        known = OPEN_PATHS.get((prefix, "GET" if method == "HEAD" else method))
        if known is not None and known.fullmatch(scope["path"].removeprefix(prefix)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(send, 403, {"error": "this address is not part of the page"})


async def _refuse(scope: Scope, headers: Headers, account: Account | None, send: Send) -> None:
    page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    if account is not None:
        await answer(send, 403, {"error": "your account may not open this"})
    elif page:
        where = f"/login?next={quote(scope['path'])}"
        await answer(send, 303, {"error": "please sign in"}, location=where)
    else:
        await answer(send, 401, {"error": "please sign in again"})


def _same_origin(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
