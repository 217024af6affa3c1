"""Who may use the dashboard of a home, and how they prove who they are.

Accounts, the key that signs their sessions and the settings of an OIDC provider are files of the home that nobody but
its owner can read. The dashboard asks here at every request, so a change counts at once.
"""

from sweeper.access.accounts import Account, Accounts, Role
from sweeper.access.files import signing_key
from sweeper.access.provider import OidcProvider, oidc_provider

__all__ = ["Account", "Accounts", "OidcProvider", "Role", "oidc_provider", "signing_key"]
