"""Policies: pure functions of a configuration and a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Iterable, Mapping, TypeVar

from .checks import WrongAnswer, optional_text, pairs, text, texts
from .config import Problem
from .registered import in_brackets, register
from .request import Request

C = TypeVar("C")


@dataclass(frozen=True)
class Allow:
    """A yes, with its conditions."""

    reason: str = ""
    """Why, for the audit log."""
    max_ttl_seconds: int | None = None
    """The lease lives at most so long."""
    role: str | None = None
    """This role of the same target instead of the one asked for."""
    requires: tuple[str, ...] | list[str] = ()
    """What the request must have: `reason`, `ticket`, `approval`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels for the audit record."""

    def __post_init__(self) -> None:
        cap = self.max_ttl_seconds
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
            raise ValueError(f"max_ttl_seconds is {cap!r}: it is a whole number of seconds, at least 1")
        text("reason", self.reason)
        optional_text("role", self.role)
        texts("requires", self.requires)
        pairs("labels", self.labels)


@dataclass(frozen=True)
class Deny:
    """A no. The caller reads the reason: say what would help."""

    reason: str

    def __post_init__(self) -> None:
        text("reason", self.reason)


class Policy(Generic[C]):
    """Decides who may have what: `class MyRule(Policy[Config])`.

    The same configuration and request must give the same answer always: a decision is replayed from
    the audit record. An exception denies, with the exception's text and place in the host's log.
    Do not iterate over a `set` of texts where the order matters: it is fixed in a component, but another
    build may have another one. Use `sorted`.
    """

    operations: tuple[str, ...] = ("issue", "renew")
    """The operations that the policy knows. `decide` is asked about these; every other operation is denied, so
    that a later broker's new operation is not allowed by a rule that was written before it."""

    def validate(self, config: C) -> Iterable[Problem]:
        """Mistakes that the type cannot express. Called at load, before any decision."""
        return ()

    def windows(self, config: C) -> Iterable[int] | None:
        """The windows, in seconds, in which the host shall count requests for `request.usage`: at most eight,
        each at most 31 days. With an empty list, live leases alone are counted; with `None`, nothing."""
        return None

    def decide(self, config: C, request: Request) -> Allow | Deny:
        """Decides."""
        raise NotImplementedError

    @classmethod
    def config_type(cls) -> type:
        """What stands in the brackets of `Policy[…]`."""
        return in_brackets(cls, Policy, "Policy[Config]")[0]


def decide(policy: Policy[C], config: C, request: Request) -> Allow | Deny:
    """Asks a policy as the host does: about the operations that it knows."""
    if request.operation not in policy.operations:
        return Deny(f"this policy does not know the operation {request.operation!a}, and denies what it does not know")
    answer = policy.decide(config, request)
    if not isinstance(answer, (Allow, Deny)):
        raise WrongAnswer(policy.decide, f"must return Allow or Deny, not {type(answer).__name__}")
    return answer


def register_policy(policy: type[Policy]) -> type[Policy]:
    """Makes the class the policy of this plugin. Once, at the end of the module."""
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise TypeError(f"{policy!r} is no policy: derive it from Policy")
    policy.config_type()
    register(policy, "policy", Policy, ("decide",))
    return policy
