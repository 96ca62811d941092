"""The HTTP routes that are ours: votes, media, downloads, control by commands.

Signing in is in `signing_in`, uploads are in `receiving`. Every route names who may use it in its
first line (`who(...)`); the Gradio pages are behind `middleware.Gate`. Bodies and answers are JSON;
an error is `{"error": "words for people"}`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from feedback_app import receiving, signing_in
from feedback_app.auth import Account
from feedback_app.database import utc_now
from feedback_app.errors import (
    AppError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    SignInError,
    StorageError,
)
from feedback_app.operations import CONTROLS, Operations
from feedback_app.receiving import Receiving
from feedback_app.scheduling import SITTING_PAUSE
from feedback_app.services import Services
from feedback_app.settings import Settings
from feedback_app.showing import Showing
from feedback_app.votes import Annotation, VoteForm, check_uuid
from rlhf_core.errors import CoreError

HEADPHONE_ROUNDS, HEADPHONE_NEEDED = 6, 5  # by guessing one of three: 1.8 %
SAID_OF_NO_SOUND = "this file is not there any more"
ANYBODY = ("annotator", "researcher")
MEDIA_TYPES = {
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
}


logger = logging.getLogger(__name__)


def who(request: Request, *roles: str) -> Account:
    """The signed-in account, or an error: 401 for nobody, 403 for another role."""
    account: Account | None = request.scope.get("account")
    if account is None:
        raise SignInError("please sign in again")
    if account.role not in roles:
        raise ForbiddenError("your account may not do this")
    return account


def add_routes(app: FastAPI, services: Services) -> None:
    """Put all routes on the parent application."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(CoreError, _app_error)
    signing_in.add_routes(app, services, who)
    _annotation_routes(app, services)
    _media_routes(app, services)
    receiving.add_routes(app, Receiving(services.workspace.root, services.settings), who)
    _control_routes(app, services.operations, services.holder.token)


async def _app_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, AppError) else 422
    return JSONResponse({"error": str(error)}, status_code=status)


async def _object(request: Request) -> dict[str, Any]:
    try:
        data = json.loads(await request.body())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError("the request is not JSON") from error
    if not isinstance(data, dict):
        raise InvalidError("the request must be a JSON object")
    return data


