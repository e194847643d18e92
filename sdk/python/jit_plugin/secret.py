"""Secrets that a plugin can place but never read (BLIND-PLUGIN)."""

from __future__ import annotations

from typing import Any, NoReturn


class Secret:
    """A handle of a secret that the host owns: it is placed into a request, and nothing gives its bytes."""

    __slots__ = ("_handle", "_is_owned")

    def __init__(self, handle: Any, is_owned: bool = False):
        self._handle = handle
        self._is_owned = is_owned

    def __repr__(self) -> str:
        return "Secret"

    def __str__(self) -> NoReturn:
        # It would put the word `Secret` where the secret is meant.
        raise TypeError('a secret has no text: give it as a part, such as ["Bearer ", token]')

    def __format__(self, spec: str) -> NoReturn:
        self.__str__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be copied")
