"""The driver my-http-driver: accounts behind an HTTP API that keeps them at `users/NAME`.

A place to begin from: it speaks an API that any test server can play. The requests go to the connection's URL; its
token is a secret of the connection that the host puts into the header and this driver never sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable

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
    Secret,
    Target,
    register_driver,
)

TOKEN = "token"
"""The secret of the connection that is sent as a bearer token."""


@dataclass
class TargetConfig:
    """`[targets.T.config]`: nothing to say."""


@dataclass
class RoleConfig:
    """`[targets.T.roles.R]`"""

    group: str
    """The group that accounts become members of."""


def send(http: Http, method: str, path: list[str], **more: Any) -> Response:
    """Sends a request with the broker's token, and says what its answer means for the host."""
    headers = {"authorization": ["Bearer ", http.credential(TOKEN)]}
    response = http.send(method, path, headers=headers, **more)
    status = response.status
    if 200 <= status < 300:
        return response
    if status == 404:
        raise NotFound()
    if status == 409:
        raise Conflict("an account of that name exists")
    if status in (429, 503):
        # The server answered before it did anything.
        raise Retryable(f"the server answered {status}", response.retry_after_ms)
    if 400 <= status < 500:
        raise Refused(f"the server answered {status}")
    # It may have failed in the middle.
    raise OutcomeUnknown(f"the server answered {status}")


class MyHttpDriver(HttpDriver[TargetConfig, RoleConfig]):
    def describe(self) -> Description:
        features = [Feature.RENEW, Feature.BACKSTOP, Feature.INSPECT, Feature.LIST_ACCOUNTS]
        return Description(max_name_length=64, features=features)

    def validate(
        self, http: Http, target: Target[TargetConfig], roles: list[Role[RoleConfig]]
    ) -> Iterable[Problem]:
        for role in roles:
            if not role.config.group:
                yield Problem(f"roles.{role.name}.group", "is empty: name a group")

    def create(
        self,
        http: Http,
        target: Target[TargetConfig],
        role: Role[RoleConfig],
        account: Account,
        password: Secret,
    ) -> None:
        # A question first: while the server is away, nothing is then in doubt.
        try:
            send(http, "GET", ["users", account.name])
        except NotFound:
            pass
        else:
            raise Conflict("an account of that name exists")
        # The expiry is set in the same step: whatever happens to the broker, the account dies. The host puts the
        # password in its place.
        user = {
            "name": account.name,
            "group": role.config.group,
            "expires_at": account.expires_at,
            "password": password,
        }
        send(http, "POST", ["users"], json=user)

    def renew(
        self, http: Http, target: Target[TargetConfig], role: Role[RoleConfig], account: Account
    ) -> int:
        send(http, "PATCH", ["users", account.name], json={"expires_at": account.expires_at})
        return account.expires_at

    def revoke(self, http: Http, target: Target[TargetConfig], account: Account) -> None:
        try:
            send(http, "DELETE", ["users", account.name])
        except NotFound:
            pass

    def inspect(self, http: Http, target: Target[TargetConfig], name: str) -> AccountState:
        user = send(http, "GET", ["users", name]).json()
        return AccountState(can_login=user.get("enabled", True), expires_at=user.get("expires_at"))

    def list_accounts(
        self, http: Http, target: Target[TargetConfig], prefix: str, cursor: str | None
    ) -> AccountPage:
        query = {"prefix": prefix, "after": cursor or ""}
        page = send(http, "GET", ["users"], query=query).json()
        return AccountPage(names=page["names"], next=page.get("next"))


register_driver(MyHttpDriver)
