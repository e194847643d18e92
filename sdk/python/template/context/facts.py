"""The context provider my-facts: which team a workload belongs to, for policies to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Mapping

from jit_plugin import Context, Problem, Request, register_context


@dataclass
class Team:
    prefix: str
    """How the names of its workloads begin."""
    team: str
    """Its name."""


@dataclass
class Config:
    """`config = { teams = [{ prefix = "payment-", team = "payments" }] }`"""

    teams: list[Team]
    """The first whose prefix fits says the team."""


class MyFacts(Context[Config]):
    def validate(self, config: Config) -> Iterable[Problem]:
        for index, team in enumerate(config.teams):
            if not team.prefix:
                yield Problem(f"teams[{index}].prefix", "is empty, which fits every workload")

    def gather(self, config: Config, request: Request) -> Mapping[str, str]:
        for team in config.teams:
            if request.workload.startswith(team.prefix):
                return {"team": team.team}
        return {}


register_context(MyFacts)
