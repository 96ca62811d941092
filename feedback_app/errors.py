"""One family of errors of the app. Each carries the HTTP status that a client is told.

Messages are for people: they name the thing, say why, and say what to do. Nothing secret goes in.
"""

from __future__ import annotations


class AppError(Exception):
    """Base of everything that `feedback_app` raises on purpose."""

    status = 400


class SignInError(AppError):
    """Nobody is signed in, or the session has ended."""

    status = 401


class ChoosePasswordError(SignInError):
    """The one-time password is right, but opens the account only together with a good new one."""


class ForbiddenError(AppError):
    """Signed in, but not allowed to do this."""

    status = 403


class NotFoundError(AppError):
    """The thing asked for does not exist (or is not yours to see)."""

    status = 404


class ConflictError(AppError):
    """It contradicts what is stored already."""

    status = 409


class InvalidError(AppError):
    """A value is not what it may be."""

    status = 422


class TooManyError(AppError):
    """Too many attempts; try again later."""

    status = 429


class WorkspaceError(AppError):
    """The workspace cannot be used: another process holds it, or a file in it is damaged."""

    status = 503


class StorageError(AppError):
    """The disk did not take a write. Nothing of it is stored; the same request may come again."""

    status = 503
