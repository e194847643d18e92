"""Drivers: they make, change and remove accounts in one kind of backend.

Every verb is idempotent by the account's name, which the host chose before the call, and may be cut off at any point
and called again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Generic, Iterable, Mapping, TypeVar

from . import config as typed
from .checks import an, answering, optional_text, optional_whole, pairs, texts, truth, whole
from .config import Problem, problem_list
from .errors import Failed, InvalidConfig
from .http import Http
from .registered import in_brackets, register
from .secret import Secret

T = TypeVar("T")
R = TypeVar("R")


class Feature(str, enum.Enum):
    """What a driver can do beyond creating and revoking. A host calls nothing that is not named."""

    RENEW = "renew"
    """`renew` moves an account's expiry in the backend."""
    ROTATE = "rotate"
    """`rotate` changes an account's password."""
    OVERLAP = "overlap"
    """After a rotation the previous password stays valid until it is discarded."""
    BACKSTOP = "backstop"
    """The backend lets an account expire by itself."""
    INSPECT = "inspect"
    """`inspect` reads an account's state."""
    LIST_ACCOUNTS = "list-accounts"
    """`list_accounts` lists accounts by prefix: the target can be reconciled."""
    EXTERNAL_ACCOUNTS = "external-accounts"
    """The backend chooses the account's name and secret."""
    STANDING_ACCOUNTS = "standing-accounts"
    """What is handed out stands before and after its lease: revocation cannot take it back."""
    MAINTAIN = "maintain"
    """`maintain` has something to do between calls."""


class RotationStep(enum.Enum):
    """The steps of a change of password, as the contract has them (wit/driver.wit)."""

    STAGE = 0
    """The new password holds; with the feature `overlap`, so does the old one."""
    COMMIT = 1
    """Everybody has the new one."""
    DISCARD = 2
    """The old one is no longer taken, and the sessions that it opened end."""
    REPLACE = 3
    """Somebody else has changed the account: this password is its only one from now on."""


@dataclass(frozen=True)
class Description:
    """What the driver can do. Its name and version are those of the manifest."""

    max_name_length: int
    """The longest account name that the backend takes, in bytes."""
    features: Iterable[Feature] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    """`harmless-posts`, `own-errors` and others: see wit/driver.wit."""

    def __post_init__(self) -> None:
        whole("max_name_length", self.max_name_length, 1, 4096)
        pairs("properties", self.properties)
        features = tuple(self.features)
        for feature in features:
            if not isinstance(feature, Feature):
                raise TypeError(f"features must be a list of Feature, and {feature!r} is none")
        object.__setattr__(self, "features", features)


@dataclass(frozen=True)
class Target(Generic[T]):
    """A configured target."""

    name: str
    config: T


@dataclass(frozen=True)
class Role(Generic[R]):
    """A role of a target."""

    name: str
    config: R


@dataclass(frozen=True)
class Account:
    """An account of a lease."""

    name: str
    lease_id: str
    workload: str
    expires_at: int
    """Seconds since the Unix epoch: what the backend's own expiry is set to."""
    external_id: str | None
    """What `create` returned as the backend's own handle."""
    now: int
    """Seconds since the Unix epoch when the host made the call: a driver has no clock."""


@dataclass(frozen=True)
class Issued:
    """What creation gave. All fields are for backends that choose something themselves."""

    username: str | None = None
    secret: Secret | None = None
    """A secret that an answer withheld."""
    external_id: str | None = None
    """The backend's own handle for renewal and revocation."""
    expires_at: int | None = None
    """Where the backend capped the life: seconds since the Unix epoch."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Shown to the caller beside the connection."""

    def __post_init__(self) -> None:
        optional_text("username", self.username)
        optional_text("external_id", self.external_id)
        optional_whole("expires_at", self.expires_at)
        pairs("properties", self.properties)
        if self.secret is not None and not isinstance(self.secret, Secret):
            raise TypeError(f"secret must be a Secret that an answer withheld, not {type(self.secret).__name__}")
        if self.secret is not None and not self.secret._is_owned:
            raise ValueError("secret is the password that the host gave: leave it out, the host knows it")


@dataclass(frozen=True)
class AccountState:
    """What the backend says of an account."""

    can_login: bool
    expires_at: int | None = None
    """The backend's own expiry, seconds since the Unix epoch."""
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        truth("can_login", self.can_login)
        optional_whole("expires_at", self.expires_at)
        pairs("properties", self.properties)


@dataclass(frozen=True)
class AccountPage:
    """Names of accounts."""

    names: list[str]
    next: str | None = None
    """Given to the next call; None at the end."""

    def __post_init__(self) -> None:
        texts("names", self.names)
        optional_text("next", self.next)


