"""The web application: our routes, the middlewares, and the two Gradio pages mounted on them.

Gradio is imported here, once, with its look-ups of outside hosts turned off; nothing else here is
heavy: torch and librosa live in the processes that `jobs` starts.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware

from feedback_app import metrics
from feedback_app.limits import RateLimits
from feedback_app.middleware import BodyLimits, Gate, SameOrigin, SecurityHeaders
from feedback_app.server import add_routes
from feedback_app.services import Services
from feedback_app.static import UiFiles
from feedback_app.ui import annotate, research, theme
from feedback_app.uploads import Uploads
from feedback_app.watching import Watch

MEGABYTE = 1024 * 1024


def build_app(services: Services, *, pages: bool = True) -> FastAPI:
    """The parent application. `pages=False` leaves the Gradio pages out (tests of our routes)."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, services)
    requests = metrics.Requests()
    metrics.add_routes(app, services, requests)
    app.mount("/static", UiFiles())
    if pages:
        _mount_pages(app, services)
    # The last one added is the first that a request meets.
    app.add_middleware(RateLimits, settings=services.settings)
    app.add_middleware(Gate, sessions=services.sessions)
    app.add_middleware(BodyLimits, max_upload_total_mb=services.settings.max_upload_total_mb)
    app.add_middleware(SameOrigin)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(Watch, requests=requests, log_requests=services.settings.log_requests)
    return app


def _mount_pages(app: FastAPI, services: Services) -> None:
    Uploads(services.workspace.root).prepare()
    settings = services.settings
    _mount(app, services, annotate, annotate.build(settings), "/annotate")
    _mount(app, services, research, research.build(services.operations, settings), "/research")


def _mount(app: FastAPI, services: Services, module: Any, blocks: gr.Blocks, path: str) -> None:
    """Mount one page in the common look, with what its `mount_options(settings)` adds."""
    look = {"theme": theme.theme(), "css": theme.CSS, "head": theme.HEAD}
    if hasattr(module, "mount_options"):
        look |= module.mount_options(services.settings)
    gr.mount_gradio_app(
        app,
        blocks,
        path,
        auth_dependency=_user_name,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=services.settings.max_upload_mb * MEGABYTE,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        **look,
    )


def _user_name(request: Request) -> str | None:
    """Gradio's `request.username`; who may come here at all is decided by `middleware.Gate`."""
    account = request.scope.get("account")
    return None if account is None else str(account.name)
