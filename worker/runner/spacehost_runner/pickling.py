"""Finds the part of a value that cannot be pickled, such as `self.lock`. spaces pickles arguments and results of GPU functions."""
from __future__ import annotations

import time
from typing import Any

MAX_TRIALS = 300
MAX_DEPTH = 8
MAX_SECONDS = 2.0
MAX_NAME = 200


class Search:
    """One bounded search. It tries to pickle the parts of a value that failed, as spaces would."""

    def __init__(self) -> None:
        from multiprocessing.reduction import ForkingPickler

        self.dumps, self.trials, self.until = ForkingPickler.dumps, 0, time.monotonic() + MAX_SECONDS

    def fails(self, value: Any) -> bool:
        """Reports whether value cannot be pickled. Once the bounds are reached, nothing fails."""
        self.trials += 1
        if self.trials > MAX_TRIALS or time.monotonic() > self.until:
            return False
        try:
            self.dumps(value)
        except Exception:
            return True
        return False

    def locate(self, path: str, value: Any, depth: int = 0) -> tuple[str, str]:
        """Returns the path and the description of the innermost part of value that fails."""
        if depth < MAX_DEPTH and not isinstance(value, type):
            for name, part in _parts(value):
                if part is not value and self.fails(part):
                    return self.locate(path + name, part, depth + 1)
        return path[:MAX_NAME], describe(value)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Returns what a pickler would pickle for value, by the text that leads to it."""
    if isinstance(value, dict):
        return [(f"[{_short(key)}]", part) for key, part in value.items()] + [(" (a key)", key) for key in value]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [(" (an element)", part) for part in value]
    if hasattr(value, "__code__"):
        return []
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:
        return []  # value itself refuses
    if not isinstance(reduced, tuple):
        return []
    state = reduced[2] if len(reduced) > 2 else None
    states = state if isinstance(state, tuple) else (state,)  # with __slots__: a dict, or None, and a dict of the slots
    parts = [(f".{name}", part) for one in states if isinstance(one, dict) for name, part in one.items()]
    return parts + [(f" (part {i} of its construction)", part) for i, part in enumerate(reduced[1] or ())]


def describe(value: Any) -> str:
    """Returns what value is: "a lambda", "_thread.lock" or the name of another class."""
    name = getattr(value, "__qualname__", "")
    if isinstance(value, type):
        return f"the class {name}"[:MAX_NAME]
    if hasattr(value, "__code__") and "<lambda>" in name:
        return "a lambda"
    if hasattr(value, "__code__") and "<locals>" in name:
        return f"the inner function {getattr(value, '__name__', '')}"[:MAX_NAME]
    kind = type(value)
    module = "" if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "."
    return (module + kind.__qualname__)[:MAX_NAME]


def _short(key: Any) -> str:
    return repr(key)[:40] if isinstance(key, (str, int, float, bool)) else "..."


def argument(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
    """Returns the values that describe the argument of function that cannot be pickled; none if all can."""
    import inspect

    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    search = Search()
    given = [(str(i + 1), names[i] if i < len(names) else f"args[{i}]", value) for i, value in enumerate(args)]
    for position, name, value in given + [(f"{name}=", name, value) for name, value in kwargs.items()]:
        if search.fails(value):
            path, kind = search.locate(name, value)
            return {"position": position, "argument": name, "class": describe(value), "path": path, "kind": kind}
    return {}


def result(value: Any) -> dict[str, str]:
    """Returns the values that describe the part of a result that cannot be pickled."""
    path, kind = Search().locate("result", value)
    return {"path": path, "kind": kind}
