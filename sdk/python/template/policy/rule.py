"""The policy my-rule: a workload gets only what is of its own environment, and not for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable

from jit_plugin import Allow, Deny, Policy, Problem, Request, Seconds, log, register_policy


@dataclass
class Config:
    """`config = { environments = ["prod"], max_ttl = "30m" }`"""

    environments: list[str]
    max_ttl: Seconds = Seconds(3600)
    need_ticket: list[str] = field(default_factory=list)
    """Roles that are given only with a ticket."""


class MyRule(Policy[Config]):
    def validate(self, config: Config) -> Iterable[Problem]:
        if not config.environments:
            yield Problem("environments", 'is empty, so nobody would get anything: name one, such as "prod"')

    def decide(self, config: Config, request: Request) -> Allow | Deny:
        environment = request.attributes.get("env")
        if environment not in config.environments:
            return Deny(f"only workloads of {', '.join(config.environments)}; {request.workload} is of {environment or 'none'}")
        log.debug("allowed", workload=request.workload, environment=environment)
        return Allow(
            reason=f"of {environment}",
            max_ttl_seconds=config.max_ttl,
            requires=["ticket"] if request.role in config.need_ticket else [],
            labels={"environment": environment},
        )


register_policy(MyRule)
