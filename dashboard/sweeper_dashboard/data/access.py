"""Accounts and keys of the home that is shown."""

from __future__ import annotations

from sweeper import access
from sweeper.access import Account, Accounts, OidcProvider, Role
from sweeper.access.actor import current_actor
from sweeper.errors import AccessError
from sweeper.paths import Home

__all__ = [
    "AccessError",
    "Account",
    "OidcProvider",
    "Role",
    "accounts",
    "current_actor",
    "oidc_provider",
    "signing_key",
]


def accounts() -> Accounts:
    """Return the users of the home."""
    return Accounts(Home.current())


def signing_key() -> str:
    """Return the key that signs the home's sessions."""
    return access.signing_key(Home.current())


def oidc_provider() -> OidcProvider | None:
    """Return the OIDC provider of the home, if it has one."""
    return access.oidc_provider(Home.current())
