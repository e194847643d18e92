"""The one plugin of a component."""

from __future__ import annotations

import typing
from typing import Any

# The class, and the word of its kind.
plugins: list[tuple[type, str]] = []


def register(plugin: type, kind: str, base: type, functions: tuple[str, ...]) -> None:
    """Makes the class the plugin of this component, if it has those functions of its base. Again is no mistake: tests
    import modules twice."""
    missing = [name for name in functions if getattr(plugin, name) is getattr(base, name)]
    if missing:
        raise TypeError(f"{plugin.__name__} has no {' and no '.join(missing)}")
    if plugins and (plugins[0][0].__qualname__, plugins[0][1]) != (plugin.__qualname__, kind):
        other, its_kind = plugins[0]
        raise TypeError(f"a component is one plugin, and the {its_kind} {other.__name__} is registered already")
    plugins[:] = [(plugin, kind)]


def the(kind: str, how: str) -> type:
    """The registered class, which is of that kind."""
    if not plugins:
        raise TypeError(f"the module registers no {kind}: end it with {how}")
    plugin, is_kind = plugins[0]
    if is_kind != kind:
        raise TypeError(f"{plugin.__name__} is a {is_kind}, and the manifest says that it is a {kind}")
    return plugin


def in_brackets(plugin: type, base: type, example: str) -> tuple[type, ...]:
    """The types in the brackets of the base: of `class MyRule(Policy[Config])` the `Config`."""
    for ancestor in plugin.__mro__:
        for written in getattr(ancestor, "__orig_bases__", ()):
            origin = typing.get_origin(written)
            if not (isinstance(origin, type) and issubclass(origin, base)):
                continue
            found: tuple[Any, ...] = typing.get_args(written)
            if all(isinstance(kind, type) for kind in found):
                return found
    raise TypeError(f"say what its configuration is: class {plugin.__name__}({example})")
