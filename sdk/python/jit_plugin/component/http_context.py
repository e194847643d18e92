"""The context provider that may ask a server as the contract's exports."""

from __future__ import annotations

from .gathering import exported
from .http import host

Context = exported(host)
