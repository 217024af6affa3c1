"""Users of the dashboard of a home, and their authentication.

Accounts, the key that signs their sessions and the settings of an OIDC provider are files of the home that only its
owner can read. The dashboard reads them at every request, so a change takes effect at once.
"""

from sweeper.access.accounts import Account, Accounts, Role
from sweeper.access.files import signing_key
from sweeper.access.provider import OidcProvider, oidc_provider

__all__ = ["Account", "Accounts", "OidcProvider", "Role", "oidc_provider", "signing_key"]
