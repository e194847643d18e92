"""What can go wrong, by what the host has to do about it.

A driver raises one of these; every other exception is a mistake of the driver, and the host then decides by what was
sent to the backend. Operators read the texts, and callers that of `Refused`: never put a secret into one.
"""

from __future__ import annotations

from .checks import optional_whole, text, texts
from .config import Problem


class PluginError(Exception):
    """What a plugin says on purpose."""


class NotFound(PluginError):
    """The account, role or group does not exist. Success when revoking."""


class Refused(PluginError):
    """The backend said no, and nothing was done."""


class Retryable(PluginError):
    """Nothing was done, and the same call may work later: after so many milliseconds, where the backend says when."""

    def __init__(self, reason: str, after_ms: int | None = None):
        super().__init__(reason)
        self.after_ms = optional_whole("after_ms", after_ms)


class OutcomeUnknown(PluginError):
    """The call may or may not have taken effect."""


class Dependents(PluginError):
    """The account cannot go while these things depend on it."""

    def __init__(self, names: list[str]):
        self.names = texts("names", names)
        super().__init__(", ".join(self.names))


class Conflict(PluginError):
    """Something of that name exists already."""


class InvalidConfig(PluginError):
    """The configuration of the target or of a role is wrong: everything that is wrong with it."""

    def __init__(self, problems: list[Problem]):
        self.problems = list(problems)
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in self.problems))


class Failed(PluginError):
    """Anything else."""


def invalid_config(path: str, message: str) -> InvalidConfig:
    """One mistake: `raise invalid_config("roles.reader.group", "is empty: name a group")`."""
    return InvalidConfig([Problem(text("path", path), text("message", message))])
