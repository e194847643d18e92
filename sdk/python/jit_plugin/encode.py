"""How the host writes a secret where it is placed: as HTTP Basic, in another notation, or as a hash.

The host does it, and the plugin never sees the result. Each function gives a part, which stands wherever a `Secret` may
stand in a header, a form, a text body, or as a value within a JSON body::

    http.send("GET", ["users"], headers={"authorization": basic("admin", http.credential("password"))})

    # `password_hash` as RabbitMQ takes it: base64(salt + sha256(salt + password)).
    hashed = salted_digest(password, "sha256", salt="before", salt_bytes=4, notation="base64")
    http.send("PUT", ["users", name], json={"password_hash": hashed, "tags": ""})

A password that the host made is random: stretching it (`bcrypt`, `pbkdf2`) protects nothing, so take the lowest cost
that the backend accepts. A request has at most two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checks import text as _text
from .checks import whole
from .secret import Secret

DIGESTS = ("sha1", "sha256", "sha384", "sha512")
"""`sha1` is for backends that take nothing better."""
NOTATIONS = ("hex", "base64", "base64url")
"""`hex` in lower case, `base64` with padding, `base64url` without (RFC 4648)."""


@dataclass(frozen=True)
class Encoded:
    """A secret, and how the host writes it."""

    secret: Secret
    how: str
    """`basic`, `written`, `digest`, `salted-digest`, `bcrypt` or `pbkdf2`."""
    settings: dict[str, Any]

    def __str__(self) -> str:
        raise TypeError("an encoded secret has no text: give it as a part")


@dataclass(frozen=True)
class Joined:
    """Parts that are one text within a JSON body."""

    parts: tuple[Any, ...]


def basic(user: str, secret: Secret) -> Encoded:
    """User and secret as the credentials of HTTP Basic (RFC 7617): `Basic ` and base64. It is the whole value of the
    header `authorization`. The user has no colon."""
    if ":" in _text("user", user):
        raise ValueError("the user of HTTP Basic has no colon")
    return Encoded(_secret(secret), "basic", {"user": user})


def written(secret: Secret, notation: str) -> Encoded:
    """The secret's own bytes (UTF-8) in one of `NOTATIONS`. It can be read back."""
    return Encoded(_secret(secret), "written", {"notation": _one("notation", notation, NOTATIONS)})


def digest(secret: Secret, digest: str, *, notation: str) -> Encoded:
    """Its digest without a salt."""
    settings = {"digest": _one("digest", digest, DIGESTS), "notation": _one("notation", notation, NOTATIONS)}
    return Encoded(_secret(secret), "digest", settings)


def salted_digest(secret: Secret, digest: str, *, salt: str, salt_bytes: int, notation: str) -> Encoded:
    """Its digest with random salt, both written together. `salt` is `before` (`salt + digest(salt + secret)`, as
    RabbitMQ stores it) or `after` (`digest(secret + salt) + salt`, as directories store `{SSHA256}`)."""
    if not 4 <= whole("salt_bytes", salt_bytes) <= 64:
        raise ValueError("salt_bytes is 4 to 64")
    settings = {
        "digest": _one("digest", digest, DIGESTS),
        "salt": _one("salt", salt, ("before", "after")),
        "salt_bytes": salt_bytes,
        "notation": _one("notation", notation, NOTATIONS),
    }
    return Encoded(_secret(secret), "salted-digest", settings)


def bcrypt(secret: Secret, *, cost: int, prefix: str = "2b") -> Encoded:
    """Its bcrypt hash, with `$2a$`, `$2b$` or `$2y$` before it; 2 to the power of `cost` rounds, 4 to 12."""
    if not 4 <= whole("cost", cost) <= 12:
        raise ValueError("cost is 4 to 12")
    return Encoded(_secret(secret), "bcrypt", {"prefix": _one("prefix", prefix, ("2a", "2b", "2y")), "cost": cost})


def pbkdf2(secret: Secret, digest: str, *, iterations: int) -> Encoded:
    """A key derived from it (PBKDF2 with HMAC), as `$pbkdf2-sha256$i=600000,l=32$salt$key`. Not with `sha1`; 1 to
    1000000 iterations."""
    if not 1 <= whole("iterations", iterations) <= 1_000_000:
        raise ValueError("iterations is 1 to 1000000")
    return Encoded(_secret(secret), "pbkdf2", {"digest": _one("digest", digest, DIGESTS[1:]), "iterations": iterations})


def joined(*parts: str | Secret | Encoded) -> Joined:
    """Parts that stand one after the other in one text of a JSON body, such as `{SSHA256}` and a digest."""
    for index, part in enumerate(parts):
        if not isinstance(part, (Secret, Encoded)):
            _text(f"parts[{index}]", part)
    return Joined(parts)


def _secret(value: Any) -> Secret:
    if not isinstance(value, Secret):
        raise TypeError(f"secret must be a Secret, not {type(value).__name__}")
    return value


def _one(name: str, value: str, of: tuple[str, ...]) -> str:
    if value not in of:
        raise ValueError(f"{name} is {value!a}: it is one of {', '.join(of)}")
    return value
