"""Typed configuration: what an operator wrote, or what to write instead.

The type is a dataclass. Its annotations may be `str`, `int`, `float`, `bool`, `Seconds`, another
dataclass, `list[…]`, `dict[str, …]`, `Literal[…]` and `… | None`. A key without a default is required; a key
that the dataclass does not have is a mistake. `__post_init__` may raise `ValueError`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any, Iterable, TypeVar

from .checks import WrongAnswer, text

MAX_CONFIG = 1 << 20
MAX_SECONDS = 10 * 365 * 24 * 3600
# The grammar of all durations around the broker: whole seconds, or each unit at most once, the larger one first.
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_WHOLE_SECONDS = re.compile(r"[0-9]{1,9}")
_UNITS = (86400, 3600, 60, 1)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One mistake in a configuration."""

    path: str
    """Where: a dotted path (`rules[0].role`), empty for the whole."""
    message: str
    """What is wrong and what to write instead."""

    def __post_init__(self) -> None:
        text("path", self.path)
        text("message", self.message)


class Problems(ValueError):
    """A configuration that cannot be used."""

    def __init__(self, problems: list[Problem]):
        super().__init__("; ".join(f"configuration: {problem.path}: {problem.message}" for problem in problems))
        self.problems = problems


def problem_list(function: Any, told: Any) -> list[Problem]:
    """What a function `validate` told: a list of problems, or a generator that yields them."""
    if isinstance(told, (str, bytes)) or not isinstance(told, Iterable):
        raise WrongAnswer(function, f"must return a list of Problem or yield them, not {type(told).__name__}")
    problems = list(told)
    for problem in problems:
        if not isinstance(problem, Problem):
            raise WrongAnswer(function, f"must return a list of Problem or yield them, not {type(problem).__name__}")
    return problems


class Seconds(int):
    """A duration in a configuration: `"90s"`, `"30m"`, `"1h30m"`, `"7d"` or whole seconds."""

    @classmethod
    def parse(cls, value: Any) -> Seconds:
        seconds = None
        if isinstance(value, int) and not isinstance(value, bool):
            seconds = value
        elif isinstance(value, str) and _WHOLE_SECONDS.fullmatch(value):
            seconds = int(value)
        elif isinstance(value, str) and (parts := _DURATION.fullmatch(value)):
            seconds = sum(int(number or 0) * unit for number, unit in zip(parts.groups(), _UNITS))
        if seconds is None or not 1 <= seconds <= MAX_SECONDS:
            raise ValueError('must be a duration such as "90s", "30m" or "1h30m", from one second to ten years')
        return cls(seconds)


def parse(kind: type[T], written: str) -> T:
    """Reads a configuration (JSON, as the host hands it over); raises `Problems` with all that is wrong."""
    if len(written) > MAX_CONFIG:
        raise Problems([Problem("", f"is longer than {MAX_CONFIG} characters: split it over several plugins")])
    try:
        value = json.loads(written) if written.strip() else {}
    except ValueError as error:
        raise Problems([Problem("", f"is not JSON: {error}")]) from None
    problems: list[Problem] = []
    made = _make(kind, {} if value is None else value, "", problems)
    if problems:
        raise Problems(problems)
    return made


def _make(kind: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """The value as that type; what is wrong is added to the problems, and then the result is of no use."""

    def wrong(message: str) -> None:
        problems.append(Problem(path, message))

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        if value is None and len(others) < len(arguments):
            return None
        if len(others) == 1:
            return _make(others[0], value, path, problems)
        for other in others:
            attempt: list[Problem] = []
            made = _make(other, value, path, attempt)
            if not attempt:
                return made
        return wrong(f"is {_called(value)}, which is none of what may stand here")
    if origin is typing.Literal:
        if value in arguments:
            return value
        return wrong(f"is {json.dumps(value)}: write one of {', '.join(json.dumps(a) for a in arguments)}")
    if origin is list:
        if not isinstance(value, list):
            return wrong(f"must be a list, not {_called(value)}")
        return [_make(arguments[0], item, f"{path}[{index}]", problems) for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            return wrong(f"must be a table, not {_called(value)}")
        return {key: _make(arguments[1], item, _below(path, key), problems) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _table(kind, value, path, problems)
    if kind is Seconds:
        try:
            return Seconds.parse(value)
        except ValueError as error:
            return wrong(str(error))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in _NAMES:
        # In Python True is an int; in a configuration it is not.
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        return wrong(f"must be {_NAMES[kind]}, not {_called(value)}")
    raise TypeError(f"{kind} cannot be the type of a configuration: see jit_plugin.config")


_hints: dict[Any, dict[str, Any]] = {}


def prepare(kind: Any) -> None:
    """Resolves the annotations of a dataclass and of those within it: once, and not in every call."""
    if dataclasses.is_dataclass(kind):
        if kind in _hints:
            return
        _hints[kind] = typing.get_type_hints(kind)
        for hint in _hints[kind].values():
            prepare(hint)
    for argument in typing.get_args(kind):
        prepare(argument)


def _table(kind: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(path, f"must be a table, not {_called(value)}"))
        return None
    prepare(kind)
    hints = _hints[kind]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    before = len(problems)
    for key in value:
        if key not in fields:
            nearest = min(fields, key=lambda name: _distance(key, name), default=None)
            is_near = nearest is not None and _distance(key, nearest) <= 2
            hint = f"write `{nearest}`" if is_near else f"there are: {', '.join(fields)}"
            problems.append(Problem(_below(path, key), f"is not a key that this plugin has: {hint}"))
    given = {name: _make(hints[name], value[name], _below(path, name), problems) for name in fields if name in value}
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in given and not optional:
            problems.append(Problem(path, f"`{name}` is missing: add `{name} = …`"))
    if len(problems) > before:
        return None
    try:
        return kind(**given)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return None


_NAMES: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _called(value: Any) -> str:
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return _NAMES[kind]
    return {list: "a list", dict: "a table", type(None): "nothing"}.get(type(value), "that")


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _distance(a: str, b: str) -> int:
    """Levenshtein's distance. Long texts are not compared."""
    if max(len(a), len(b)) > 64:
        return 1000
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
