"""Requests to the connection's HTTP server, and to no other.

A request is data that the host turns into a request: it escapes the path's segments, places secrets, and takes the
secrets out of answers. A `Secret` may stand wherever a text may stand in a header, a form, a text body, or as a value
within a JSON body::

    http.send("POST", ["users"], json={"name": name, "password": password}, headers={"x-token": token})

HTTP Basic, other notations and hashes of secrets are in `jit_plugin.encode`.
"""

from __future__ import annotations

import json as _json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from .checks import pairs, texts, truth, whole
from .checks import text as _text
from .encode import Encoded, Joined
from .errors import Failed, OutcomeUnknown, Retryable
from .secret import Secret

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# The deepest JSON body.
_MOST_DEPTH = 64
_NOTHING: Any = object()


@dataclass(frozen=True)
class Sending:
    """A request as the transport gets it: checked, and with all parts told apart."""

    method: str
    path: list[str]
    query: list[tuple[str, str]]
    headers: list[tuple[str, list[Any]]]
    kind: str
    """`none`, `json`, `form` or `text`."""
    json: str
    """Of `json`: the text."""
    secrets: list[tuple[str, list[Any]]]
    """Of `json`: where in it secrets stand, and the parts that stand there."""
    form: list[tuple[str, list[Any]]]
    parts: list[Any]
    """Of `text`."""
    withhold: list[str]
    changes: bool


@dataclass(frozen=True)
class Response:
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """`content-type`, `retry-after`, `location`, `www-authenticate`, where they are there."""
    body: str
    """The body without its secrets: those that the request placed are blotted out, those it withheld are null."""
    withheld: list[Secret | None] = field(default_factory=list)
    """One for each pointer of `withhold`: None where the body has no text there."""

    def json(self) -> Any:
        """The body as JSON; `Failed` when it is none."""
        try:
            return _json.loads(self.body)
        except ValueError:
            raise Failed("the answer is not JSON") from None

    @property
    def retry_after_ms(self) -> int | None:
        """The seconds of `retry-after` (RFC 9110, section 10.2.3) in milliseconds, where it has seconds."""
        value = self.headers.get("retry-after", "").strip()
        return int(value) * 1000 if value.isascii() and value.isdigit() and len(value) < 10 else None


class Unsent(Exception):
    """What a transport raises when no answer came: nothing was sent (`unavailable`), it was sent (`unknown`), or the
    host would not send it (`denied`)."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


class Http:
    """The connection's server, and the broker's own credentials for it."""

    def __init__(self, transport: Any):
        self._transport = transport

    def send(
        self,
        method: str,
        path: Iterable[str],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, Any] | None = None,
        json: Any = _NOTHING,
        form: Mapping[str, Any] | None = None,
        text: Any = None,
        withhold: Iterable[str] = (),
        changes: bool = False,
    ) -> Response:
        """Sends a request and returns the whole answer, whatever its status.

        `path` has the segments below the connection's URL. One of `json`, `form` and `text` is the body. `withhold`
        has JSON Pointers (RFC 6901) of the answer's secrets, `""` for the whole body. `changes` marks a GET that may
        change something at the backend; every other method counts as a change, but for POSTs that the description
        lists as `harmless-posts`.

        Raises `Retryable` when nothing was sent, `OutcomeUnknown` when no whole answer came to what may have changed
        something, `Retryable` when none came to a question, and `Failed` when the host would not send it.
        """
        sending = _checked(method, path, query, headers, json, form, text, withhold, changes)
        try:
            return self._transport.send(sending)
        except Unsent as error:
            reason, kind = str(error), error.kind
        if kind == "denied":
            raise Failed(reason)
        if kind == "unavailable" or (sending.method == "GET" and not sending.changes):
            raise Retryable(reason)
        raise OutcomeUnknown(reason)

    def credential(self, name: str) -> Secret:
        """A secret of the connection's `secrets` table, read now. `Failed` when there is none of that name."""
        return self._transport.credential(_text("name", name))

    def kept(self, key: str, at_least_seconds: int = 0) -> Secret | None:
        """What an earlier call kept under the key, when it is valid for at least so many more seconds."""
        return self._transport.kept(_text("key", key), whole("at_least_seconds", at_least_seconds))

    def keep(self, key: str, secret: Secret, valid_seconds: int, unless_valid_for: int = 0) -> Secret:
        """Keeps a secret that is valid for so many seconds; returns the one that now holds, which is another call's
        where that is valid for longer than `unless_valid_for` seconds. `Failed` when it cannot be kept."""
        _secret("secret", secret)
        valid, unless = whole("valid_seconds", valid_seconds), whole("unless_valid_for", unless_valid_for)
        return self._transport.keep(_text("key", key), secret, valid, unless)

    def forget(self, key: str, secret: Secret) -> bool:
        """Forgets what is kept under the key, if it is this secret. Returns whether it was."""
        _secret("secret", secret)
        return self._transport.forget(_text("key", key), secret)


