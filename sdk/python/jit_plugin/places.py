"""Where an exception comes from: in the plugin's own files, not in the SDK's or the standard library's."""

from __future__ import annotations

import sys
from typing import Any

from .checks import WrongAnswer
from .errors import PluginError

# Modules that the plugin's author did not write.
_OTHERS = frozenset(sys.stdlib_module_names) | {"jit_plugin", "jit_plugin_entry", "wit_world"}
# The deepest call that is looked at, and the longest text that leaves room for the place within the host's limit.
_MOST_CALLS = 5000
_MOST_TEXT = 700


def _place(module: str, code: Any, line: int) -> str:
    parts = code.co_filename.split("/")
    deep = module.count(".") + (2 if parts[-1] == "__init__.py" and module else 1)
    return f"{'/'.join(parts[-deep:])}:{line} in {code.co_name}"


def _is_the_authors(module: str) -> bool:
    return module.partition(".")[0] not in _OTHERS and not module.startswith("componentize_py")


def calls(error: BaseException) -> list[tuple[bool, str]]:
    """The calls that led there, the outermost first: whether each is in the author's files, and its place."""
    # Not by `traceback`, which looks for the sources: in a component there are no files.
    found = []
    frame = error.__traceback__
    while frame is not None and len(found) < _MOST_CALLS:
        module = str(frame.tb_frame.f_globals.get("__name__", ""))
        place = _place(module, frame.tb_frame.f_code, frame.tb_lineno)
        found.append((_is_the_authors(module), place))
        frame = frame.tb_next
    return found


def blamed(error: BaseException) -> str | None:
    """The innermost place in the author's files; where there is none, the innermost of all."""
    if isinstance(error, WrongAnswer) and error.code is not None:
        return _place(error.module, error.code, error.code.co_firstlineno)
    places = calls(error)
    own = [place for is_own, place in places if is_own]
    if own:
        return own[-1]
    return places[-1][1] if places else None


def in_a_line(error: BaseException) -> str:
    """The exception with its place: `KeyError: 'x' (rule.py:12 in decide)`."""
    said, name = str(error), type(error).__name__
    words = f"{name}: {said}" if said and not isinstance(error, PluginError) else said or name
    words = words.encode("utf-8", "replace").decode()
    if len(words) > _MOST_TEXT:
        words = words[:_MOST_TEXT] + "…"
    place = blamed(error)
    return f"{words} ({place})" if place else words
