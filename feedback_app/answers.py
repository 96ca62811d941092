"""Small ASGI answers that middlewares send themselves."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from starlette.types import Send


async def answer(send: Send, status: int, body: dict[str, Any], **headers: str) -> None:
    """Send JSON. Header names are given with underscores."""
    await _send(send, status, json.dumps(body).encode(), "application/json", headers)


async def answer_page(send: Send, status: int, words: str, **headers: str) -> None:
    """Send words as a page, to a browser that asked for one."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Not now</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
        'content="dark light"><body style="font-family: sans-serif; margin: 15vh auto; '
        f'max-width: 30em; padding: 0 1em"><p>{escape(words)}.</p><p><a href="/">Back</a></p>'
    )
    await _send(send, status, page.encode(), "text/html; charset=utf-8", headers)


async def _send(send: Send, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
    head = [(b"content-type", kind.encode()), (b"content-length", str(len(data)).encode())]
    for name, value in headers.items():
        head.append((name.replace("_", "-").encode(), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})