def _field(data: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = data.get(name, default)
    if value is None:
        value = default
    wrong = isinstance(value, bool) and kind is int
    if value is not None and (wrong or not isinstance(value, kind)):
        raise InvalidError(f"{name} must be a {kind.__name__}")
    return value


def _strings(data: dict[str, Any], name: str) -> tuple[str, ...]:
    values = _field(data, name, list, [])
    if not all(isinstance(value, str) for value in values):
        raise InvalidError(f"{name} must be a list of strings")
    return tuple(values)


def _vote_form(data: dict[str, Any]) -> VoteForm:
    response_ms = data.get("response_ms")
    if isinstance(response_ms, float) and abs(response_ms) < 1e12:
        data = data | {"response_ms": round(response_ms)}
    form = VoteForm(
        vote_id=_field(data, "vote_id", str, ""),
        assignment_id=_field(data, "assignment_id", str, ""),
        choice=_field(data, "choice", str, ""),
        strength=_field(data, "strength", int),
        tags=_strings(data, "tags"),
        comment=_field(data, "comment", str, ""),
        listened=_field(data, "listened", dict, {}),
        response_ms=_field(data, "response_ms", int),
        client_version=_field(data, "client_version", str, ""),
    )
    if form.response_ms is not None and not 0 <= form.response_ms < 2**53:
        raise InvalidError("response_ms must be 0 or more")
    return form


def _json(value: Any) -> Response:
    """An answer that may hold ready JSON text (`showing`)."""
    return Response(orjson.dumps(value), media_type="application/json")


async def _payload(annotation: Annotation, row: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the browser is sent of a leased assignment."""
    if row is None:
        return None
    return await _with_pair(annotation.showing, annotation.showing.payload, row)


async def _with_pair(
    showing: Showing, make: Callable[[dict[str, Any]], dict[str, Any]], row: dict[str, Any]
) -> dict[str, Any]:
    """make(row), on another thread where the pair must be read from the database first."""
    if showing.knows(row["pair_id"]):
        return make(row)
    return await asyncio.to_thread(make, row)


def _annotation_routes(app: FastAPI, services: Services) -> None:
    annotation, operations = services.annotation, services.operations
    showing = annotation.showing

    @app.get("/api/next")
    async def next_pair(request: Request, exclude: str = "") -> Response:
        account = who(request, *ANYBODY)
        if not services.settings.headphone_skip:
            await asyncio.to_thread(_check_headphones, services, account)
        excluded = tuple(exclude.split(",")) if exclude else ()
        found = await asyncio.wrap_future(annotation.next(account.name, excluded))
        if found is None:
            if annotation.is_dry(account.name):
                operations.ask_for_pairs()
            message = await asyncio.to_thread(operations.empty_message)
            return _json({"empty": True, "message": message})
        return _json(await _payload(annotation, found))

    @app.post("/api/vote")
    async def vote(request: Request) -> Response:
        account = who(request, *ANYBODY)
        data = await _object(request)
        future = annotation.vote(account.name, _vote_form(data), _strings(data, "exclude"))
        done = await asyncio.wrap_future(future)
        following = await _payload(annotation, done["next"])
        reveal = await _with_pair(showing, showing.reveal, done["assignment"])
        told = {"progress": done["progress"], "hint": done["hint"]}
        return _json({"ok": True, "reveal": reveal, "next": following, **told})

    @app.post("/api/undo")
    async def undo(request: Request) -> Response:
        account = who(request, *ANYBODY)
        data = await _object(request)
        vote_id, undoes = _field(data, "vote_id", str, ""), _field(data, "undoes", str, "")
        done = await asyncio.wrap_future(annotation.undo(account.name, vote_id, undoes))
        reopened = await _payload(annotation, done["assignment"])
        return _json({"ok": True, "assignment": reopened, "progress": done["progress"]})

    @app.get("/api/my-votes")
    def my_votes(request: Request) -> list[dict[str, Any]]:
        return annotation.my_votes(who(request, *ANYBODY).name)

    @app.get("/api/headphones")
    def headphones_wanted(request: Request) -> dict[str, Any]:
        return _headphones(services, who(request, *ANYBODY))

    @app.post("/api/headphones")
    async def headphones(request: Request) -> dict[str, Any]:
        account = who(request, *ANYBODY)
        check = _headphone_check(await _object(request), services.settings)
        row = {"annotator": account.name, "created_at": utc_now(), **check}
        await asyncio.to_thread(services.store.add_headphone_check, row)
        return await asyncio.to_thread(_headphones, services, account)


def _headphones(services: Services, account: Account) -> dict[str, Any]:
    """How this account stands with the headphone check: {wanted, may_skip, outcome}.

    Who did not pass may go on where skipping is allowed, until the sitting ends.
    """
    settings = services.settings
    latest = services.store.headphone_outcome(account.name)
    outcome = None if latest is None else latest["outcome"]
    done = outcome == "passed"
    if latest is not None and not done and settings.headphone_skip:
        last = max(latest["created_at"], services.store.last_voted(account.name) or datetime.min)
        done = not settings.headphone_again or utc_now() - last < SITTING_PAUSE
    wanted = settings.headphone_check and not done
    return {"wanted": wanted, "may_skip": settings.headphone_skip, "outcome": outcome}


def _check_headphones(services: Services, account: Account) -> None:
    """Where the check may not be skipped, no pair is given before it is passed."""
    if _headphones(services, account)["wanted"]:
        raise ForbiddenError("please pass the headphone check first")


def _headphone_check(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A reported check as a row. Whether it was passed is decided here, not in the browser."""
    check_id = check_uuid(_field(data, "check_id", str, ""), "check_id")
    rounds = _field(data, "rounds", list, [])
    if not rounds:
        if not settings.headphone_skip:
            raise ForbiddenError("the headphone check may not be skipped here")
        return {"check_id": check_id, "outcome": "skipped"}
    right = [isinstance(one, dict) and one.get("answer") == one.get("truth") for one in rounds]
    if len(rounds) != HEADPHONE_ROUNDS:
        raise InvalidError(f"a headphone check has {HEADPHONE_ROUNDS} rounds")
    outcome = "passed" if sum(right) >= HEADPHONE_NEEDED else "failed"
    found = {"correct": sum(right), "trials": len(rounds), "details": {"rounds": rounds}}
    return {"check_id": check_id, "outcome": outcome, **found}


def _file(path: Path, *, download: str | None = None) -> FileResponse:
    if not path.is_file():
        raise NotFoundError(SAID_OF_NO_SOUND)
    headers = {"cache-control": "private, max-age=86400" if download is None else "no-store"}
    kind = MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    return FileResponse(path, media_type=kind, headers=headers, filename=download)


def _blind(path: Path, media: str) -> FileResponse:
    """A sound whose headers tell nothing but its length: not when it was made, nor its name.

    The two sides of a pair are written one after the other, gold's broken one always last.
    """
    real = path.stat()
    undated = os.stat_result((real.st_mode, 0, 0, 1, 0, 0, real.st_size, 0, 0, 0))
    kind = MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    headers = {"cache-control": "private, max-age=86400", "etag": f'"{media}"'}
    return FileResponse(path, media_type=kind, headers=headers, stat_result=undated)


def _media_routes(app: FastAPI, services: Services) -> None:
    operations, showing = services.operations, services.annotation.showing

    @app.get("/media/{media}")
    def media(request: Request, media: str) -> FileResponse:
        account = who(request, *ANYBODY)
        stored = showing.path(media, account.name)
        if stored is not None:
            path = services.workspace.resolve(stored)
        else:
            path = operations.media_path(media, account.name, account.role == "researcher")
        if not path.is_file():
            logger.warning("%s is gone: its pair is given to nobody any more", path)
            services.annotation.withdraw(operations.assignment_of(media)).result()
            raise NotFoundError(SAID_OF_NO_SOUND)
        return _blind(path, media)

    @app.get("/research/media/{edit_id}")
    def edit_media(request: Request, edit_id: str) -> FileResponse:
        who(request, "researcher")
        return _file(operations.edit_audio(edit_id))

    @app.get("/research/original/{pair_id}")
    def original(request: Request, pair_id: str) -> FileResponse:
        who(request, "researcher")
        return _file(operations.original_audio(pair_id))

    @app.get("/research/song/{song_id}")
    def song(request: Request, song_id: str) -> FileResponse:
        who(request, "researcher")
        return _file(operations.song_audio(song_id))

    @app.get("/research/example/{run_id}/{number}/{side}")
    def example(request: Request, run_id: str, number: int, side: str) -> FileResponse:
        who(request, "researcher")
        return _file(operations.example_audio(run_id, number, side))

    @app.get("/research/download/{name}")
    def download(request: Request, name: str) -> FileResponse:
        who(request, "researcher")
        return _file(operations.export_file(name), download=name)


def _control_routes(app: FastAPI, operations: Operations, token: str) -> None:
    @app.post("/control/{operation}")
    async def control(request: Request, operation: str) -> JSONResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        local = request.client is not None and request.client.host in ("127.0.0.1", "::1")
        if not local or not hmac.compare_digest(given.encode(), token.encode()):
            raise ForbiddenError("only commands on this machine with the workspace's token")
        if operation not in CONTROLS:
            raise NotFoundError(f"there is no operation {operation!r}")
        arguments = await _object(request)
        try:
            result = await asyncio.to_thread(getattr(operations, operation), **arguments)
        except TypeError as error:
            raise InvalidError(f"{operation}: wrong arguments ({error})") from error
        except OSError as error:  # a full disk, a folder that may not be written
            raise StorageError(f"{operation}: {error}") from error
        return JSONResponse({"result": result})
