"""The outermost middleware: every request gets an id, is counted, and where it matters logged.

The id is on every log line of the request and in the answer's `X-Request-ID`; a proxy's own id is
taken over. Faults (5xx) and answers slower than five seconds are always logged, the others with the
setting `log_requests`. Paths are logged without their query.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.logs import about
from feedback_app.metrics import Requests

logger = logging.getLogger(__name__)
ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
SLOW_S = 5.0
GONE = 499  # who asked hung up before the answer began (nginx's number): nobody's fault
STREAMS = ("/heartbeat/", "/queue/data", "/upload_progress")


class Watch:
    """Ids, counts and log lines."""

    def __init__(self, app: ASGIApp, requests: Requests, log_requests: bool) -> None:
        self.app = app
        self.requests = requests
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else secrets.token_hex(8)
        status, started = 500, time.perf_counter()  # what a fault before the answer comes to
        begun = False

        async def or_gone() -> Message:
            nonlocal status
            message = await receive()
            if message["type"] == "http.disconnect" and not begun:
                status = GONE
            return message

        async def with_id(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with about(request_id=request_id):
            try:
                await self.app(scope, or_gone, with_id)
            finally:
                self._told(scope, status, time.perf_counter() - started)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        path, method = scope["path"], scope["method"]
        stream = any(part in path for part in STREAMS)  # open for as long as the page is
        if not stream:
            self.requests.count(route_of(scope), method, status, seconds)
        if self.log_requests or status >= 500 or (seconds > SLOW_S and not stream):
            account = scope.get("account")
            told = {"status": status, "ms": round(1000 * seconds, 1)}
            if account is not None:
                told["account"] = account.name
            level = logging.ERROR if status >= 500 else logging.INFO
            logger.log(level, "%s %s", method, path, extra=told)


def route_of(scope: Scope) -> str:
    """The route's template; one name for all below a mounted page, one for what is no route."""
    for page in ("/annotate", "/research", "/static"):
        if scope["path"].startswith(page + "/") or scope["path"] == page:
            return f"{page}/*"
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"
