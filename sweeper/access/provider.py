"""The OIDC provider of a home, configured as Streamlit's ``st.login`` takes it."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sweeper.access.files import read_private
from sweeper.errors import AccessError
from sweeper.paths import Home

CALLBACK = "/oauth2callback"
"""The path of Streamlit for the provider's answer."""


class OidcProvider(BaseModel):
    """The section ``[auth]`` of the settings.

    Attributes:
        redirect_uri: The dashboard's own address as browsers see it, ending in ``/oauth2callback``.
        server_metadata_url: The provider's ``/.well-known/openid-configuration``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    redirect_uri: str
    client_id: str
    client_secret: str
    server_metadata_url: str

    @field_validator("redirect_uri")
    @classmethod
    def _is_the_callback(cls, value: str) -> str:
        if urlsplit(value).path != CALLBACK:
            raise ValueError(f"must end in {CALLBACK}")
        return value

    @property
    def host(self) -> str:
        """The provider's host name."""
        return urlsplit(self.server_metadata_url).hostname or ""


def oidc_provider(home: Home) -> OidcProvider | None:
    """Return the OIDC provider of a home, or None if there is none.

    Raises:
        AccessError: If others can read the settings, they are faulty, or a package is missing.
    """
    path = home.dashboard_secrets
    text = read_private(path)
    if text is None:
        return None
    provider = _parsed(path, text)
    if find_spec("authlib") is None or find_spec("httpx") is None:
        raise AccessError(f"{path} asks for OIDC, which needs further packages: `pip install 'sweeper[oidc]'`")
    return provider


def _parsed(path: Path, text: str) -> OidcProvider:
    try:
        return OidcProvider.model_validate(tomllib.loads(text).get("auth", {}))
    except tomllib.TOMLDecodeError as error:
        raise AccessError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        faults = ", ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise AccessError(f"{path}, section [auth]: {faults}") from None
