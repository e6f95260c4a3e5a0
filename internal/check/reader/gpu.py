"""Finds GPU functions: those decorated with spaces.GPU, directly, through a wrapper of the Space, or by a call."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

from folding import UNKNOWN, Folding
from names import Names
from project import STANDARD
from scopes import Function, ModuleScope, Scope, own_nodes

DEFAULT_SECONDS = 60  # spaces 0.51.3, zero/client.py, DEFAULT_SCHEDULE_DURATION
DECORATORS = ("spaces.GPU", "spaces.zero.GPU", "spaces.zero.decorator.GPU")
KNOWN = ("spaces", "gradio", "torch", "fastapi", "starlette")  # and the standard library
NESTING = 4


@dataclass(eq=False)
class Decoration:
    """A use of spaces.GPU with its arguments. node is where the decorator is written."""

    node: ast.AST
    module: ModuleScope
    duration: Optional[ast.expr] = None
    size: Optional[ast.expr] = None
    scope: Optional[Scope] = None  # of the arguments
    known: bool = True  # the arguments are those of this use, not of a wrapper that may change them


@dataclass(eq=False)
class GPUFunction:
    """A GPU function. decoration says where and how."""

    function: Function
    decoration: Decoration
    by_call: bool  # decorated by a call, so that the undecorated function may be used too

    @property
    def name(self) -> str:
        owner = self.function.owner
        return f"{owner.name}.{self.function.name}" if owner else self.function.name


class GPUFunctions:
    """All GPU functions of the given modules."""

    def __init__(self, names: Names, folding: Folding, modules: List[ModuleScope]) -> None:
        self.names, self.folding = names, folding
        self.all: List[GPUFunction] = []
        self.by_function: Dict[Function, GPUFunction] = {}
        self.is_mentioned = False  # the attribute GPU of spaces, anywhere
        self.unresolved: Set[ModuleScope] = set()  # modules that pass an unknown function to spaces.GPU
        self._wrappers: Dict[Tuple[Function, int], Optional[Decoration]] = {}
        for module in modules:
            for function in module.functions:
                for decorator in function.decorators:
                    found = self.decoration(decorator, function.outer)
                    if found is not None:
                        self._add(function, found, False)
                        break
        for module in modules:
            self._calls(module)

    def __contains__(self, function: object) -> bool:
        return function in self.by_function

    def _add(self, function: Function, decoration: Decoration, by_call: bool) -> None:
        if function not in self.by_function:
            found = GPUFunction(function, decoration, by_call)
            self.by_function[function] = found
            self.all.append(found)

    def _calls(self, module: ModuleScope) -> None:
        """Adds functions that are passed to spaces.GPU by a call: `run = spaces.GPU(run)`."""
        for node in module.nodes:
            if isinstance(node, ast.Call) and node.args:
                decoration = self.decoration(node.func, module.scope_at(node))
                if decoration is None:
                    continue
                scope = module.scope_at(node)
                functions = self.names.functions(node.args[0], scope)
                if not functions and self._is_unknown(node.args[0], scope):
                    self.unresolved.add(module)
                for function in functions:
                    direct = self.is_gpu(node.func, scope)
                    self._add(function, self._of_call(node, scope) if direct else decoration, True)

    def _is_unknown(self, node: ast.expr, scope: Scope) -> bool:
        """Reports whether an argument of spaces.GPU may be a function. A parameter is one of a wrapper of the Space, which is followed."""
        where, bindings = scope.lookup(node.id) if isinstance(node, ast.Name) else (None, [])
        if where is not None and any(b.kind == "param" for b in bindings):
            return False
        return self.folding.fold(node, scope) is UNKNOWN

    def may_be_wrapped(self, function: Function) -> bool:
        """Reports whether unknown code may make a GPU function of the function: a decorator of a library, or an unresolved spaces.GPU(x)."""
        decorated = [(d, function.outer) for d in function.decorators]
        if function.owner is not None:
            decorated += [(d, function.owner.outer) for d in function.owner.node.decorator_list]
        for decorator, scope in decorated:
            for ref in self.names.resolve(decorator.func if isinstance(decorator, ast.Call) else decorator, scope):
                if ref.library and not is_known_library(ref.library):
                    return True
                if ref.function is not None and ref.function.module in self.unresolved:
                    return True
        return function.module in self.unresolved

    def is_gpu(self, node: ast.AST, scope: Scope) -> bool:
        """Reports whether an expression stands for spaces.GPU itself."""
        return any(ref.library in DECORATORS for ref in self.names.resolve(node, scope))

    def decoration(self, node: ast.expr, scope: Scope, depth: int = 0) -> Optional[Decoration]:
        """Returns the Decoration if the expression, used as a decorator, makes a GPU function."""
        if depth > NESTING:
            return None
        if self.is_gpu(node, scope):
            return Decoration(node, scope.module, scope=scope)
        if isinstance(node, ast.Call):
            if self.is_gpu(node.func, scope):
                return self._of_call(node, scope)
            if self._is_partial(node, scope):
                return self._of_call(node, scope, 1)
        if isinstance(node, ast.IfExp):
            return self.decoration(node.body, scope, depth + 1) or self.decoration(node.orelse, scope, depth + 1)
        return self._of_wrapper(node, scope, depth)

    def _is_partial(self, node: ast.Call, scope: Scope) -> bool:
        return self.names.library(node.func, scope) in ("functools.partial",) and bool(node.args) and self.is_gpu(node.args[0], scope)

    def _of_call(self, node: ast.Call, scope: Scope, skip: int = 0) -> Decoration:
        found = Decoration(node, scope.module, scope=scope)
        for keyword in node.keywords:
            if keyword.arg == "duration":
                found.duration = keyword.value
            elif keyword.arg == "size":
                found.size = keyword.value
            elif keyword.arg is None:
                found.known = False
        first = node.args[skip] if len(node.args) > skip else None
        if first is not None and not self.names.functions(first, scope):
            value = self.folding.fold(first, scope)
            if isinstance(value, str):
                found.size = first
            elif value is not None and value is not UNKNOWN:
                found.duration = first
        return found

    def _of_wrapper(self, node: ast.expr, scope: Scope, depth: int) -> Optional[Decoration]:
        """Returns a Decoration if the expression is a function of the Space that uses spaces.GPU in its body."""
        called = node.func if isinstance(node, ast.Call) else node
        for ref in self.names.resolve(called, scope):
            function = ref.function
            if function is None and ref.owner is not None:
                function = ref.owner.methods.get("__call__")
            if function is None or function in self.by_function:
                continue
            inner = self._in_body(function, depth)
            if inner is not None:
                return Decoration(node, scope.module, inner.duration, inner.size, inner.scope, inner.known and self._is_constant(inner))
        if not isinstance(node, ast.Call):
            return self._of_value(node, scope, depth)
        return None

    def _of_value(self, node: ast.expr, scope: Scope, depth: int) -> Optional[Decoration]:
        """Follows a name that was assigned a decorator: `gpu = spaces.GPU(duration=30)`."""
        if not isinstance(node, ast.Name):
            return None
        where, bindings = scope.lookup(node.id)
        for binding in bindings if where is not None else []:
            if binding.kind == "assign" and binding.value is not None and where is not None:
                found = self.decoration(binding.value, where, depth + 1)
                if found is not None:
                    return found
            if binding.kind == "from" and where is not None:
                own = self.names.project.source_module(where.module, binding)
                if own is not None and own is not where.module and binding.attr in own.bindings:
                    found = self.decoration(ast.Name(binding.attr, ast.Load()), own, depth + 1)
                    if found is not None:
                        return found
        return None

    def _is_constant(self, decoration: Decoration) -> bool:
        scope = decoration.scope
        return scope is not None and all(
            node is None or self.folding.fold(node, scope) is not UNKNOWN for node in (decoration.duration, decoration.size)
        )

    def _in_body(self, function: Function, depth: int) -> Optional[Decoration]:
        key = (function, depth)
        if key not in self._wrappers:
            self._wrappers[key] = None  # also ends a recursion
            self._wrappers[key] = self._search(function, depth)
        return self._wrappers[key]

    def _search(self, function: Function, depth: int) -> Optional[Decoration]:
        bodies = [f for f in function.module.functions if f is function or self._is_below(f, function)]
        for body in bodies:
            for node in own_nodes(body.node):
                if isinstance(node, ast.Call) and (self.is_gpu(node.func, body.scope) or self._is_partial(node, body.scope)):
                    return self._of_call(node, body.scope)
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    for decorator in node.decorator_list:
                        if self.is_gpu(decorator, body.scope):
                            return Decoration(decorator, body.module, scope=body.scope)
        for body in bodies:
            for node in own_nodes(body.node):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and self.is_gpu(node.value, body.scope):
                    return Decoration(node, body.module, scope=body.scope)
                if isinstance(node, ast.Call):
                    found = self._of_wrapper(node.func, body.scope, depth + 1) if depth < NESTING else None
                    if found is not None:
                        return found
        return None

    @staticmethod
    def _is_below(function: Function, outer: Function) -> bool:
        scope: Optional[Scope] = function.outer
        while scope is not None:
            if scope is outer.scope:
                return True
            scope = scope.parent
        return False


def is_known_library(name: str) -> bool:
    """Reports whether a dotted name belongs to a library whose code makes no GPU functions. An unbound name is of a star import."""
    parts = name.replace("()", "").split(".")
    if parts[0] == "builtins":
        return len(parts) > 1 and hasattr(builtins, parts[1])
    return parts[0] in STANDARD or parts[0] in KNOWN


def seconds(gpu: GPUFunction, folding: Folding) -> Any:
    """Returns the declared seconds as a number, the duration as it is folded, or UNKNOWN."""
    decoration = gpu.decoration
    if decoration.duration is None:
        return DEFAULT_SECONDS if decoration.known else UNKNOWN
    if decoration.scope is None or not decoration.known:
        return UNKNOWN
    value = folding.fold(decoration.duration, decoration.scope)
    return DEFAULT_SECONDS if value is None else value
