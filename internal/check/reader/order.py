"""Follows the import of the app: its own modules in import order, statement by statement."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Set, Tuple

from flow import Flow, Step
from folding import UNKNOWN, Folding
from names import Names
from project import Project
from scopes import Function, ModuleScope, Scope

MAX_CALLS = 4000
MAX_DEPTH = 60


@dataclass(frozen=True)
class Event:
    """A node that runs while the app is imported. stack are the functions that are being called. spaces: it is imported."""

    node: ast.AST
    scope: Scope
    certain: bool
    caught: bool
    spaces: bool
    stack: Tuple[Function, ...]


@dataclass(frozen=True)
class Missing:
    """An own module or name that an import statement needs and that is not there."""

    node: ast.AST
    module: ModuleScope
    binding: str  # the name; "" for a module
    name: str
    caught: bool
    certain: bool


class ImportOrder:
    """Runs through the app once. events are in the order of execution."""

    def __init__(self, project: Project, names: Names, folding: Folding) -> None:
        self.project, self.names, self.folding = project, names, folding
        self.flow = Flow(folding)
        self.events: List[Event] = []
        self.loaded: List[ModuleScope] = []
        self.called: Set[Function] = set()
        self.imports: List[Tuple[ast.AST, ModuleScope, str, bool, bool]] = []  # node, module, absolute name, caught, certain
        self.spaces: Optional[Event] = None  # the first import of spaces
        self.dynamic: List[Tuple[str, int, str]] = []  # path, line, what
        self._started: Set[str] = set()
        self._calls = 0

    def run(self) -> Optional[ModuleScope]:
        """Follows the app from its first statement. None: the app cannot be parsed."""
        app = self.project.load(self.project.app, "__main__")
        if app is not None:
            self._started.add(app.path)
            self._module(app, True, False, 0)
        return app

    def _module(self, module: ModuleScope, certain: bool, caught: bool, depth: int) -> None:
        self.loaded.append(module)
        self._steps(self.flow.module(module), (), certain, caught, depth)

    def _steps(self, steps: Iterator[Step], stack: Tuple[Function, ...], certain: bool, caught: bool, depth: int) -> None:
        for step in steps:
            node, sure, safe = step.node, step.certain and certain, step.caught or caught
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node, step.scope, sure, safe, stack, depth)
            self.events.append(Event(node, step.scope, sure, safe, self.spaces is not None, stack))
            if isinstance(node, ast.Call):
                self._path(node, step.scope)
                if depth < MAX_DEPTH and self._calls < MAX_CALLS:
                    self._call(node, step.scope, sure, safe, stack, depth)

    def _call(self, node: ast.Call, scope: Scope, certain: bool, caught: bool, stack: Tuple[Function, ...], depth: int) -> None:
        refs = self.names.resolve(node.func, scope)
        for ref in refs:
            function = ref.function
            if ref.owner is not None:
                function = ref.owner.methods.get("__init__")
            if function is None or function in stack or _is_lazy(function):
                continue
            self._calls += 1
            self.called.add(function)
            self._steps(self.flow.function(function), (*stack, function), certain and len(refs) == 1, caught, depth + 1)

    def _import(self, node: ast.AST, scope: Scope, certain: bool, caught: bool, stack: Tuple[Function, ...], depth: int) -> None:
        for name in self._imported(node, scope.module):
            if name.split(".")[0] == "spaces":
                if self.spaces is None:
                    self.spaces = Event(node, scope, certain, caught, False, stack)
                continue
            self.imports.append((node, scope.module, name, caught, certain))
            self._load(name, certain, caught, depth)
        if isinstance(node, ast.ImportFrom):
            base = self.project.absolute(scope.module, node.module or "", node.level)
            for alias in node.names:
                if base and not self._is_attribute(base, alias.name):
                    self._load(f"{base}.{alias.name}", certain, caught, depth)

    def _is_attribute(self, base: str, name: str) -> bool:
        module = self.names.own_module(base)
        return module is not None and name in module.bindings

    def _imported(self, node: ast.AST, module: ModuleScope) -> List[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = self.project.absolute(module, node.module or "", node.level)
            return [base] if base else []
        return []

    def _load(self, name: str, certain: bool, caught: bool, depth: int) -> None:
        """Follows an import of `a.b.c` into a, a.b and a.b.c, each on its first import."""
        parts = name.split(".")
        if parts[0] in ("gradio", "torch", "spaces"):
            return
        for end in range(1, len(parts) + 1):
            inner = ".".join(parts[:end])
            path, _ = self.project.find(inner)
            if path is None or path in self._started or depth > MAX_DEPTH:
                continue
            self._started.add(path)
            module = self.project.load(path, inner)
            if module is not None:
                self._module(module, certain, caught, depth + 1)

    def _path(self, node: ast.Call, scope: Scope) -> None:
        """Follows sys.path.append and insert, and notes imports by name."""
        name = self.names.library(node.func, scope)
        if name in ("sys.path.append", "sys.path.insert") and node.args:
            folder = self._folder(node.args[-1], scope)
            if folder is None:
                self.dynamic.append((scope.module.path, node.lineno, "adds a folder to sys.path"))
            else:
                self.project.add_folder(folder)
        elif name in (
            "importlib.import_module",
            "builtins.__import__",
            "runpy.run_path",
            "runpy.run_module",
            "builtins.exec",
            "importlib.util.spec_from_file_location",
        ):
            target = self.folding.fold(node.args[0], scope) if node.args else UNKNOWN
            if isinstance(target, str) and name in ("importlib.import_module", "builtins.__import__"):
                self._load(target, True, False, 1)
            else:
                self.dynamic.append((scope.module.path, node.lineno, f"runs code that it chooses itself ({name.split('.', 1)[-1]})"))

    def _folder(self, node: ast.AST, scope: Scope) -> Optional[str]:
        """Folds the path of a folder, relative to the Space: os.path.join(os.path.dirname(__file__), "src")."""
        here = scope.module.path
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name) and node.id == "__file__":
            return here
        if isinstance(node, ast.Name):
            where, bindings = scope.lookup(node.id)
            if where is not None and len(bindings) == 1 and bindings[0].kind == "assign" and bindings[0].value is not None:
                return self._folder(bindings[0].value, where)
            return None
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            inner = self._folder(node.value, scope)
            return os.path.dirname(inner) if inner is not None else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left, right = self._folder(node.left, scope), self._folder(node.right, scope)
            return os.path.join(left, right) if left is not None and right is not None else None
        return self._folder_of_call(node, scope) if isinstance(node, ast.Call) else None

    def _folder_of_call(self, node: ast.Call, scope: Scope) -> Optional[str]:
        name = self.names.library(node.func, scope)
        parts = [self._folder(a, scope) for a in node.args]
        if name in ("os.getcwd", "pathlib.Path.cwd"):
            return ""
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("resolve", "absolute", "as_posix") and not parts:
            return self._folder(node.func.value, scope)
        if not parts or any(p is None for p in parts):
            return None
        known = [p for p in parts if p is not None]
        if name in ("os.path.abspath", "os.path.realpath", "builtins.str", "pathlib.Path", "os.fspath", "os.path.normpath"):
            return known[0]
        if name == "os.path.dirname":
            return os.path.dirname(known[0])
        return os.path.join(*known) if name == "os.path.join" else None


def _is_lazy(function: Function) -> bool:
    """Reports whether a call of the function does not run its body: a coroutine or a generator."""
    return isinstance(function.node, ast.AsyncFunctionDef) or function.is_generator()


def by_module(events: List[Event]) -> Dict[ModuleScope, List[Event]]:
    """Groups events by the module of their code."""
    found: Dict[ModuleScope, List[Event]] = {}
    for event in events:
        found.setdefault(event.scope.module, []).append(event)
    return found
