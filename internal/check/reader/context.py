"""What the rules share: the Space as it was read, and the place where they report facts."""

from __future__ import annotations

import ast
import os
import re
import time
from typing import Any, Callable, Dict, List, Optional, Set

from cuda import Cuda, Standing
from durations import DurationReader
from endpoints import Endpoints
from folding import Folding
from gpu import GPUFunctions
from names import Names
from order import Event, ImportOrder
from project import Project
from reach import Reach, Run
from scopes import Function, ModuleScope, Scope

MAX_FACTS_PER_RULE = 50
MAX_SECONDS = 40  # after which no further rule begins


class Facts:
    """Collects facts and sentences. Values are texts."""

    def __init__(self) -> None:
        self.facts: List[Dict[str, Any]] = []
        self.not_looked_at: List[str] = []
        self._seen: Set[Any] = set()
        self._counts: Dict[str, int] = {}
        self._started = time.monotonic()

    def add(self, rule: str, file: str, line: int, severity: str = "", **values: Any) -> None:
        """Reports one fact. severity overrides the rule's."""
        key = (rule, file, line, tuple(sorted((k, str(v)) for k, v in values.items())))
        if key in self._seen:
            return
        self._seen.add(key)
        self._counts[rule] = self._counts.get(rule, 0) + 1
        if self._counts[rule] > MAX_FACTS_PER_RULE:
            if self._counts[rule] == MAX_FACTS_PER_RULE + 1:
                self.skip(f"{rule}: more than {MAX_FACTS_PER_RULE} findings; the others are not listed")
            return
        fact: Dict[str, Any] = {"rule": rule, "file": file, "line": line}
        if values:
            fact["values"] = {name: str(value) for name, value in values.items()}
        if severity:
            fact["severity"] = severity
        self.facts.append(fact)

    def skip(self, sentence: str) -> None:
        """Reports what was not looked at."""
        if sentence not in self.not_looked_at:
            self.not_looked_at.append(sentence)

    def safely(self, what: str, run: Callable[[], None]) -> None:
        """Runs a rule. An exception becomes a sentence, never an error."""
        if time.monotonic() - self._started > MAX_SECONDS:
            self.skip(f"{what}: not checked, because reading the Space took more than {MAX_SECONDS} s")
            return
        try:
            run()
        except RecursionError:
            self.skip(f"{what}: not checked, because the code is nested too deeply")
        except Exception as error:
            self.skip(f"{what}: not checked, because of an error of the check itself ({type(error).__name__}: {str(error)[:200]})")


class Space:
    """The Space as it was read."""

    def __init__(self, root: str, app: str, facts: Facts) -> None:
        self.facts = facts
        self.project = Project(root, app)
        self.names = Names(self.project)
        self.mentions_spaces = self._mentions_spaces()
        self.folding = Folding(self.names, self.mentions_spaces)
        self.order = ImportOrder(self.project, self.names, self.folding)
        self.app = self.order.run()
        self._load_lazy()
        self.names.remember()
        self.modules: List[ModuleScope] = [m for m in self.project.modules.values() if m is not None]
        self.gpu = GPUFunctions(self.names, self.folding, self.modules)
        self.endpoints = Endpoints(self.names, self.folding, self.modules)
        self.reach = Reach(self.names, self.order.flow, self.gpu)
        self.cuda = Cuda(self.names, self.folding)
        self.standing = Standing(self.cuda)
        self.at_import: List[Event] = self.order.events
        for event in self.at_import:
            self.standing.visit(event.node, event.scope, event.certain)
        self.durations = DurationReader(self.names, self.folding, self.gpu, self.endpoints, self.modules)
        self._outside: Optional[Dict[Function, List[Run]]] = None
        self._inside: Optional[Dict[Function, List[Run]]] = None

    def _mentions_spaces(self) -> bool:
        """Reports whether a Python file of the Space imports spaces. Only then is_available() is true at import."""
        pattern = re.compile(r"^\s*(?:import\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*spaces\b|from\s+spaces\b)", re.M)
        for path in [self.project.app, *self.project.python_files(1000)]:
            full = os.path.join(self.project.root, path)
            try:
                if os.path.isfile(full) and os.path.getsize(full) <= 2 << 20:
                    with open(full, encoding="utf-8", errors="replace") as file:
                        if pattern.search(file.read()):
                            return True
            except OSError:
                continue
        return False

    def _load_lazy(self) -> None:
        """Parses the own modules that functions import when they are called."""
        for _ in range(20):
            before = len(self.project.modules)
            for module in [m for m in self.project.modules.values() if m is not None]:
                for node in module.nodes:
                    if isinstance(node, (ast.Import, ast.ImportFrom)):
                        self._load(module, node)
            if len(self.project.modules) == before:
                return

    def _load(self, module: ModuleScope, node: ast.AST) -> None:
        names: List[Optional[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = self.project.absolute(module, node.module or "", node.level)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        for name in names:
            if name is not None:
                self.names.own_module(name)

    @property
    def is_complete(self) -> bool:
        """Reports whether all code that the app imports could be read."""
        return not (self.order.dynamic or self.project.problems or self.project.skipped)

    def outside(self) -> Dict[Function, List[Run]]:
        """Returns what each handler that is no GPU function runs outside of GPU functions."""
        if self._outside is None:
            self._outside = {}
            for endpoint in self.endpoints.all:
                function = endpoint.function
                if function is not None and function not in self.gpu and function not in self._outside:
                    self._outside[function] = list(self.reach.runs(function, False))
        return self._outside

    def inside(self) -> Dict[Function, List[Run]]:
        """Returns what each GPU function runs in its worker."""
        if self._inside is None:
            self._inside = {g.function: list(self.reach.runs(g.function, True)) for g in self.gpu.all}
        return self._inside

    def name(self, function: Function) -> str:
        """Returns the name of a function for a text."""
        if function.is_lambda:
            return "a lambda"
        return f"{function.owner.name}.{function.name}" if function.owner is not None else function.name

    def library(self, node: ast.AST, scope: Scope) -> str:
        """Returns the library's function that a call calls, or ""."""
        return self.names.library(node.func, scope) if isinstance(node, ast.Call) else ""


def keyword(node: ast.Call, name: str) -> Optional[ast.expr]:
    """Returns a keyword argument of a call."""
    return next((k.value for k in node.keywords if k.arg == name), None)


def line_of(node: ast.AST) -> int:
    """Returns the line on which a node begins."""
    return int(getattr(node, "lineno", 0))
