"""For native unit tests: a plugin is plain Python, and needs neither Wasm nor a broker to be tried.

`decide` asks a policy, `gather` a context provider, `driver` calls a driver, each as a broker does: configurations
are read and checked first, and answers afterwards. `FakeHttp` (`jit_plugin.testing_http`) plays the server.
"""

from __future__ import annotations

import json
from typing import Any

from . import config as typed
from .context import Context, HttpContext, facts
from .driver import Account, AccountPage, AccountState, Calls, Description, HttpDriver, Issued, RotationStep
from .http import Http
from .policy import Allow, Deny, Policy
from .policy import decide as ask
from .request import Request
from .secret import Secret
from .testing_http import FakeHttp, Named, Reply, Sent, away, lost

__all__ = [
    "Called",
    "FakeHttp",
    "Reply",
    "Sent",
    "account",
    "away",
    "decide",
    "driver",
    "gather",
    "lost",
    "problems",
    "request",
    "secret",
]


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


def gather(
    context: type[Context] | type[HttpContext], config: dict[str, Any], request: Request, http: Http | None = None
) -> dict[str, str]:
    """Asks the context provider as a broker does. One that asks a server gets `http`."""
    found = problems(context, config)
    if found:
        raise typed.Problems(found)
    return dict(facts(context(), http, typed.parse(context.config_type(), json.dumps(config)), request))


def problems(
    plugin: type[Policy] | type[Context] | type[HttpContext], config: dict[str, Any]
) -> list[typed.Problem]:
    """What is wrong with a configuration of a policy or a context provider."""
    try:
        made = plugin()
        return typed.problem_list(made.validate, made.validate(typed.parse(plugin.config_type(), json.dumps(config))))
    except typed.Problems as error:
        return error.problems


def secret(name: str) -> Secret:
    """The password of a call. A request shows it as `<name>`."""
    return Secret(Named(name))


def account(name: str, **changes: Any) -> Account:
    """An account of `payment-service` that lives for an hour, but for the changes."""
    usual: dict[str, Any] = {
        "lease_id": "lease-1",
        "workload": "payment-service",
        "expires_at": 1_800_003_600,
        "external_id": None,
        "now": 1_800_000_000,
    }
    return Account(name, **{**usual, **changes})


class Called:
    """A driver on a server, with a target and its roles."""

    def __init__(self, calls: Calls, config: dict[str, Any], roles: dict[str, dict[str, Any]]):
        self._calls = calls
        self._target = ("target", json.dumps(config))
        self._roles = {name: (name, json.dumps(config)) for name, config in roles.items()}

    def describe(self) -> Description:
        return self._calls.describe()

    def validate(self) -> None:
        self._calls.validate(self._target, list(self._roles.values()))

    def create(self, role: str, account: Account, password: Secret) -> Issued:
        return self._calls.create(self._target, self._roles[role], account, password)

    def renew(self, role: str, account: Account) -> int:
        return self._calls.renew(self._target, self._roles[role], account)

    def rotate(self, account: Account, step: RotationStep, password: Secret | None) -> None:
        self._calls.rotate(self._target, account, step, password)

    def revoke(self, account: Account) -> None:
        self._calls.revoke(self._target, account)

    def inspect(self, name: str) -> AccountState:
        return self._calls.inspect(self._target, name)

    def list_accounts(self, prefix: str, cursor: str | None = None) -> AccountPage:
        return self._calls.list_accounts(self._target, prefix, cursor)

    def maintain(self) -> int:
        return self._calls.maintain(self._target)

    def place(self) -> dict[str, str]:
        return dict(self._calls.place(self._target))


def driver(
    driver: type[HttpDriver],
    http: Http,
    config: dict[str, Any] | None = None,
    roles: dict[str, dict[str, Any]] | None = None,
) -> Called:
    """The driver's verbs as a broker calls them, with a target of that configuration and its roles:
    `driver(MyDriver, http, roles={"reader": {…}}).revoke(account("v-a"))`."""
    return Called(Calls(driver(), http), config or {}, roles or {})