def key(what: str, *of: str) -> str:
    """A key to keep something under: what it is, and what it belongs to. The host takes 128 bytes at most, and names
    of a configuration may be longer: they go in as a hash (FNV-1a, 64 bits)."""
    hashed = 0xCBF29CE484222325
    for part in of:
        # No byte of UTF-8 is 0xff: parts do not run into each other.
        for byte in part.encode() + b"\xff":
            hashed = ((hashed ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{what} {hashed:016x}"


def _secret(name: str, value: Any) -> None:
    if not isinstance(value, Secret):
        raise TypeError(f"{name} must be a Secret, not {type(value).__name__}")


def _checked(method, path, query, headers, json, form, text, withhold, changes) -> Sending:
    if method not in METHODS:
        raise ValueError(f"method is {method!a}: it is one of {', '.join(METHODS)}")
    given = {"json": json is not _NOTHING, "form": form is not None, "text": text is not None}
    bodies = [name for name, is_given in given.items() if is_given]
    if len(bodies) > 1:
        raise TypeError(f"a request has one body, not {' and '.join(bodies)}")
    secrets: list[tuple[str, list[Any]]] = []
    body = "" if json is _NOTHING else _json.dumps(_without_secrets(json, "", secrets, 0), allow_nan=False)
    return Sending(
        method=method,
        path=texts("path", path),
        query=pairs("query", query or {}),
        headers=_fields("headers", headers or {}),
        kind=bodies[0] if bodies else "none",
        json=body,
        secrets=secrets,
        form=_fields("form", form or {}),
        parts=[] if text is None else _parts("text", text),
        withhold=texts("withhold", withhold),
        changes=truth("changes", changes),
    )


def _fields(what: str, fields: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    if not isinstance(fields, Mapping):
        raise TypeError(f"{what} must be a dict, not {type(fields).__name__}")
    return [(_text(f"a name in {what}", name), _parts(f"{what}[{name!a}]", value)) for name, value in fields.items()]


def _parts(what: str, value: Any) -> list[Any]:
    """One text or secret, or a list of them, which are written one after the other."""
    parts = [value] if isinstance(value, (str, Secret, Encoded)) else value
    if isinstance(parts, Joined):
        parts = parts.parts
    if not isinstance(parts, (list, tuple)):
        raise TypeError(f"{what} must be a str, a Secret or a list of them, not {type(value).__name__}")
    return [
        part if isinstance(part, (Secret, Encoded)) else _text(f"{what}[{index}]", part)
        for index, part in enumerate(parts)
    ]


def _without_secrets(value: Any, pointer: str, found: list[tuple[str, list[Any]]], depth: int) -> Any:
    """The value with an empty text in the place of each secret; which ones, and where, is added to the list."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"json is deeper than {_MOST_DEPTH}")
    if isinstance(value, (Secret, Encoded, Joined)):
        if pointer == "":
            raise TypeError("json must not be a Secret as a whole: put it into a table, or send it as text")
        found.append((pointer, _parts(f"json{pointer}", value)))
        return ""
    if isinstance(value, Mapping):
        return {
            _text(f"a name in json{pointer}", name): _without_secrets(
                item, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", found, depth + 1
            )
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item, f"{pointer}/{index}", found, depth + 1) for index, item in enumerate(value)]
    return value
