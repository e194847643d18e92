"""What a plugin does not have, told by name. Only within a component, and imported before the plugin.

Without it, a clock would be a trap without a word, and `random` would give the numbers of the moment at which
the component was built: a mistake that nobody sees.
"""

from __future__ import annotations

import os
import random
import time


def _absent(what: str, instead: str):
    def refuse(*_values, **_named):
        raise RuntimeError(f"a plugin has no {what}: {instead}")

    return refuse


_no_clock = _absent("clock", "use request.time, in a driver account.now")
_no_chance = _absent("randomness", "the same call must give the same answer")

for _name in (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "process_time",
    "process_time_ns",
    "sleep",
):
    setattr(time, _name, _no_clock)
# A generator that is given its seed stays: `random.Random(7)` is the same everywhere.
for _name in random.__all__:
    if _name[0].islower():
        setattr(random, _name, _no_chance)
os.urandom = random._urandom = _no_chance
