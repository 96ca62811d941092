"""Running the web server: take the workspace, say where it is and who may sign in, serve, stop.

SIGTERM and Ctrl-C end it gracefully: requests and commits finish, runs go on by themselves.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import uvicorn

from feedback_app.demo import make_ready
from feedback_app.errors import WorkspaceError
from feedback_app.logs import set_up
from feedback_app.services import Services, open_services
from feedback_app.settings import load_settings
from feedback_app.uploads import Uploads
from feedback_app.workspace import Workspace

logger = logging.getLogger(__name__)


def serve(
    root: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    demo: bool = False,
    database: str | None = None,
) -> int:
    """Serve a workspace until told to stop; returns the exit status."""
    settings = load_settings(Workspace(root).root, host=host, port=port)
    set_up(settings.log_format, settings.log_level)
    listening = _listen(settings.host, settings.port)
    address = listening.getsockname()
    shown = "127.0.0.1" if address[0] in ("0.0.0.0", "::") else address[0]
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{address[1]}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    services = open_services(root, url, host=host, port=port, database=database)
    warming = threading.Thread(target=services.warm, name="warm", daemon=True)
    try:
        if demo:
            make_ready(services)
        warming.start()
        from feedback_app.app import build_app  # gradio: seconds, and no command needs it

        app = build_app(services)
        for line in first_accounts(services, annotator=demo):
            print(line)
        uploads = Uploads(services.workspace.root)

        def tick() -> None:
            services.operations.tick()
            uploads.tidy()

        services.jobs.watch(tick)
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False,
            timeout_graceful_shutdown=5, server_header=False,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # uvicorn hands on the signal that ended it
            _Server(config, url).run(sockets=[listening])
    finally:
        logger.info("stopping: what waits is committed, runs go on by themselves")
        if warming.is_alive():
            warming.join()
        services.close()
        listening.close()
        logger.info("stopped")
    return 0


class _Server(uvicorn.Server):
    """Says where it is once it really answers."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"listening on {self.url}", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, taken before anything slow: a port in use is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol asyncio knows to turn Nagle off; without, answers in two parts wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise WorkspaceError(
            f"cannot listen on {host} port {port} ({error.strerror}). "
            "Choose another --port (0 takes a free one), or stop what uses it."
        ) from error
    return listening


def first_accounts(services: Services, *, annotator: bool = False) -> list[str]:
    """Accounts of a first start, as lines to print: their passwords are told only here."""
    lines = []
    if not services.store.has_researcher():
        made = services.operations.add_user("researcher", "researcher", one_time=True)
        lines.append(made | {"note": "  (one-time: the first sign-in asks for a new one)"})
    if annotator and services.store.annotator("annotator") is None:
        lines.append(services.operations.add_user("annotator", "annotator"))
    texts = [
        f"  {row['role']:<11} name {row['name']:<11} password {row['password']}"
        f"{row.get('note', '')}"
        for row in lines
    ]
    return ["", "New accounts (these passwords are shown only now):", *texts] if texts else []
