"""For native unit tests: a policy is plain Python, and needs neither Wasm nor a broker to be tried."""

from __future__ import annotations

import json
from typing import Any

from . import config as typed
from .policy import Allow, Deny, Policy
from .policy import decide as ask
from .request import Request


class _Given:
    """A request that a test made, read as the host's is."""

    def __init__(self, fields: dict[str, Any]):
        lists = ("attributes", "metadata", "facts", "resource")
        pairs = {name: dict(fields.pop(name, {})) for name in lists}
        for name, value in fields.items():
            setattr(self, name, lambda value=value: value)
        for one, whole, name in (
            ("attribute", "attributes", "attributes"),
            ("metadata", "all_metadata", "metadata"),
            ("fact", "facts", "facts"),
            ("resource", "whole_resource", "resource"),
        ):
            setattr(self, one, pairs[name].get)
            setattr(self, whole, lambda name=name: sorted(pairs[name].items()))


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
        "attributes": {},
        "reason": None,
        "ticket": None,
        "metadata": {},
        "facts": {},
        "caller_address": None,
        "resource": {},
    }
    unknown = [name for name in changes if name not in usual]
    if unknown:
        raise TypeError(f"a request has no {unknown[0]}: there are {', '.join(usual)}")
    return Request(_Given({**usual, **changes}))


def decide(policy: type[Policy], config: dict[str, Any], request: Request) -> Allow | Deny:
    """Asks the policy as a broker does: the configuration is read and validated first."""
    found = problems(policy, config)
    if found:
        raise typed.Problems(found)
    return ask(policy(), typed.parse(policy.config_type(), json.dumps(config)), request)


def problems(policy: type[Policy], config: dict[str, Any]) -> list[typed.Problem]:
    """What is wrong with a configuration."""
    try:
        return list(policy().validate(typed.parse(policy.config_type(), json.dumps(config))))
    except typed.Problems as error:
        return error.problems
