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
`Request.time`; what else it must know is in its configuration, in `Request.facts` and, for a policy with
`windows`, in `Request.usage`.
"""

from . import log
from .config import Problem, Seconds
from .policy import Allow, Deny, Policy, register_policy
from .request import Request, Uncounted

__all__ = ["Allow", "Deny", "Policy", "Problem", "Request", "Seconds", "Uncounted", "log", "register_policy"]