class HttpDriver(Generic[T, R]):
    """A driver for a backend behind an HTTP API: `class MyDriver(HttpDriver[TargetConfig, RoleConfig])`.

    The two types are those of the target's `config` table and of a role's table. Each call has a fresh instance: what
    must outlive one is kept by the host (`http.keep`) or stands at the backend. Raise what `jit_plugin.errors` has.
    """

    def describe(self) -> Description:
        """What the driver can do. Called while the component is built, and at load."""
        raise NotImplementedError

    def validate(self, http: Http, target: Target[T], roles: list[Role[R]]) -> Iterable[Problem]:
        """Mistakes that the types cannot express; with the connection it can look whether what they name exists.
        The path of a role's mistake is `roles.NAME.KEY`."""
        return ()

    def create(self, http: Http, target: Target[T], role: Role[R], account: Account, password: Secret) -> Issued | None:
        """Makes the account, able to log in, with its expiry set in the same step where the backend can. `Conflict`
        when the name exists."""
        raise NotImplementedError

    def renew(self, http: Http, target: Target[T], role: Role[R], account: Account) -> int:
        """Moves the backend's expiry to `account.expires_at`; returns the expiry that the backend set. `NotFound`
        when the account is not there."""
        raise Failed("this driver does not renew")

    def rotate(
        self, http: Http, target: Target[T], account: Account, step: RotationStep, password: Secret | None
    ) -> None:
        """Changes the account's password, in steps where the backend keeps the old one valid."""
        raise Failed("this driver does not rotate")

    def revoke(self, http: Http, target: Target[T], account: Account) -> None:
        """Disables the login first, ends the sessions, keeps the data, removes the account. Success when it is not
        there."""
        raise NotImplementedError

    def inspect(self, http: Http, target: Target[T], name: str) -> AccountState:
        """What the backend says of an account. `NotFound` when it is not there."""
        raise Failed("this driver does not inspect")

    def list_accounts(self, http: Http, target: Target[T], prefix: str, cursor: str | None) -> AccountPage:
        """Names that begin with the prefix, in a stable order, a page at a time."""
        raise Failed("this driver does not list accounts")

    def maintain(self, http: Http, target: Target[T]) -> int:
        """With `Feature.MAINTAIN`: does what has to be done between calls, and returns after how many seconds again."""
        raise Failed("this driver has nothing to maintain")

    def place(self, http: Http, target: Target[T]) -> Mapping[str, str]:
        """Where the target's accounts are: `server`, the server's own identity, and what says where in it. The host
        removes an account in no other place than the one where it was made. Without `server` it is the connection's
        host and port; a name that is a key of `config` makes that key part of the place."""
        return {}

    @classmethod
    def config_types(cls) -> tuple[type, type]:
        """What stands in the brackets: the types of a target's and of a role's configuration."""
        target, role = in_brackets(cls, HttpDriver, "HttpDriver[TargetConfig, RoleConfig]")
        return target, role


def register_driver(driver: type[HttpDriver]) -> type[HttpDriver]:
    """Makes the class the driver of this plugin. Once, at the end of the module."""
    if not (isinstance(driver, type) and issubclass(driver, HttpDriver)):
        raise TypeError(f"{driver!r} is no driver: derive it from HttpDriver")
    driver.config_types()
    register(driver, "driver", HttpDriver, ("describe", "create", "revoke"))
    return driver


class Calls:
    """The driver as the host calls it: configurations are JSON, and every answer is checked."""

    def __init__(self, driver: HttpDriver, http: Http):
        self._driver, self._http = driver, http
        self._target_type, self._role_type = driver.config_types()

    def _target(self, name: str, config: str) -> Target:
        return Target(name, self._typed(self._target_type, config, ""))

    def _role(self, name: str, config: str) -> Role:
        return Role(name, self._typed(self._role_type, config, f"roles.{name}"))

    @staticmethod
    def _typed(kind: type, config: str, within: str) -> Any:
        try:
            return typed.parse(kind, config)
        except typed.Problems as error:
            raise InvalidConfig([_within(within, problem) for problem in error.problems]) from None

    def describe(self) -> Description:
        return an(Description, self._driver.describe, self._driver.describe())

    def validate(self, target: tuple[str, str], roles: list[tuple[str, str]]) -> None:
        # Everything that is wrong with any of them: an operator mends all of it in one go.
        problems: list[Problem] = []
        made: list[Any] = []
        for make, given in [(self._target, target)] + [(self._role, role) for role in roles]:
            try:
                made.append(make(*given))
            except InvalidConfig as error:
                problems += error.problems
        if not problems:
            problems = problem_list(self._driver.validate, self._driver.validate(self._http, made[0], made[1:]))
        if problems:
            raise InvalidConfig(problems)

    def create(self, target: tuple[str, str], role: tuple[str, str], account: Account, password: Secret) -> Issued:
        issued = self._driver.create(self._http, self._target(*target), self._role(*role), account, password)
        return Issued() if issued is None else an(Issued, self._driver.create, issued)

    def renew(self, target: tuple[str, str], role: tuple[str, str], account: Account) -> int:
        expiry = self._driver.renew(self._http, self._target(*target), self._role(*role), account)
        with answering(self._driver.renew):
            return whole("the expiry", expiry)

    def rotate(self, target: tuple[str, str], account: Account, step: RotationStep, password: Secret | None) -> None:
        self._driver.rotate(self._http, self._target(*target), account, step, password)

    def revoke(self, target: tuple[str, str], account: Account) -> None:
        self._driver.revoke(self._http, self._target(*target), account)

    def inspect(self, target: tuple[str, str], name: str) -> AccountState:
        return an(AccountState, self._driver.inspect, self._driver.inspect(self._http, self._target(*target), name))

    def list_accounts(self, target: tuple[str, str], prefix: str, cursor: str | None) -> AccountPage:
        page = self._driver.list_accounts(self._http, self._target(*target), prefix, cursor)
        return an(AccountPage, self._driver.list_accounts, page)

    def maintain(self, target: tuple[str, str]) -> int:
        seconds = self._driver.maintain(self._http, self._target(*target))
        with answering(self._driver.maintain):
            return whole("the number of seconds", seconds)

    def place(self, target: tuple[str, str]) -> list[tuple[str, str]]:
        told = self._driver.place(self._http, self._target(*target))
        with answering(self._driver.place):
            return pairs("the place", told)


def _within(place: str, problem: Problem) -> Problem:
    path = f"{place}.{problem.path}" if place and problem.path else place or problem.path
    return Problem(path, problem.message)
