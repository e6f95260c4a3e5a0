"""Finds what a handler runs outside of GPU functions: its body, and the functions of the Space that it calls."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Set, Tuple

from flow import Flow
from gpu import GPUFunctions
from names import Names
from scopes import Function, Scope

MAX_DEPTH = 12
MAX_NODES = 200_000
# Calls that run a function which they get as an argument, in a thread of the same process: name or method, position.
RUNNERS = {"asyncio.to_thread": 0, "anyio.to_thread.run_sync": 0, "threading.Thread": -1, "builtins.map": 0}
METHODS = {"submit": 0, "map": 0, "run_in_executor": 1}


@dataclass(frozen=True)
class Run:
    """A node that runs for a visitor. path are the functions from the handler to the node's function."""

    node: ast.AST
    scope: Scope
    certain: bool
    caught: bool
    path: Tuple[Function, ...]


class Reach:
    """Walks functions. inside: GPU functions are entered too, as a worker does."""

    def __init__(self, names: Names, flow: Flow, gpu: GPUFunctions) -> None:
        self.names, self.flow, self.gpu = names, flow, gpu
        self._left = MAX_NODES
        flow.calls_gpu = lambda call, scope: any(f in gpu for f in names.functions(call.func, scope))

    def runs(self, function: Function, inside: bool) -> Iterator[Run]:
        """Lists what a call of the function runs, each function once."""
        yield from self._walk(function, (function,), True, False, inside, {function})

    def _walk(
        self, function: Function, path: Tuple[Function, ...], certain: bool, caught: bool, inside: bool, seen: Set[Function]
    ) -> Iterator[Run]:
        for step in self.flow.function(function):
            self._left -= 1
            if self._left < 0:
                return
            run = Run(step.node, step.scope, certain and step.certain, caught or step.caught, path)
            yield run
            if not isinstance(step.node, ast.Call) or len(path) > MAX_DEPTH:
                continue
            called, single = self._called(step.node, step.scope)
            for callee in called:
                if callee in seen or (callee in self.gpu and not inside):
                    continue
                seen.add(callee)
                yield from self._walk(callee, (*path, callee), run.certain and single, run.caught, inside, seen)

    def _called(self, node: ast.Call, scope: Scope) -> Tuple[List[Function], bool]:
        found: List[Function] = []
        refs = self.names.resolve(node.func, scope)
        for ref in refs:
            if ref.function is not None:
                found.append(ref.function)
            owner = ref.owner or ref.instance
            method = owner.methods.get("__init__" if ref.owner else "__call__") if owner is not None else None
            if method is not None:
                found.append(method)
        single = len(refs) == 1
        passed = self._passed(node, scope)
        if passed is not None:
            found.extend(self.names.functions(passed, scope))
        return found, single

    def _passed(self, node: ast.Call, scope: Scope) -> Optional[ast.expr]:
        """Returns the argument that the call runs as a function."""
        name = self.names.library(node.func, scope)
        index = RUNNERS.get(name)
        if name.endswith("Thread"):
            return next((k.value for k in node.keywords if k.arg == "target"), None)
        if index is None and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            index = METHODS[node.func.attr]
        return node.args[index] if index is not None and 0 <= index < len(node.args) else None


def inside_gpu(reach: Reach, gpu: GPUFunctions) -> Dict[Function, List[Run]]:
    """Returns what each GPU function runs in its worker."""
    return {g.function: list(reach.runs(g.function, True)) for g in gpu.all}
