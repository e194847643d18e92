"""The request that a policy is asked about.

Each field is fetched from the host when it is first read. The host notes what was read: it stands in the audit
record, so read what the decision depends on and no more.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping

SCOPES = ("workload", "workload_target", "target")


class Pairs(Mapping[str, str]):
    """Names and values. `get`, `[…]` and `in` read one name; whatever needs all names reads the whole."""

    def __init__(self, one: Callable[[str], str | None], whole: Callable[[], list[tuple[str, str]]]):
        self._one, self._fetch = one, whole
        self._known: dict[str, str | None] = {}
        self._whole: dict[str, str] | None = None

    def _find(self, name: object) -> str | None:
        if self._whole is not None:
            return self._whole.get(name)  # type: ignore[call-overload]
        if not isinstance(name, str) or not _is_utf8(name):
            return None
        if name not in self._known:
            self._known[name] = self._one(name)
        return self._known[name]

    def _all(self) -> dict[str, str]:
        if self._whole is None:
            self._whole = dict(self._fetch())
        return self._whole

    def get(self, name: str, default: Any = None) -> Any:
        value = self._find(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> str:
        value = self._find(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"Pairs({self._all()!r})"


def _is_utf8(text: str) -> bool:
    """Half a surrogate pair is no text of the contract's, and would trap."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Request:
    """What is asked, by whom, and what is known. The contract is `wit/request.wit`.

    `jit_plugin.testing.request` makes one for a native test.
    """

    def __init__(self, source: Any):
        self._source = source
        self._read: dict[str, Any] = {}
        self.attributes: Mapping[str, str] = Pairs(source.attribute, source.attributes)
        """Attributes of the identity, by configuration (`k8s_namespace`, `env`, …)."""
        self.metadata: Mapping[str, str] = Pairs(source.metadata, source.all_metadata)
        """The caller's own words: claims of the caller, not of its identity."""
        self.facts: Mapping[str, str] = Pairs(source.fact, source.facts)
        """Usage counts of the host and facts of context providers, by name."""
        self.resource: Mapping[str, str] = Pairs(source.resource, source.whole_resource)
        """What the operation is about: `lease` of a renewal."""

    def _get(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = getattr(self._source, name)()
        return self._read[name]

    @property
    def operation(self) -> str:
        """`issue`, `renew`, or what the policy's `operations` add."""
        return self._get("operation")

    @property
    def time(self) -> int:
        """Seconds since the Unix epoch, UTC. A policy has no clock: this is the time."""
        return self._get("time")

    @property
    def workload(self) -> str:
        """The verified workload."""
        return self._get("workload")

    @property
    def issuer(self) -> str:
        """The configured name of the issuer that vouches for it."""
        return self._get("issuer")

    @property
    def target(self) -> str:
        """The target's name."""
        return self._get("target")

    @property
    def role(self) -> str:
        """The role that is asked for."""
        return self._get("role")

    @property
    def ttl_seconds(self) -> int:
        """How long the lease shall live."""
        return self._get("ttl_seconds")

    @property
    def reason(self) -> str | None:
        """The caller's reason."""
        return self._get("reason")

    @property
    def ticket(self) -> str | None:
        """The caller's ticket."""
        return self._get("ticket")

    @property
    def caller_address(self) -> str | None:
        """The caller's IP address as the broker's listener sees it; behind a proxy, the proxy's."""
        return self._get("caller_address")

    @property
    def usage(self) -> Usage:
        """What the host counted, for a policy with `windows`."""
        return Usage(self.facts)


class Uncounted(ValueError):
    """A count that the host did not give. Left alone, it denies."""


class Usage:
    """What the host counted, the request itself included. A scope is `workload`, `workload_target` or `target`."""

    def __init__(self, facts: Mapping[str, str]):
        self._facts = facts

    def requests(self, scope: str, window: int) -> int:
        """The requests in the last `window` seconds, which must be among the policy's `windows`."""
        return self._count(scope, f"requests.{int(window)}")

    def leases(self, scope: str) -> int:
        """The live leases."""
        return self._count(scope, "leases")

    def _count(self, scope: str, what: str) -> int:
        if scope not in SCOPES:
            raise ValueError(f"there is no scope {scope!r}: write one of {', '.join(SCOPES)}")
        fact = f"usage.{scope}.{what}"
        text = self._facts.get(fact)
        if text is None:
            raise Uncounted(f"the host gave no count {fact}")
        if not (text.isascii() and text.isdigit()):
            raise Uncounted(f"the host's count {fact} is {text!r}, which is no number")
        return int(text)
