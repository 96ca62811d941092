"""Operations on accounts."""

from __future__ import annotations

from typing import Any

from feedback_app.auth import MIN_PASSWORD, ROLES, check_name, generate_password, hash_password
from feedback_app.database import Row
from feedback_app.errors import ConflictError, InvalidError
from feedback_app.operations_base import Base, plain


class PeopleOperations(Base):
    """Who may sign in, and as what."""

    def list_annotators(self) -> list[Row]:
        return [plain(row) for row in self.store.annotators()]

    def role_of(self, name: str) -> str | None:
        """annotator or researcher; None for a name that may not sign in."""
        row = self.store.annotator(name)
        if row is None or row["disabled"] or row["password"] is None:
            return None
        return str(row["role"])

    def add_user(self, name: str, role: str, password: str | None = None) -> dict[str, str]:
        """A new account; the password is made up where none is given, and told only here."""
        if role not in ROLES:
            raise InvalidError(f"role {role!r} is not one of {', '.join(ROLES)}")
        check_name(name)
        chosen = _password(password)
        self.store.add_annotator(name, role, hash_password(chosen))
        return {"name": name, "role": role, "password": chosen}

    def set_password(self, name: str, password: str | None = None) -> dict[str, str]:
        """A new password; ends the account's sessions."""
        chosen = _password(password)
        self.store.update_annotator(name, "password", hash_password(chosen))
        self.sessions.forget()
        return {"name": name, "password": chosen}

    def set_disabled(self, name: str, disabled: bool) -> dict[str, Any]:
        """Shut an account out, or let it in again."""
        researchers = {
            row["name"]
            for row in self.store.annotators()
            if row["role"] == "researcher" and not row["disabled"]
        }
        if disabled and researchers == {name}:
            raise ConflictError(f"{name} is the only researcher; add another one first")
        self.store.update_annotator(name, "disabled", disabled)
        self.sessions.forget()
        return {"name": name, "disabled": disabled}

    def set_weight(self, name: str, weight: float) -> dict[str, Any]:
        """How much a person's votes count; 0 leaves them out of snapshots and exports."""
        if not 0 <= weight <= 1:
            raise InvalidError(f"a weight is 0 to 1, got {weight}")
        self.store.update_annotator(name, "weight", weight)
        return {"name": name, "weight": weight}


def _password(password: str | None) -> str:
    chosen = password or generate_password()
    if not MIN_PASSWORD <= len(chosen) <= 1000:
        raise InvalidError(f"a password has {MIN_PASSWORD} to 1000 characters")
    return chosen
