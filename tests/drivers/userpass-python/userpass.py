"""A driver for the userpass accounts of Vault and OpenBao: an example of a driver in Python.

An account is a user of an auth mount. Its tokens are its sessions. The server has no expiry for a user, so the broker
alone removes it; no token outlives the lease that was known when the account was made.
"""

from dataclasses import dataclass
from typing import Any, Iterable, Iterator

from jit_plugin import (
    Account,
    AccountPage,
    AccountState,
    Conflict,
    Description,
    Feature,
    Http,
    HttpDriver,
    NotFound,
    OutcomeUnknown,
    Problem,
    Refused,
    Response,
    Retryable,
    Role,
    RotationStep,
    Secret,
    Target,
    register_driver,
)

PAGE = 100
"""Names on one page: the server gives all of them at once."""


@dataclass
class TargetConfig:
    """`config = { mount = "userpass" }`"""

    mount: str
    """The path of the auth mount."""


@dataclass
class RoleConfig:
    """`roles.reader = { policies = ["app-read"] }`"""

    policies: list[str]
    """Policies of the server that the account's tokens get."""


def ask(http: Http, method: str, *path: str, **more: Any) -> Response:
    """A request with the broker's token. What is no success is raised."""
    headers = {"x-vault-token": http.credential("token"), "x-vault-request": "true"}
    response = http.send(method, ["v1", *path], headers=headers, **more)
    status = response.status
    if 200 <= status < 300:
        return response
    told = f"{method} {'/'.join(path[:2])}: status {status}"
    if status == 404:
        raise NotFound()
    if status in (429, 503):
        raise Retryable(told, response.retry_after_ms)
    if 400 <= status < 500:
        raise Refused(f"{told}: {reasons(response)}")
    raise OutcomeUnknown(told)


def reasons(response: Response) -> str:
    """The server's own words."""
    errors = response.json().get("errors") or ["no reason"]
    return "; ".join(str(error).strip() for error in errors)[:300]


def user(target: Target[TargetConfig], name: str) -> list[str]:
    return ["auth", target.config.mount, "users", name]


def end_sessions(http: Http, target: Target[TargetConfig], name: str) -> None:
    """Revokes the tokens of every login of that user."""
    ask(http, "PUT", "sys", "leases", "revoke-prefix", "auth", target.config.mount, "login", name, json={})


def wrong_policies(http: Http, role: RoleConfig) -> Iterator[tuple[int | None, str]]:
    """What is wrong with a role: the server itself takes any name, and gives nothing for it."""
    if not role.policies:
        yield None, "is empty: name a policy of the server"
    for index, policy in enumerate(role.policies):
        try:
            if policy == "root":
                yield index, "is root, which may do everything"
            else:
                ask(http, "GET", "sys", "policies", "acl", policy)
        except NotFound:
            yield index, f"there is no policy {policy} at the server"


class Userpass(HttpDriver[TargetConfig, RoleConfig]):
    def describe(self) -> Description:
        features = [Feature.RENEW, Feature.ROTATE, Feature.INSPECT, Feature.LIST_ACCOUNTS]
        return Description(max_name_length=64, features=features, properties={"own-errors": "/errors"})

    def validate(self, http: Http, target: Target[TargetConfig], roles: list[Role[RoleConfig]]) -> Iterable[Problem]:
        try:
            ask(http, "GET", "auth", target.config.mount, "users", query={"list": "true"})
        except NotFound:
            # Nobody yet. A mount that is not there is told as such by the first account.
            pass
        for role in roles:
            for index, wrong in wrong_policies(http, role.config):
                path = f"roles.{role.name}.policies"
                yield Problem(path if index is None else f"{path}[{index}]", wrong)

    def create(
        self, http: Http, target: Target[TargetConfig], role: Role[RoleConfig], account: Account, password: Secret
    ) -> None:
        for _, wrong in wrong_policies(http, role.config):
            raise Refused(f"role {role.name}: {wrong}")
        # The server would change a user that is there.
        try:
            ask(http, "GET", *user(target, account.name))
        except NotFound:
            pass
        else:
            raise Conflict(f"the user {account.name} exists")
        settings = {
            "password": password,
            "token_policies": role.config.policies,
            "token_no_default_policy": True,
            "token_explicit_max_ttl": max(1, account.expires_at - account.now),
        }
        ask(http, "POST", *user(target, account.name), json=settings)

    def renew(self, http: Http, target: Target[TargetConfig], role: Role[RoleConfig], account: Account) -> int:
        ask(http, "GET", *user(target, account.name))
        longest = max(1, account.expires_at - account.now)
        ask(http, "POST", *user(target, account.name), json={"token_explicit_max_ttl": longest})
        return account.expires_at

    def rotate(
        self, http: Http, target: Target[TargetConfig], account: Account, step: RotationStep, password: Secret | None
    ) -> None:
        if step not in (RotationStep.STAGE, RotationStep.REPLACE):
            return
        ask(http, "GET", *user(target, account.name))
        ask(http, "POST", *user(target, account.name), "password", json={"password": password})
        if step is RotationStep.REPLACE:
            end_sessions(http, target, account.name)

    def revoke(self, http: Http, target: Target[TargetConfig], account: Account) -> None:
        # First the login, then what was logged in: nobody comes back in between.
        ask(http, "DELETE", *user(target, account.name))
        end_sessions(http, target, account.name)

    def inspect(self, http: Http, target: Target[TargetConfig], name: str) -> AccountState:
        # The server takes names in any case for the same user.
        if name != name.lower():
            raise NotFound()
        ask(http, "GET", *user(target, name))
        return AccountState(can_login=True)

    def list_accounts(
        self, http: Http, target: Target[TargetConfig], prefix: str, cursor: str | None
    ) -> AccountPage:
        try:
            answer = ask(http, "GET", "auth", target.config.mount, "users", query={"list": "true"}).json()
        except NotFound:
            return AccountPage([])
        names = sorted(name for name in answer["data"]["keys"] if name.startswith(prefix) and name > (cursor or ""))
        return AccountPage(names[:PAGE], next=names[PAGE - 1] if len(names) > PAGE else None)

    def place(self, http: Http, target: Target[TargetConfig]) -> dict[str, str]:
        health = http.send("GET", ["v1", "sys", "health"], query={"standbyok": "true", "perfstandbyok": "true"})
        if health.status != 200:
            raise Retryable(f"GET sys/health: status {health.status}")
        cluster = health.json().get("cluster_id")
        return {"mount": target.config.mount, **({"server": cluster} if cluster else {})}


register_driver(Userpass)
