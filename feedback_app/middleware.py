"""ASGI middlewares: who is asking, may they, and the headers that every answer carries.

Plain ASGI classes (FastAPI's `@app.middleware` halves throughput). `Gate` guards whole path
prefixes, so that every route of a mounted Gradio app, known or not, is behind its role.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.auth import Account, Sessions

COOKIE = "session"
SAFE = ("GET", "HEAD", "OPTIONS")
GATES = {"/annotate": ("annotator", "researcher"), "/research": ("researcher",)}
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
BODY_LIMIT = 128 * 1024


async def answer(send: Send, status: int, body: dict[str, Any], **headers: str) -> None:
    """Send a small JSON answer."""
    data = json.dumps(body).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    head += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})


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
            await send(message)

        await self.app(scope, receive, with_headers)


class SameOrigin:
    """Refuses unsafe requests that another site's page has made, and oversized small forms."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE:
            headers = Headers(scope=scope)
            if not _same_origin(headers):
                await answer(send, 403, {"error": "this request came from another site"})
                return
            length = headers.get("content-length", "0")
            own = not any(_under(scope["path"], prefix) for prefix in GATES)
            if own and (not length.isdigit() or int(length) > BODY_LIMIT):
                await answer(send, 413, {"error": f"a request body is at most {BODY_LIMIT} bytes"})
                return
        await self.app(scope, receive, send)


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
        roles = next((r for prefix, r in GATES.items() if _under(scope["path"], prefix)), None)
        if roles is None or (account is not None and account.role in roles):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(scope, headers, account, send)


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
