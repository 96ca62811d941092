"""How often somebody may ask: a bucket of tokens for each account (or address) and kind of request.

A bucket holds a minute's allowance and fills evenly, so that a burst is served and a flood is not.
The answer to one too many is 429 in words, with `Retry-After` in seconds; the page's outbox keeps a
vote and sends it again. Allowances are settings; clocks are monotonic.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from feedback_app.answers import answer, answer_page
from feedback_app.settings import Settings

MAX_KEYS = 10_000
Rule = tuple[str, str, str, str]
RULES: tuple[Rule, ...] = (
    # method, path prefix, setting, what there are too many of
    ("POST", "/login", "sign_ins_per_minute", "attempts to sign in"),
    ("POST", "/api/", "votes_per_minute", "votes"),
    ("GET", "/api/", "reads_per_minute", "requests"),
    ("POST", "/research/gradio_api/upload", "uploads_per_minute", "uploads"),
    ("POST", "/research/uploads", "actions_per_minute", "pieces of uploads"),
    ("POST", "/research/gradio_api/", "actions_per_minute", "requests"),
)


class Buckets:
    """Token buckets by key.

    >>> buckets = Buckets(clock=lambda: 0.0)
    >>> [buckets.wait_s("ada", 2) for _ in range(3)]
    [0.0, 0.0, 30.0]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str, per_minute: int) -> float:
        """Take a token: 0 where there is one, else the seconds until there is."""
        with self._lock:
            now = self._clock()
            tokens, at = self._kept.pop(key, (float(per_minute), now))
            tokens = min(per_minute, tokens + (now - at) * per_minute / 60)
            wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / per_minute
            self._kept[key] = (tokens if wait else tokens - 1, now)
            if len(self._kept) > MAX_KEYS:  # who has not asked for longest has a full bucket
                self._kept.pop(next(iter(self._kept)))
            return wait


class RateLimits:
    """Refuses what comes too often, by account, or by address where nobody is signed in."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.buckets = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = _rule(scope) if scope["type"] == "http" else None
        if rule is None:
            await self.app(scope, receive, send)
            return
        setting, words = rule[2], rule[3]
        account, client = scope.get("account"), scope.get("client")
        asking = f"address:{client[0] if client else ''}"
        if account is not None and setting != "sign_ins_per_minute":
            asking = f"name:{account.name}"
        wait = self.buckets.wait_s(f"{setting} {asking}", getattr(self.settings, setting))
        if wait <= 0:
            await self.app(scope, receive, send)
            return
        seconds = math.ceil(wait)
        text = f"too many {words} in a short time; try again in {seconds} s"
        if "text/html" in Headers(scope=scope).get("accept", ""):
            await answer_page(send, 429, text, retry_after=str(seconds))
        else:
            await answer(send, 429, {"error": text}, retry_after=str(seconds))


def _rule(scope: Scope) -> Rule | None:
    method, path = scope["method"], scope["path"]
    return next((rule for rule in RULES if rule[0] == method and path.startswith(rule[1])), None)
