"""Passwords: which are good enough, and how they are kept.

Source of the rules: NIST SP 800-63B-4, section 3.1.1.2: at least 15 characters where a password is all there is to
prove who one is, at least 64 allowed, every printing character, no rules of composition, normalised with NFKC, and
none that is expected, such as the name of the user or of the service. Kept as argon2id with the parameters that RFC
9106 recommends second (64 MiB, three passes), which are argon2-cffi's.
"""

from __future__ import annotations

import secrets
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sweeper.errors import AccessError

SHORTEST = 15
LONGEST = 256
"""Characters; more would only be work for the server."""

_FEWEST_DIFFERENT = 6
_FEWEST_OF_ITS_OWN = 8

_hasher = PasswordHasher()


def hashed(password: str, name: str) -> str:
    """Return what is kept of a new password of ``name``.

    Raises:
        AccessError: If it is not good enough. The text does not hold it.
    """
    normal = _normal(password)
    if not SHORTEST <= len(normal) <= LONGEST:
        raise AccessError(
            f"the password must have {SHORTEST} to {LONGEST} characters (NIST SP 800-63B-4, where it is the only "
            "proof); a few words with spaces are fine"
        )
    own = normal.casefold().replace(name.casefold(), "").replace("sweeper", "")
    if len(set(normal)) < _FEWEST_DIFFERENT or len(own) < _FEWEST_OF_ITS_OWN:
        raise AccessError("the password repeats a few characters, or the user's name or `sweeper`; choose another")
    try:
        return _hasher.hash(normal)
    except UnicodeEncodeError as error:
        raise AccessError("the password has bytes that are no text in this terminal's encoding") from error


def matches(password: str, kept: str | None) -> bool:
    """Tell whether a password is the one that is kept; where none is kept, no, in the same time."""
    try:
        right = _hasher.verify(kept or _nobodys(), _normal(password[:LONGEST]))
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return right and kept is not None


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_hex())
