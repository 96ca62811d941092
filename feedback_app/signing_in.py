"""Routes of signing in and out, and the page for it.

Who signs in with a one-time password is asked on the same page for one of their own; the account
opens only with both. What is typed as a password is never sent back.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from feedback_app.auth import MAX_PASSWORD, MIN_PASSWORD, Account
from feedback_app.errors import AppError, ChoosePasswordError, SignInError, TooManyError
from feedback_app.middleware import COOKIE
from feedback_app.services import Services
from feedback_app.settings import Settings

PAGES: Final = Path(__file__).parent / "pages"
USUAL: Final = {
    "title": "Sign in",
    "heading": "Which edit is better?",
    "lead": "Sign in to listen and decide.",
    "password_label": "Password",
    "button": "Sign in",
    "focus_name": "autofocus",
    "focus_password": "",
    "new_password": "",
}
CHOOSING: Final = {
    "title": "Choose your password",
    "heading": "Choose your password",
    "lead": "The password that the server printed is used up by this first sign-in. "
    "Choose the one that you will sign in with from now on.",
    "password_label": "Printed password, once more",
    "button": "Set it and sign in",
    "focus_name": "",
    "focus_password": "autofocus",
}


def add_routes(app: FastAPI, services: Services, who: Callable[..., Account]) -> None:
    """`who` says whose a request is, or raises."""
    sessions = services.sessions

    @app.get("/")
    def root(request: Request) -> RedirectResponse:
        account: Account | None = request.scope.get("account")
        return RedirectResponse("/login" if account is None else _home_of(account), 303)

    @app.get("/login")
    def login_page(request: Request, next: str = "") -> Response:
        if request.scope.get("account") is not None:
            return RedirectResponse("/", 303)
        return _page(USUAL, "", next, 200)

    @app.post("/login")
    def login(
        request: Request,
        name: Annotated[str, Form()] = "",
        password: Annotated[str, Form()] = "",
        new_password: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "",
    ) -> Response:
        address = request.client.host if request.client else "unknown"
        try:
            token = sessions.sign_in(name.strip(), password, address, new_password)
        except ChoosePasswordError as error:
            asked = _asking(_sentence(error) if new_password else "")
            return _page(asked, name, next, error.status)
        except (SignInError, TooManyError) as error:
            return _page(USUAL, name, next, error.status, message=_sentence(error))
        return _signed_in(request, services.settings, token, next)

    @app.post("/logout")
    def logout(request: Request) -> RedirectResponse:
        sessions.sign_out(request.cookies.get(COOKIE))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    @app.get("/api/me")
    def me(request: Request) -> dict[str, Any]:
        account = who(request, "annotator", "researcher")
        return {"name": account.name, "role": account.role}


def _home_of(account: Account) -> str:
    return "/research" if account.role == "researcher" else "/annotate"


def _signed_in(request: Request, settings: Settings, token: str, next_path: str) -> Response:
    response = RedirectResponse(_own_path(next_path) or "/", 303)
    response.set_cookie(
        COOKIE, token, max_age=settings.session_days * 86400, httponly=True,
        samesite="lax", secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


def _sentence(error: AppError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _own_path(path: str) -> str:
    """A path of this site that a sign-in may lead to; anything else is dropped."""
    plain = path.startswith(("/annotate", "/research")) and "\\" not in path and "//" not in path
    return path if plain and path.isprintable() else ""


def _asking(problem: str) -> dict[str, str]:
    """The page's parts where a new password is asked for; a problem is told below its field."""
    fields = Template((PAGES / "new_password.html").read_text(encoding="utf-8")).substitute(
        shortest=MIN_PASSWORD,
        longest=MAX_PASSWORD,
        problem=escape(problem),
        hidden="" if problem else "hidden",
        invalid="true" if problem else "false",
    )
    return CHOOSING | {"new_password": fields}


def _page(
    parts: dict[str, str], name: str, next_path: str, status: int, *, message: str = ""
) -> HTMLResponse:
    page = Template((PAGES / "login.html").read_text(encoding="utf-8")).substitute(
        parts,
        message=escape(message),
        hidden="" if message else "hidden",
        name=escape(name),
        next=escape(_own_path(next_path)),
    )
    return HTMLResponse(page, status_code=status, headers={"cache-control": "no-store"})
