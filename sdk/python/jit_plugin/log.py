"""The host's log. Each line carries the plugin's name; the host bounds how many there are.

Native tests have no host: `records` is where they find what was written.
"""

from __future__ import annotations

from typing import Any, Callable

LEVELS = ("error", "warn", "info", "debug")
# Of native tests: (level, message, fields).
records: list[tuple[str, str, dict[str, str]]] = []
_MOST_RECORDS = 1000


def _keep(level: str, message: str, fields: dict[str, str]) -> None:
    if len(records) < _MOST_RECORDS:
        records.append((level, message, fields))


# Replaced by `component.py`, which alone can import the host's function.
_sink: Callable[[str, str, dict[str, str]], None] = _keep


def _write(level: str, message: str, fields: dict[str, Any]) -> None:
    _sink(level, str(message), {name: str(value) for name, value in fields.items()})


def error(message: str, **fields: Any) -> None:
    """What an operator must look at."""
    _write("error", message, fields)


def warn(message: str, **fields: Any) -> None:
    """What an operator should know."""
    _write("warn", message, fields)


def info(message: str, **fields: Any) -> None:
    """What is of interest now and then."""
    _write("info", message, fields)


def debug(message: str, **fields: Any) -> None:
    """What helps to find a mistake."""
    _write("debug", message, fields)
