"""The policy as the contract's exports. Only within a component: `jit-broker plugin build` imports it."""

from __future__ import annotations

from typing import Any

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import policy as wit
from wit_world.imports import log as host_log
from wit_world.imports import request as host_request
from wit_world.imports import types as host_types

from . import config as typed
from . import log
from .policy import Allow, Deny, decide, registered
from .request import Request


def _to_host(level: str, message: str, fields: dict[str, str]) -> None:
    host_log.write(host_log.Level[level.upper()], message, list(fields.items()))


log._sink = _to_host


def _text(value: object) -> str:
    """As the contract has texts: UTF-8. Half a surrogate pair is none, and would trap."""
    text = str(value)
    text.encode()
    return text


def _verdict(answer: Allow | Deny) -> wit.Verdict:
    if isinstance(answer, Deny):
        return wit.Verdict_Deny(_text(answer.reason))
    if isinstance(answer, Allow):
        return wit.Verdict_Allow(
            wit.Allowance(
                reason=_text(answer.reason),
                max_ttl_seconds=answer.max_ttl_seconds,
                role=None if answer.role is None else _text(answer.role),
                requires=[_text(word) for word in answer.requires],
                labels=[(_text(name), _text(value)) for name, value in answer.labels.items()],
            )
        )
    raise TypeError(f"neither Allow nor Deny: {type(answer).__name__}")


def _tell(error: BaseException) -> str:
    """The exception in a line, with its place in the policy; how it came there goes to the log."""
    # Not by `traceback`, which looks for the sources: there are no files.
    places = []
    frame = error.__traceback__
    while frame is not None and len(places) < 50:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno} in {code.co_name}")
        frame = frame.tb_next
    text = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    log.error("the policy raised an exception", exception=text[:500], calls="; ".join(places)[-3000:])
    return f"{text} ({places[-1]})" if places else text


_policy = registered[0]() if registered else None
_config: Any = None


def _raise(problems: list[typed.Problem]) -> None:
    if problems:
        raise Err([host_types.ConfigProblem(problem.path, problem.message) for problem in problems])


class Policy(exports.Policy):
    """What componentize-py looks for."""

    def validate(self, config: str) -> None:
        try:
            problems = list(_policy.validate(typed.parse(_policy.config_type(), config)))
        except typed.Problems as error:
            problems = error.problems
        except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
            problems = [typed.Problem("", _tell(error))]
        _raise(problems)

    def prepare(self, config: str) -> None:
        global _config
        try:
            _config = typed.parse(_policy.config_type(), config)
            problems = []
        except typed.Problems as error:
            problems = error.problems
        except BaseException as error:
            problems = [typed.Problem("", _tell(error))]
        _raise(problems)

    def decide(self, request: host_request.Request) -> wit.Verdict:
        try:
            return _verdict(decide(_policy, _config, Request(request)))
        except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
            raise Err(_tell(error)) from None


class Usage(exports.Usage):
    """What componentize-py looks for."""

    def windows(self) -> list[int] | None:
        try:
            windows = _policy.windows(_config)
            return None if windows is None else [int(window) for window in windows]
        except BaseException as error:
            raise Err(_tell(error)) from None


def check() -> None:
    """Called once while the component is built, so that a mistake is told then."""
    if not registered:
        raise TypeError("the module registers no policy: end it with register_policy(MyRule)")
    # In the snapshot that every call begins from, this is done already.
    typed.prepare(registered[0].config_type())


check()
