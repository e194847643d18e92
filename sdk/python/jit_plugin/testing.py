"""For native unit tests: a policy is plain Python, and needs neither Wasm nor a broker to be tried."""

from __future__ import annotations

import json
from typing import Any

from . import config as typed
from .policy import Allow, Deny, Policy, Request


def request(**changes: Any) -> Request:
    """A request of `payment-service` for `app_read_only` of `inventory_db`, for an hour, but for the changes."""
    usual: dict[str, Any] = {
        "operation": "issue",
        "time": 1_800_000_000,
        "workload": "payment-service",
        "issuer": "https://issuer.test",
        "target": "inventory_db",
        "role": "app_read_only",
        "ttl_seconds": 3600,
    }
    return Request(**{**usual, **changes})


def decide(policy: type[Policy], config: dict[str, Any], request: Request) -> Allow | Deny:
    """Asks the policy as a broker does: the configuration is read and validated first."""
    found = problems(policy, config)
    if found:
        raise typed.Problems(found)
    answer = policy().decide(typed.parse(policy.config_type(), json.dumps(config)), request)
    if not isinstance(answer, (Allow, Deny)):
        raise TypeError(f"decide must return Allow or Deny, not {type(answer).__name__}")
    return answer


def problems(policy: type[Policy], config: dict[str, Any]) -> list[typed.Problem]:
    """What is wrong with a configuration."""
    try:
        return list(policy().validate(typed.parse(policy.config_type(), json.dumps(config))))
    except typed.Problems as error:
        return error.problems
