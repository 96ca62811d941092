"""Passwords, sessions and lock-out.

Passwords are kept as scrypt hashes, sessions as SHA-256 of a random token that only the browser
has. A one-time password's hash is marked in its own cell, so that any new password, however it is
set, ends the mark. After repeated failures a name (and an address) must wait, twice as long each
time, until an hour has passed without one; a wrong name takes as long as a wrong password, so that
names cannot be found out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from feedback_app.database import utc_now
from feedback_app.errors import ChoosePasswordError, InvalidError, SignInError, TooManyError
from feedback_app.store import Store

ROLES = ("annotator", "researcher")
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1
FREE_FAILURES, LONGEST_WAIT_S = 5, 300.0
FORGOTTEN_S = 3600.0  # an address is a whole studio's: its slips of months are no attack
CACHE_S = 30.0
MIN_PASSWORD, MAX_PASSWORD = 8, 1000
SCHEME, ONE_TIME = "scrypt", "scrypt-once"


@dataclass(frozen=True)
class Account:
    """Who is signed in."""

    name: str
    role: str


def hash_password(password: str, *, one_time: bool = False) -> str:
    """scheme$n$r$p$salt$hash, hexadecimal; the scheme is ONE_TIME or SCHEME."""
    salt = secrets.token_bytes(16)
    cost = f"{SCRYPT_N}${SCRYPT_R}${SCRYPT_P}"
    scheme = ONE_TIME if one_time else SCHEME
    return f"{scheme}${cost}${salt.hex()}${_scrypt(password, salt).hex()}"


def check_password(password: str, stored: str) -> bool:
    scheme, n, r, p, salt, digest = stored.split("$")
    if scheme not in (SCHEME, ONE_TIME):
        raise InvalidError(f"unknown password scheme {scheme!r}")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def is_one_time(stored: str) -> bool:
    """Whether a hash is of a password that only buys another one."""
    return stored.startswith(f"{ONE_TIME}$")


def check_new_password(password: str) -> str:
    """A password that an account may have. Raises InvalidError."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


def _scrypt(
    password: str, salt: bytes, n: int = SCRYPT_N, r: int = SCRYPT_R, p: int = SCRYPT_P
) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=2**26)


def generate_password() -> str:
    """A password that is easy to type and has about 60 bits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    groups = ("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(3))
    return "-".join(groups)


def check_name(name: str) -> str:
    """A usable account name: 1-60 visible characters, no leading or trailing space."""
    if not name or len(name) > 60 or name != name.strip() or not name.isprintable():
        raise InvalidError(f"{name!r} cannot be a name: 1 to 60 visible characters are needed")
    return name


class LockOut:
    """Counts failures by key (a name, an address) and says how long to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Seconds until another attempt is allowed; 0 when it is."""
        with self._lock:
            count, last = self._recent(key)
            if count < FREE_FAILURES:
                return 0.0
            pause = min(LONGEST_WAIT_S, 2.0 ** (count - FREE_FAILURES))
            return max(0.0, last + pause - self._clock())

    def failed(self, key: str) -> None:
        with self._lock:
            count, _ = self._recent(key)
            self._failures.pop(key, None)  # behind those that failed longer ago
            self._failures[key] = (count + 1, self._clock())
            if len(self._failures) > 10_000:
                self._failures.pop(next(iter(self._failures)))

    def _recent(self, key: str) -> tuple[int, float]:
        """Failures that count, and when the last one was."""
        count, last = self._failures.get(key, (0, 0.0))
        return (0, last) if self._clock() - last > FORGOTTEN_S else (count, last)

    def succeeded(self, key: str) -> None:
        with self._lock:
            self._failures.pop(key, None)


class Sessions:
    """Signs people in and out, and tells who a token belongs to."""

    def __init__(self, store: Store, days: int) -> None:
        self.store = store
        self.days = days
        self.lock_out = LockOut()
        self._cache: dict[str, tuple[float, Account | None]] = {}
        self._nobody = hash_password(secrets.token_hex(8))

    def sign_in(self, name: str, password: str, address: str, new_password: str = "") -> str:
        """A new session's token. Raises SignInError, or TooManyError with the wait.

        A one-time password opens the account only together with new_password, which takes its
        place; ChoosePasswordError where that is missing or may not be. Else it is not looked at.
        """
        keys = (f"name:{name}", f"address:{address}")
        wait = max(self.lock_out.wait_s(key) for key in keys)
        if wait > 0:
            raise TooManyError(f"too many attempts; try again in {int(wait) + 1} s")
        row = self.store.annotator(name)
        stored = self._nobody if row is None or row["password"] is None else row["password"]
        good = check_password(password, stored)
        if not good or row is None or row["password"] is None or row["disabled"]:
            for key in keys:
                self.lock_out.failed(key)
            raise SignInError("name or password is wrong")
        chosen = _chosen(password, new_password) if is_one_time(stored) else None
        token, expires_at = secrets.token_urlsafe(32), utc_now() + timedelta(days=self.days)
        if chosen is None:
            self.store.add_session(_digest(token), name, expires_at)
        else:
            change = (stored, hash_password(chosen))
            self.store.begin_account(name, change, _digest(token), expires_at)
        self.lock_out.succeeded(keys[0])
        return token

    def account(self, token: str | None) -> Account | None:
        """Whose session it is; None where it is nobody's or has ended."""
        if not token:
            return None
        digest = _digest(token)
        known = self._cache.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        row = self.store.session(digest)
        account = None if row is None else Account(row["name"], row["role"])
        if len(self._cache) > 5000:
            self._cache.clear()
        if account is not None:
            self._cache[digest] = (time.monotonic() + CACHE_S, account)
        return account

    def sign_out(self, token: str | None) -> None:
        if self.account(token) is not None and token:  # nobody's token is no write
            self.store.end_session(_digest(token))
            self._cache.pop(_digest(token), None)

    def forget(self) -> None:
        """Look everybody up afresh: an account has changed."""
        self._cache.clear()


def _chosen(one_time: str, new_password: str) -> str:
    """The new password for a one-time one; ChoosePasswordError says why it cannot be."""
    if not new_password:
        raise ChoosePasswordError("choose a new password")
    if new_password == one_time:
        raise ChoosePasswordError("the new password must be another than the printed one")
    try:
        return check_new_password(new_password)
    except InvalidError as error:
        raise ChoosePasswordError(str(error)) from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
