"""A scripted HTTP server for native tests.

Like the host, it gives no secret to the plugin: what an answer withholds becomes a handle, and what a request placed
is blotted out of the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping
from urllib.parse import quote

from .encode import Encoded
from .errors import Failed
from .http import Http, Response, Sending, Unsent
from .secret import Secret


class Named:
    """What a test's secret is, for the test to recognise it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


@dataclass(frozen=True)
class Sent:
    """A request as the server saw it. A placed secret is shown as `<name>`, an encoded one as `<sha256:name>` and the
    like, HTTP Basic as `Basic <user:name>`."""

    method: str
    path: list[str]
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case, `content-type` of the body included."""
    body: str
    """The body as text; empty where there is none."""
    withhold: list[str]
    changes: bool

    @property
    def line(self) -> str:
        """Method, path and parameters as a request line has them: `GET /v1/a%2Fb?list=true`."""
        query = "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in self.query.items())
        path = "".join(f"/{quote(segment, '')}" for segment in self.path)
        return f"{self.method} {path}{'?' if query else ''}{query}"

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer, with its secrets in it: `json` or `text` is its body."""

    status: int = 200
    json: Any = None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> str:
        return self.text if self.json is None else json.dumps(self.json)


def away(reason: str = "the server is away") -> Unsent:
    """Raised by a test's server: nothing was sent."""
    return Unsent("unavailable", reason)


def lost(reason: str = "the answer was lost") -> Unsent:
    """Raised by a test's server: the request was sent, and no whole answer came."""
    return Unsent("unknown", reason)


class FakeHttp(Http):
    """A server that a test scripts: it notes every request and asks the test for the answer. It has the host's
    session too, with a clock that the test moves."""

    def __init__(self, answer: Callable[[Sent], Reply] | Reply, secrets: Mapping[str, str] | None = None):
        super().__init__(_Transport(self))
        self.sent: list[Sent] = []
        """What was sent, in order."""
        self.now = 1_800_000_000
        """The session's clock, in seconds."""
        self.is_full = False
        """Nothing more can be kept."""
        self.kept_secrets: dict[str, tuple[str, int]] = {}
        """What is kept: names of secrets and until when, by key."""
        self._answer = answer
        self._secrets = dict(secrets or {})

    @property
    def lines(self) -> list[str]:
        """The request lines, in order."""
        return [sent.line for sent in self.sent]


class _Transport:
    def __init__(self, fake: FakeHttp):
        self._fake = fake

    def send(self, sending: Sending) -> Response:
        placed: list[str] = []
        sent = _seen(sending, placed)
        self._fake.sent.append(sent)
        answer = self._fake._answer
        return _blind(answer if isinstance(answer, Reply) else answer(sent), sending.withhold, placed)

    def credential(self, name: str) -> Secret:
        if name not in self._fake._secrets:
            raise Failed(f"no secret {name}")
        return _owned(self._fake._secrets[name])

    def kept(self, key: str, at_least_seconds: int) -> Secret | None:
        name, until = self._fake.kept_secrets.get(key, ("", 0))
        left = until - self._fake.now
        return _owned(name) if left > 0 and left >= at_least_seconds else None

    def keep(self, key: str, secret: Secret, valid_seconds: int, unless_valid_for: int) -> Secret:
        kept, name = self._fake.kept_secrets, secret._handle.name
        if self._fake.is_full and key not in kept:
            raise Failed("too many secrets are kept")
        other, until = kept.get(key, (name, 0))
        if other != name and until - self._fake.now > unless_valid_for:
            return _owned(other)
        kept[key] = (name, self._fake.now + valid_seconds)
        return _owned(name)

    def forget(self, key: str, secret: Secret) -> bool:
        is_it = self._fake.kept_secrets.get(key, ("", 0))[0] == secret._handle.name and key in self._fake.kept_secrets
        if is_it:
            del self._fake.kept_secrets[key]
        return is_it


def _owned(name: str) -> Secret:
    return Secret(Named(name), True)


def _seen(sending: Sending, placed: list[str]) -> Sent:
    """The request as it would go out. The names of the secrets that it places are added to the list."""

    def shown(part: str | Secret | Encoded) -> str:
        if isinstance(part, Encoded):
            name, given = part.secret._handle.name, part.settings
            placed.append(name)
            if part.how == "basic":
                return f"Basic <{given['user']}:{name}>"
            return f"<{given.get('digest', given.get('notation', part.how))}:{name}>"
        if not isinstance(part, Secret):
            return part
        placed.append(part._handle.name)
        return f"<{part._handle.name}>"

    def joined(parts: list[Any]) -> str:
        return "".join(shown(part) for part in parts)

    if any(segment in ("", ".", "..") for segment in sending.path):
        raise Unsent("denied", "a segment of the path is empty or a dot")
    headers = {}
    for name, parts in sending.headers:
        value = joined(parts)
        if not name or not all(c.isascii() and (c.isalnum() or c == "-") for c in name) or not value.isprintable():
            raise Unsent("denied", "a header with characters that it cannot have")
        headers[name.lower()] = value
    body = ""
    if sending.kind == "json":
        made = json.loads(sending.json)
        for pointer, parts in sending.secrets:
            made = _replaced(made, pointer, joined(parts))
        headers["content-type"], body = "application/json", json.dumps(made)
    elif sending.kind == "form":
        headers["content-type"] = "application/x-www-form-urlencoded"
        fields = []
        for name, parts in sending.form:
            value = "".join(quote(part, "") if isinstance(part, str) else shown(part) for part in parts)
            fields.append(f"{quote(name, '')}={value}")
        body = "&".join(fields)
    elif sending.kind == "text":
        headers["content-type"], body = "text/plain", joined(sending.parts)
    return Sent(sending.method, sending.path, dict(sending.query), headers, body, sending.withhold, sending.changes)


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _found(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _replaced(value: Any, pointer: str, by: Any) -> Any:
    *way, last = _steps(pointer)
    table = _found(value, way)
    table[int(last) if isinstance(table, list) else last] = by
    return value


def _blind(reply: Reply, withhold: list[str], placed: list[str]) -> Response:
    """The answer without its secrets."""
    body = reply.body()
    withheld: list[Secret | None] = []
    try:
        made = json.loads(body)
    except ValueError:
        made = None
    for pointer in withhold:
        there = body if pointer == "" else _found(made, _steps(pointer))
        withheld.append(_owned(there) if isinstance(there, str) else None)
        if pointer != "" and isinstance(there, str):
            made = _replaced(made, pointer, None)
    if "" in withhold:
        body = ""
    elif withhold and made is not None:
        body = json.dumps(made)
    for name in placed:
        body = body.replace(name, "[secret]") if name else body
    return Response(reply.status, dict(reply.headers), body, withheld)
