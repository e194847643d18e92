"""The driver for a backend behind an HTTP API as the contract's exports."""

from __future__ import annotations

from typing import Any, Callable

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import driver as wit
from wit_world.imports import secrets
from wit_world.imports import types as host_types

from .. import config as typed
from .. import errors
from ..driver import Account, Calls, RotationStep
from ..registered import the
from ..secret import Secret
from .common import tell, wire
from .http import host

_class = the("driver", "register_driver(MyDriver)")
_calls = Calls(_class(), host)
# In the snapshot that every call begins from, this is done already.
for _kind in _class.config_types():
    typed.prepare(_kind)
_description = _calls.describe()
# Name and version of the manifest; the entry sets them.
identity = ("", "")


def _error(error: BaseException) -> host_types.Error:
    # Half a surrogate pair would trap.
    reason = (str(error) or type(error).__name__).encode("utf-8", "replace").decode()
    match error:
        case errors.NotFound():
            return host_types.Error_NotFound()
        case errors.Refused():
            return host_types.Error_Refused(reason)
        case errors.Retryable():
            return host_types.Error_Retryable(host_types.Retry(reason, error.after_ms))
        case errors.OutcomeUnknown():
            return host_types.Error_OutcomeUnknown(reason)
        case errors.Dependents():
            return host_types.Error_Dependents(error.names)
        case errors.Conflict():
            return host_types.Error_Conflict(reason)
        case errors.InvalidConfig():
            return host_types.Error_InvalidConfig(wire(error.problems))
        case errors.PluginError():
            return host_types.Error_Other(reason)
        case _:
            return host_types.Error_Other(tell(error))


def _called(calling: Callable[[], Any]) -> Any:
    try:
        return calling()
    except BaseException as error:  # SystemExit too: ending the interpreter takes longer than a call may
        raise Err(_error(error)) from None


def _pair(table: wit.Target | wit.Role) -> tuple[str, str]:
    return table.name, table.config


def _account(account: wit.Account) -> Account:
    return Account(
        account.name, account.lease_id, account.workload, account.expires_at, account.external_id, account.now
    )


class Driver(exports.Driver):
    """What componentize-py looks for."""

    def describe(self) -> wit.Description:
        features = [feature.value for feature in _description.features]
        properties = list(_description.properties.items())
        return wit.Description(*identity, features, _description.max_name_length, properties)

    def validate(self, target: wit.Target, roles: list[wit.Role]) -> None:
        _called(lambda: _calls.validate(_pair(target), [_pair(role) for role in roles]))

    def create(self, target: wit.Target, role: wit.Role, account: wit.Account, password: secrets.Secret) -> wit.Issued:
        issued = _called(lambda: _calls.create(_pair(target), _pair(role), _account(account), Secret(password)))
        secret = None if issued.secret is None else issued.secret._handle
        properties = list(issued.properties.items())
        return wit.Issued(issued.username, secret, issued.external_id, issued.expires_at, properties)

    def renew(self, target: wit.Target, role: wit.Role, account: wit.Account) -> int:
        return _called(lambda: _calls.renew(_pair(target), _pair(role), _account(account)))

    def rotate(
        self, target: wit.Target, account: wit.Account, step: wit.RotationStep, password: secrets.Secret | None
    ) -> None:
        secret = None if password is None else Secret(password)
        _called(lambda: _calls.rotate(_pair(target), _account(account), RotationStep(step.value), secret))

    def revoke(self, target: wit.Target, account: wit.Account) -> None:
        _called(lambda: _calls.revoke(_pair(target), _account(account)))

    def inspect(self, target: wit.Target, name: str) -> wit.AccountState:
        state = _called(lambda: _calls.inspect(_pair(target), name))
        return wit.AccountState(state.can_login, state.expires_at, list(state.properties.items()))

    def list_accounts(self, target: wit.Target, prefix: str, cursor: str | None) -> wit.AccountPage:
        page = _called(lambda: _calls.list_accounts(_pair(target), prefix, cursor))
        return wit.AccountPage(list(page.names), page.next)

    def maintain(self, target: wit.Target) -> int:
        return _called(lambda: _calls.maintain(_pair(target)))

    def place(self, target: wit.Target) -> list[tuple[str, str]]:
        return _called(lambda: _calls.place(_pair(target)))
