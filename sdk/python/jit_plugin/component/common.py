"""What components of every kind share: the host's log, exceptions in words, typed configuration."""

from __future__ import annotations

from typing import Any, Callable, Iterable

from componentize_py_types import Err
from wit_world.imports import log as host_log
from wit_world.imports import types as host_types

from .. import config as typed
from .. import log
from ..places import calls, in_a_line

# The host bounds a line of its log.
_MOST_CALLS_TOLD = 30


def _to_host(level: str, message: str, fields: dict[str, str]) -> None:
    host_log.write(host_log.Level[level.upper()], message, list(fields.items()))


log._sink = _to_host


def tell(error: BaseException) -> str:
    """The exception in a line, with its place in the author's files; how it came there goes to the log."""
    line = in_a_line(error)
    places = [place for _, place in calls(error)][-_MOST_CALLS_TOLD:]
    log.error("the plugin raised an exception", exception=line[:500], calls="; ".join(places)[-3000:])
    return line


def wire(problems: Iterable[typed.Problem]) -> list[host_types.ConfigProblem]:
    return [host_types.ConfigProblem(problem.path, problem.message) for problem in problems]


def refuse(problems: list[typed.Problem]) -> None:
    if problems:
        raise Err(wire(problems))


def validated(kind: type, config: str, validate: Callable[[Any], Iterable[typed.Problem]]) -> None:
    """Tells the host what is wrong with a configuration, if something is."""
    try:
        problems = typed.problem_list(validate, validate(typed.parse(kind, config)))
    except typed.Problems as error:
        problems = error.problems
    except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
        problems = [typed.Problem("", tell(error))]
    refuse(problems)


def prepared(kind: type, config: str) -> Any:
    """The configuration with its types. Tells the host what is wrong with it, if something is."""
    try:
        return typed.parse(kind, config)
    except typed.Problems as error:
        problems = error.problems
    except BaseException as error:
        problems = [typed.Problem("", tell(error))]
    raise Err(wire(problems))
