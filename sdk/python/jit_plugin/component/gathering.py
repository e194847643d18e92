"""What both kinds of context providers export."""

from __future__ import annotations

from typing import Any

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import request as host_request

from .. import config as typed
from ..context import HttpContext, facts
from ..http import Http
from ..registered import the
from ..request import Request
from .common import prepared, tell, validated


def exported(http: Http | None) -> type:
    """The class that componentize-py looks for."""
    provider = the("context provider", "register_context(MyFacts)")()
    if isinstance(provider, HttpContext) != (http is not None):
        hint = 'add world = "http" to' if http is None else 'remove world = "http" from'
        wrong = "an HttpContext" if http is None else "a Context, which asks no server"
        raise TypeError(f"{type(provider).__name__} is {wrong}: {hint} [tool.jit-plugin] in pyproject.toml")
    kind = provider.config_type()
    # In the snapshot that every call begins from, this is done already.
    typed.prepare(kind)
    config: Any = None

    class Context(exports.Context):
        def validate(self, written: str) -> None:
            validated(kind, written, provider.validate)

        def prepare(self, written: str) -> None:
            nonlocal config
            config = prepared(kind, written)

        def gather(self, request: host_request.Request) -> list[tuple[str, str]]:
            try:
                return facts(provider, http, config, Request(request))
            except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
                raise Err(tell(error)) from None

    return Context
