"""What a plugin gives to the host has the types of the contract, or its author reads which one has not, and where.

Without these checks a wrong type would be a trap without a word.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

MOST_SECONDS = (1 << 63) - 1


def _called(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def text(name: str, value: Any) -> str:
    """A text of the contract: UTF-8. Half a surrogate pair is none."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {_called(value)}")
    value.encode()
    return value


def optional_text(name: str, value: Any) -> str | None:
    return None if value is None else text(name, value)


def texts(name: str, value: Any) -> list[str]:
    """A list of texts. A text alone would be a list of its letters, which nobody means."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of str, not {_called(value)}")
    return [text(f"{name}[{index}]", item) for index, item in enumerate(value)]


def pairs(name: str, value: Any) -> list[tuple[str, str]]:
    """Names and values."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of str, not {_called(value)}")
    return [(text(f"a name in {name}", key), text(f"{name}[{key!a}]", item)) for key, item in value.items()]


def whole(name: str, value: Any, least: int = 0, most: int = MOST_SECONDS) -> int:
    """A whole number in that range. In Python True is an int; here it is not."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {_called(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, and it can be {least} to {most}")
    return int(value)


def optional_whole(name: str, value: Any, least: int = 0, most: int = MOST_SECONDS) -> int | None:
    return None if value is None else whole(name, value, least, most)


def truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_called(value)}")
    return value


def an(kind: type, function: Any, value: Any) -> Any:
    """The answer of one of the plugin's functions, which is of that type."""
    if not isinstance(value, kind):
        raise WrongAnswer(function, f"must return {kind.__name__}, not {_called(value)}")
    return value


class WrongAnswer(TypeError):
    """A function of the plugin returned what it must not. Its place is where that function stands."""

    def __init__(self, function: Any, what: str):
        name = getattr(function, "__name__", "it")
        super().__init__(f"{name} {what}")
        self.code = getattr(function, "__code__", None)
        self.module = getattr(function, "__module__", "") or ""


class answering:
    """Within it, a mistake in what that function returned is told with the function's own place."""

    def __init__(self, function: Any):
        self._function = function

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, WrongAnswer) or not isinstance(error, (TypeError, ValueError)):
            return
        raise WrongAnswer(self._function, f"returned what it must not: {error}") from None
