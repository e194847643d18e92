"""Write plugins for jit-broker in Python.

A policy is a class with typed configuration and one function::

    from dataclasses import dataclass
    from jit_plugin import Allow, Deny, Policy, Request, register_policy

    @dataclass
    class Config:
        environment: str

    class OneEnvironment(Policy[Config]):
        def decide(self, config: Config, request: Request) -> Allow | Deny:
            if request.attributes.get("env") == config.environment:
                return Allow()
            return Deny(f"only workloads of env={config.environment}")

    register_policy(OneEnvironment)

It is plain Python: `python3 -m unittest` tests it without Wasm (`jit_plugin.testing`), and
`jit-broker plugin build` makes the component that a broker loads.

A context provider is a `Context` with a function `gather`, which returns facts for policies to judge; one that asks a
server is an `HttpContext`. A driver for a backend behind an HTTP API is an `HttpDriver`.

What a plugin cannot do: it has no network, files, environment, clock or randomness of its own. A policy has the time
as `Request.time`; what else it must know is in its configuration, in `Request.facts` and, with `windows`, in
`Request.usage`. A driver has the time as `Account.now`, and its requests (`jit_plugin.http`) are made by the host.
"""

from . import encode, log
from .config import Problem, Seconds
from .context import Context, HttpContext, register_context
from .driver import (
    Account,
    AccountPage,
    AccountState,
    Description,
    Feature,
    HttpDriver,
    Issued,
    Role,
    RotationStep,
    Target,
    register_driver,
)
from .errors import (
    Conflict,
    Dependents,
    Failed,
    InvalidConfig,
    NotFound,
    OutcomeUnknown,
    PluginError,
    Refused,
    Retryable,
    invalid_config,
)
from .http import Http, Response
from .policy import Allow, Deny, Policy, register_policy
from .request import Request, Uncounted
from .secret import Secret

__all__ = [
    "Account",
    "AccountPage",
    "AccountState",
    "Allow",
    "Conflict",
    "Context",
    "Deny",
    "Dependents",
    "Description",
    "Failed",
    "Feature",
    "Http",
    "HttpContext",
    "HttpDriver",
    "InvalidConfig",
    "Issued",
    "NotFound",
    "OutcomeUnknown",
    "PluginError",
    "Policy",
    "Problem",
    "Refused",
    "Request",
    "Response",
    "Retryable",
    "Role",
    "RotationStep",
    "Seconds",
    "Secret",
    "Target",
    "Uncounted",
    "encode",
    "invalid_config",
    "log",
    "register_context",
    "register_driver",
    "register_policy",
]
