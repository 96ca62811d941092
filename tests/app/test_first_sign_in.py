"""The printed password of the first start opens the account once, together with a new one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from conftest import PLAIN, client_of

from feedback_app import auth
from feedback_app.auth import MIN_PASSWORD
from feedback_app.database import utc_now
from feedback_app.errors import ChoosePasswordError, InvalidError, SignInError
from feedback_app.serve import first_accounts
from feedback_app.services import Services, open_services

CHOSEN = "my own words <b>&"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[Services, str]]:
    """A first start, and the password that it printed."""
    services = open_services(tmp_path / "workspace", **PLAIN)
    (line,) = [line for line in first_accounts(services) if "name researcher" in line]
    printed = re.search(r"password (\S{14})  \(one-time", line)
    assert printed is not None, line
    yield services, printed[1]
    services.close()


def post(client: TestClient, password: str, new: str = "", **fields: str) -> tuple[int, str]:
    """(status, page) of a sign-in as researcher."""
    form = {"name": "researcher", "password": password, "new_password": new} | fields
    answer = client.post("/login", data=form, follow_redirects=False)
    assert ("session" in answer.cookies) == (answer.status_code == 303)
    return answer.status_code, answer.text


def test_alone_it_opens_nothing_and_a_new_one_is_asked_for(started: tuple[Services, str]) -> None:
    services, printed = started
    client = client_of(services)
    status, page = post(client, printed, next="/research")
    assert status == 401 and client.get("/api/me").status_code == 401
    assert 'autocomplete="new-password"' in page and printed not in page
    assert 'name="next" value="/research"' in page and 'value="researcher"' in page
    assert f"{MIN_PASSWORD} to 1000 characters" in page
    assert not services.store.database.rows("SELECT 1 FROM sessions")
    assert 'name="new_password"' not in client.get("/login").text


def test_with_a_new_one_it_opens_once(started: tuple[Services, str]) -> None:
    services, printed = started
    client = client_of(services)
    assert post(client, printed, CHOSEN)[0] == 303
    assert client.get("/api/me").json() == {"name": "researcher", "role": "researcher"}
    for old in ("", CHOSEN, "another of mine"):
        status, page = post(client_of(services), printed, old)
        assert status == 401 and "Name or password is wrong." in page
        assert 'name="new_password"' not in page
    assert post(client_of(services), CHOSEN)[0] == 303
    assert first_accounts(services) == []


@pytest.mark.parametrize("new", ["x" * (MIN_PASSWORD - 1), "<i>" * 334, "printed"])
def test_a_new_one_that_may_not_be_is_refused_in_words(
    started: tuple[Services, str], new: str
) -> None:
    services, printed = started
    typed = printed if new == "printed" else new
    status, page = post(client_of(services), printed, typed)
    wanted = "another than the printed one" if new == "printed" else "has 8 to 1000 characters"
    (problem,) = re.findall(r'id="new-password-problem" role="alert" >([^<]+)<', page)
    assert status == 401 and wanted in problem and typed not in page
    assert post(client_of(services), printed, CHOSEN)[0] == 303  # and it was not used up by that


def test_any_other_new_password_ends_it(started: tuple[Services, str]) -> None:
    services, printed = started
    with pytest.raises(InvalidError, match="8 to 1000"):
        services.operations.set_password("researcher", "short")
    with pytest.raises(ChoosePasswordError):
        services.sessions.sign_in("researcher", printed, "here")
    services.operations.set_password("researcher", CHOSEN)  # the command, and the People tab
    assert post(client_of(services), printed, "another of mine")[0] == 401
    assert post(client_of(services), CHOSEN)[0] == 303
    assert post(client_of(services), CHOSEN, "looked at by nobody")[0] == 303
    assert post(client_of(services), "looked at by nobody")[0] == 401


def test_guesses_count_and_a_locked_name_stays_out(started: tuple[Services, str]) -> None:
    services, printed = started
    client = client_of(services)
    for _ in range(auth.FREE_FAILURES):
        assert post(client, printed)[0] == 401  # right: no guess, and it forgives none
        assert post(client, "wrong password", CHOSEN)[0] == 401
    status, page = post(client, printed, CHOSEN)
    assert status == 429 and "try again in" in page
    services.sessions.lock_out.succeeded("name:researcher")
    services.sessions.lock_out.succeeded("address:testclient")
    assert post(client, printed, CHOSEN)[0] == 303


def test_of_two_at_the_same_time_one_gets_in(services: Services) -> None:
    """On a shared database, too: see test_shared_database."""
    printed = services.operations.add_user("new", "researcher", one_time=True)["password"]

    def use(chosen: str) -> str | None:
        try:
            services.sessions.sign_in("new", printed, "here", chosen)
        except SignInError:
            return None
        return chosen

    with ThreadPoolExecutor(2) as both:
        (won,) = [one for one in both.map(use, ("first of mine", "second of mine")) if one]
    assert services.sessions.sign_in("new", won, "here")
    sessions = services.store.database.rows("SELECT 1 FROM sessions WHERE name = 'new'")
    assert len(sessions) == 2


def test_password_and_session_are_stored_together_or_not_at_all(
    started: tuple[Services, str],
) -> None:
    """As with a server that is killed in between: the printed one still works."""
    services, printed = started
    stored = services.store.annotator("researcher")["password"]
    later = utc_now() + timedelta(days=1)
    services.store.add_session("taken", "researcher", later)
    change = (stored, auth.hash_password(CHOSEN))
    with pytest.raises(duckdb.ConstraintException):
        services.store.begin_account("researcher", change, "taken", later)
    assert services.store.annotator("researcher")["password"] == stored
    assert services.sessions.sign_in("researcher", printed, "here", CHOSEN)
