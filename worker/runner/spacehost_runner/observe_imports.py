"""Finds modules that the Space's own code imports inside of functions and that the environment does not have.

The finders of the import system answer; no module is imported, because importing runs code. An import that the app
guards, or makes under a condition about its platform, may rightly find nothing.
"""
from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .observe import Observer

MAX_FILES = 200
LIMIT = 1.0  # seconds for all files: the app waits
FETCHING = re.compile(r"pip3?['\", ]+install|git['\", ]+clone|Repo\.clone_from|sys\.path\.(?:append|insert|extend)")
PLATFORM = ("sys", "os", "platform")


def absent(name: str) -> bool:
    """Reports whether no finder knows a top-level module."""
    if name in sys.modules or name in sys.stdlib_module_names:
        return False
    try:
        return importlib.util.find_spec(name) is None
    except Exception:  # a finder of the app itself
        return False


def fetches(observer: Observer) -> str:
    """Returns the place where the app's own code installs packages, fetches code or changes sys.path; "" without one."""
    for file, source in sources(observer):
        for number, line in enumerate(source.splitlines(), 1):
            if FETCHING.search(line) and not line.lstrip().startswith("#"):
                return f"{file}:{number}"
    return ""


def sources(observer: Observer) -> Iterator[tuple[str, str]]:
    """Yields the own modules that are loaded: the path in the Space, and the source."""
    count = 0
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if count >= MAX_FILES or not isinstance(file, str) or not file.endswith(".py") or not (name := observer.own(file)):
            continue
        count += 1
        with contextlib.suppress(OSError), open(os.path.join(observer.root, name), encoding="utf-8", errors="replace") as source:
            yield name, source.read(1 << 20)


def report(observer: Observer) -> None:
    """Reports the modules that functions import and that are absent, each once."""
    until, known = time.monotonic() + LIMIT, set()
    fetching = None
    for file, source in sources(observer):
        if time.monotonic() > until:
            return
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for name, line, function in sorted(lazy(tree), key=lambda one: one[1]):
            if name not in known and not observer.has(name) and absent(name):
                fetching = fetches(observer) if fetching is None else fetching
                if fetching:
                    return  # the module may arrive before the function runs
                known.add(name)
                observer.report("A206", (file, line), "warning", module=name, because="no requirement brings it", target="requirements.txt", outcome=f"{function} fails with ModuleNotFoundError")


def lazy(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Yields the top-level modules that functions import without a guard, with line and function."""
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        node, function = pending.pop()
        inside = list(ast.iter_child_nodes(node))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = function or node.name
        elif isinstance(node, ast.Try) and any(catches_imports(handler) for handler in node.handlers):
            inside = [*node.orelse, *node.finalbody]
        elif isinstance(node, ast.If) and about_platform(node.test):
            continue
        elif function and isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno, function) for alias in node.names)
        elif function and isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno, function
        pending += [(one, function) for one in inside]


def catches_imports(handler: ast.ExceptHandler) -> bool:
    kinds: list[Any] = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or getattr(kind, "id", getattr(kind, "attr", "")) in ("ImportError", "ModuleNotFoundError", "Exception", "BaseException") for kind in kinds)


def about_platform(test: ast.expr) -> bool:
    """Reports whether a condition calls something, or names a platform or a constant such as IN_COLAB."""
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Is, ast.IsNot)):
        return False  # MODEL is None: loaded at the first call
    for node in ast.walk(test):
        if isinstance(node, ast.Call) or isinstance(node, ast.Name) and (node.id in PLATFORM or node.id.isupper()):
            return True
    return False
