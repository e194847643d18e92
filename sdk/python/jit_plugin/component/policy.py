"""The policy as the contract's exports."""

from __future__ import annotations

from typing import Any

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import policy as wit
from wit_world.imports import request as host_request

from .. import config as typed
from ..checks import answering, whole
from ..policy import Allow, Deny, decide
from ..registered import the
from ..request import Request
from .common import prepared, tell, validated

_policy = the("policy", "register_policy(MyRule)")()
# In the snapshot that every call begins from, this is done already.
typed.prepare(_policy.config_type())
_config: Any = None


def _verdict(answer: Allow | Deny) -> wit.Verdict:
    if isinstance(answer, Deny):
        return wit.Verdict_Deny(answer.reason)
    return wit.Verdict_Allow(
        wit.Allowance(
            reason=answer.reason,
            max_ttl_seconds=answer.max_ttl_seconds,
            role=answer.role,
            requires=list(answer.requires),
            labels=list(answer.labels.items()),
        )
    )


class Policy(exports.Policy):
    """What componentize-py looks for."""

    def validate(self, config: str) -> None:
        validated(_policy.config_type(), config, _policy.validate)

    def prepare(self, config: str) -> None:
        global _config
        _config = prepared(_policy.config_type(), config)

    def decide(self, request: host_request.Request) -> wit.Verdict:
        try:
            return _verdict(decide(_policy, _config, Request(request)))
        except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
            raise Err(tell(error)) from None


class Usage(exports.Usage):
    """What componentize-py looks for."""

    def windows(self) -> list[int] | None:
        try:
            windows = _policy.windows(_config)
            if windows is None:
                return None
            with answering(_policy.windows):
                return [whole("a window", window, 1) for window in windows]
        except BaseException as error:
            raise Err(tell(error)) from None
