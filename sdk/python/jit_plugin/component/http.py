"""The host's HTTP connection and session."""

from __future__ import annotations

from typing import Any

from componentize_py_types import Err
from wit_world.imports import http as wit
from wit_world.imports import secrets as encodings
from wit_world.imports import session

from ..encode import Encoded
from ..errors import Failed
from ..http import Http, Response, Sending, Unsent
from ..secret import Secret

_UNSENT = {wit.HttpError_Unavailable: "unavailable", wit.HttpError_Unknown: "unknown", wit.HttpError_Denied: "denied"}


_PREFIXES = {"2a": "TWO_A", "2b": "TWO_B", "2y": "TWO_Y"}


def _encoding(part: Encoded) -> encodings.Encoding:
    how, given = part.how, part.settings
    notation = encodings.Notation[given["notation"].upper()] if "notation" in given else None
    digest = encodings.Digest[given["digest"].upper()] if "digest" in given else None
    if how == "written":
        return encodings.Encoding_Written(notation)
    if how == "digest":
        return encodings.Encoding_Digest((digest, notation))
    if how == "salted-digest":
        place = encodings.SaltPlace[given["salt"].upper()]
        return encodings.Encoding_SaltedDigest(encodings.SaltedDigest(digest, place, given["salt_bytes"], notation))
    if how == "bcrypt":
        prefix = encodings.BcryptPrefix[_PREFIXES[given["prefix"]]]
        return encodings.Encoding_Bcrypt(encodings.Bcrypt(prefix, given["cost"]))
    return encodings.Encoding_Pbkdf2(encodings.Pbkdf2(digest, given["iterations"]))


def _part(part: str | Secret | Encoded) -> wit.Part:
    if isinstance(part, Secret):
        return wit.Part_Secret(part._handle)
    if isinstance(part, Encoded):
        if part.how == "basic":
            return wit.Part_Basic((part.settings["user"], part.secret._handle))
        return wit.Part_Encoded((part.secret._handle, _encoding(part)))
    return wit.Part_Text(part)


def _fields(fields: list[tuple[str, list[Any]]]) -> list[wit.Field]:
    return [wit.Field(name, [_part(part) for part in parts]) for name, parts in fields]


def _body(sending: Sending) -> wit.Body:
    if sending.kind == "json":
        return wit.Body_Json(wit.JsonBody(sending.json, _fields(sending.secrets)))
    if sending.kind == "form":
        return wit.Body_Form(_fields(sending.form))
    if sending.kind == "text":
        return wit.Body_Text([_part(part) for part in sending.parts])
    return wit.Body_None_()


class _Transport:
    def send(self, sending: Sending) -> Response:
        request = wit.Request(
            wit.Method[sending.method],
            sending.path,
            sending.query,
            _fields(sending.headers),
            _body(sending),
            sending.withhold,
            sending.changes,
        )
        try:
            answer = wit.send(request)
        except Err as error:
            raise Unsent(_UNSENT[type(error.value)], error.value.value) from None
        withheld = [None if handle is None else Secret(handle, True) for handle in answer.withheld]
        return Response(answer.status, dict(answer.headers), answer.body, withheld)

    def credential(self, name: str) -> Secret:
        try:
            return Secret(session.credential(name), True)
        except Err as error:
            raise Failed(error.value) from None

    def kept(self, key: str, at_least_seconds: int) -> Secret | None:
        handle = session.kept(key, at_least_seconds)
        return None if handle is None else Secret(handle, True)

    def keep(self, key: str, secret: Secret, valid_seconds: int, unless_valid_for: int) -> Secret:
        try:
            return Secret(session.keep(key, secret._handle, valid_seconds, unless_valid_for), True)
        except Err as error:
            raise Failed(error.value) from None

    def forget(self, key: str, secret: Secret) -> bool:
        return session.forget(key, secret._handle)


host = Http(_Transport())
