"""Write jit-broker policies in Python.

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

What a policy cannot do: it has no network, files, environment, clock or randomness. The time is
`Request.time`; what else it must know is in its configuration and in `Request.facts`.
"""

from . import log
from .config import Problem, Seconds
from .policy import Allow, Deny, Policy, Request, register_policy

__all__ = ["Allow", "Deny", "Policy", "Problem", "Request", "Seconds", "log", "register_policy"]
