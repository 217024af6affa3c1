"""Password rules and hashing.

Source of the rules: NIST SP 800-63B-4, section 3.1.1.2: at least 15 characters if a password is the only factor, at
least 64 allowed, every printing character, no rules of composition, normalised with NFKC, and none that is expected,
such as the name of the user or of the service. Hashed by argon2id with the second recommended parameters of RFC 9106
(64 MiB, three passes), which are argon2-cffi's.
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
    """Return the hash of a new password of ``name``.

    Raises:
        AccessError: If it is not good enough; the text does not quote it.
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
        raise AccessError("the password has bytes that are not text in this terminal's encoding") from error


def matches(password: str, kept: str | None) -> bool:
    """Return whether a password matches its hash; without a hash it takes the same time and returns False."""
    try:
        right = _hasher.verify(kept or _dummy_hash(), _normal(password[:LONGEST]))
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return right and kept is not None


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


@cache
def _dummy_hash() -> str:
    return _hasher.hash(secrets.token_hex())
