"""The host's HTTP connection and session."""

from __future__ import annotations

from typing import Any

from componentize_py_types import Err
from wit_world.imports import http as wit
from wit_world.imports import session

from ..errors import Failed
from ..http import Http, Response, Sending, Unsent
from ..secret import Secret

_UNSENT = {wit.HttpError_Unavailable: "unavailable", wit.HttpError_Unknown: "unknown", wit.HttpError_Denied: "denied"}


def _part(part: str | Secret) -> wit.Part:
    return wit.Part_Secret(part._handle) if isinstance(part, Secret) else wit.Part_Text(part)


def _fields(fields: list[tuple[str, list[Any]]]) -> list[wit.Field]:
    return [wit.Field(name, [_part(part) for part in parts]) for name, parts in fields]


def _body(sending: Sending) -> wit.Body:
    if sending.kind == "json":
        return wit.Body_Json(wit.JsonBody(sending.json, _fields([(at, [secret]) for at, secret in sending.secrets])))
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
