"""Resolves expressions to what they stand for: a name of a library, a function, class or module of the Space.

A name that is bound several times has several meanings. Rules that excuse code use all of them. Rules that accuse use
`only`, which requires a single meaning.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Set, Tuple

from containers import Element, elements, part, values
from project import Project
from scopes import FUNCTIONS, Binding, Class, Function, ModuleScope, Scope, own_nodes

MAX_DEPTH = 12
MAX_STEPS = 2000  # of one expression; `x = f(x)` in many lines has a number of meanings that grows exponentially with the lines
PARTIAL = ("functools.partial", "partial")
SPACES = ("GPU", "gradio_auto_wrap", "enable_gradio_auto_wrap")  # of spaces.__all__ (spaces 0.51.3)


@dataclass(frozen=True)
class Ref:
    """One meaning. library is a dotted name, in which "()" stands for the result of a call: "gradio.Blocks().launch"."""

    library: str = ""
    function: Optional[Function] = None
    owner: Optional[Class] = None  # a class
    instance: Optional[Class] = None  # an object of that class
    module: Optional[ModuleScope] = None
    call: Optional[ast.Call] = None  # of a library's result
    call_scope: Optional[Scope] = None
    partial: bool = False  # functools.partial of the function, which adds arguments


class Names:
    """Resolves expressions of a Project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._active: Dict[Tuple[int, int], str] = {}  # the expressions being resolved, with their names
        self._steps = 0
        self._endless: Set[Tuple[int, str]] = set()  # scopes and names whose meanings take more than MAX_STEPS
        self._known: Optional[Dict[Tuple[int, int], List[Ref]]] = None

    def remember(self) -> None:
        """Keeps results from now on: all modules and folders are known."""
        self._known = {}

    def resolve(self, node: Optional[ast.AST], scope: Scope, depth: int = 0) -> List[Ref]:
        """Returns the meanings of an expression; none if it is unknown."""
        key = (id(node), id(scope))
        if node is None or depth > MAX_DEPTH or key in self._active:
            return []
        outermost = self._known is not None and not self._active and hasattr(node, "lineno")  # a node without a line is temporary
        if outermost and self._known is not None and key in self._known:
            return self._known[key]
        if not self._active:
            self._steps = 0
        self._active[key] = node.id if isinstance(node, ast.Name) else ""
        try:
            found = self._resolve(node, scope, depth + 1) if self._is_short() else []
        finally:
            self._active.pop(key, None)
        if outermost and self._known is not None:
            self._known[key] = found
        return found

    def _is_short(self) -> bool:
        """Reports whether the present expression may take more steps. If not, its names are unknown from now on."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            self._endless.update((scope, name) for (_, scope), name in self._active.items() if name)
        return self._steps <= MAX_STEPS

    def only(self, node: Optional[ast.AST], scope: Scope) -> Optional[Ref]:
        """Returns the single meaning of an expression."""
        found = self.resolve(node, scope)
        return found[0] if len(found) == 1 else None

    def library(self, node: Optional[ast.AST], scope: Scope) -> str:
        """Returns the single dotted name of a library that an expression stands for, or ""."""
        found = {ref.library for ref in self.resolve(node, scope)}
        return found.pop() if len(found) == 1 else ""

    def functions(self, node: Optional[ast.AST], scope: Scope) -> List[Function]:
        """Returns the Space's functions that an expression may stand for. functools.partial stands for its function."""
        return [ref.function for ref in self.resolve(node, scope) if ref.function is not None]

    def _resolve(self, node: ast.AST, scope: Scope, depth: int) -> List[Ref]:
        if isinstance(node, ast.Name):
            return self._name(node.id, scope, depth)
        if isinstance(node, ast.Attribute):
            found: List[Ref] = []
            for base in self.resolve(node.value, scope, depth):
                found.extend(self._attribute(base, node.attr, depth))
            return _unique(found)
        if isinstance(node, ast.Call):
            return _unique([*self._call(node, scope, depth), *self._elements(values(node, scope), depth)])
        if isinstance(node, ast.Subscript):
            return self._elements(values(node, scope), depth)
        if isinstance(node, FUNCTIONS):
            function = scope.module.by_node.get(node)
            return [Ref(function=function)] if function else []
        if isinstance(node, ast.IfExp):
            return _unique([*self.resolve(node.body, scope, depth), *self.resolve(node.orelse, scope, depth)])
        if isinstance(node, ast.BoolOp):
            return _unique([ref for value in node.values for ref in self.resolve(value, scope, depth)])
        if isinstance(node, ast.NamedExpr):
            return self.resolve(node.value, scope, depth)
        if isinstance(node, ast.Await):
            return self.resolve(node.value, scope, depth)
        return []

    def _name(self, name: str, scope: Scope, depth: int) -> List[Ref]:
        if (id(scope), name) in self._endless:
            return []
        where, bindings = scope.lookup(name)
        if where is None:
            for module in self._stars(scope.module):
                if name in module.bindings:
                    return self.of_bindings(module, name, depth)
            if name in SPACES and ("spaces", 0) in scope.module.stars:
                return [Ref(library="spaces." + name)]
            return [Ref(library="builtins." + name)]
        return self._bindings(where, bindings, depth)

    def _stars(self, module: ModuleScope) -> List[ModuleScope]:
        found = []
        for name, level in module.stars:
            inner = self.project.module_of(self.project.absolute(module, name, level))
            if inner is not None and inner is not module:
                found.append(inner)
        return found

    def of_bindings(self, module: ModuleScope, name: str, depth: int = 0) -> List[Ref]:
        """Returns the meanings of a name that a module binds, also through `from ... import *`."""
        if name in module.bindings:
            return self._bindings(module, module.bindings[name], depth)
        for inner in self._stars(module) if depth <= MAX_DEPTH else []:
            found = self.of_bindings(inner, name, depth + 1)
            if found:
                return found
        return []

    def _bindings(self, scope: Scope, bindings: List[Binding], depth: int) -> List[Ref]:
        if depth > MAX_DEPTH:
            return []
        usual = [b for b in bindings if not b.guarded] or bindings
        found: List[Ref] = []
        for binding in usual:
            found.extend(self._binding(scope, binding, depth))
        return _unique(found)

    def _binding(self, scope: Scope, binding: Binding, depth: int) -> List[Ref]:
        if binding.kind == "function":
            return [Ref(function=binding.function)]
        if binding.kind == "class":
            return [Ref(owner=binding.owner)]
        if binding.kind in ("assign", "with"):
            return self.resolve(binding.value, scope, depth)
        if binding.kind == "loop":
            return self._elements(elements(binding.value, scope, binding.index), depth)
        if binding.kind == "part":
            return self._elements(part(binding.value, scope, binding.index), depth)
        if binding.kind == "import":
            own = self.own_module(binding.module)
            return [Ref(module=own)] if own else [Ref(library=binding.module)]
        if binding.kind == "from":
            return self._from(scope, binding, depth)
        if binding.kind == "param":
            return self._param(scope, binding)
        return []

    def _elements(self, found: List[Element], depth: int) -> List[Ref]:
        """Returns the meanings of elements of containers."""
        return _unique([ref for element in found for ref in self.resolve(element.value, element.scope, depth)])

    def own_module(self, name: str) -> Optional[ModuleScope]:
        """Returns the own module, except a copy of `spaces`: it stands for the package."""
        return None if name.split(".")[0] in ("spaces", "gradio", "torch") else self.project.module_of(name)

    def _from(self, scope: Scope, binding: Binding, depth: int) -> List[Ref]:
        absolute = self.project.absolute(scope.module, binding.module, binding.level)
        if absolute is None:
            return []
        own = self.own_module(absolute)
        if own is not None and own is not scope:
            found = self.of_bindings(own, binding.attr, depth + 1)
            if found:
                return found
        inner = self.own_module(f"{absolute}.{binding.attr}")
        if inner is not None:
            return [Ref(module=inner)]
        return [] if own is not None else [Ref(library=f"{absolute}.{binding.attr}")]

    def _param(self, scope: Scope, binding: Binding) -> List[Ref]:
        function = scope.function
        if function is None or function.owner is None:
            return []
        arguments = [*function.node.args.posonlyargs, *function.node.args.args]
        if arguments and arguments[0] is binding.node and not self._is_static(function):
            return [Ref(instance=function.owner)]
        return []

    @staticmethod
    def _is_static(function: Function) -> bool:
        return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorators)

    def _attribute(self, base: Ref, name: str, depth: int) -> List[Ref]:
        if base.library:
            return [Ref(library=f"{base.library}.{name}")]
        if base.module is not None:
            found = self.of_bindings(base.module, name, depth)
            if found:
                return found
            inner = self.own_module(f"{base.module.name}.{name}") if base.module.path.endswith("__init__.py") else None
            return [Ref(module=inner)] if inner else []
        owner = base.owner or base.instance
        return self._member(owner, name, depth) if owner is not None else []

    def _member(self, owner: Class, name: str, depth: int) -> List[Ref]:
        found: List[Ref] = []
        if name in owner.scope.bindings:
            found.extend(self._bindings(owner.scope, owner.scope.bindings[name], depth))
        for value, scope in owner.attributes.get(name, []):
            found.extend(self.resolve(value, scope, depth))
        if found or depth > MAX_DEPTH:
            return _unique(found)
        for base in owner.node.bases:
            for ref in self.resolve(base, owner.outer, depth):
                if ref.owner is not None and ref.owner is not owner:
                    found.extend(self._member(ref.owner, name, depth + 1))
                elif ref.library:
                    found.append(Ref(library=f"{ref.library}().{name}"))
        return _unique(found)

    def _call(self, node: ast.Call, scope: Scope, depth: int) -> List[Ref]:
        found: List[Ref] = []
        for ref in self.resolve(node.func, scope, depth):
            if ref.library in PARTIAL and node.args:
                found.extend(replace(inner, partial=True) for inner in self.resolve(node.args[0], scope, depth))
            elif ref.library:
                found.append(Ref(library=ref.library + "()", call=node, call_scope=scope))
            elif ref.owner is not None:
                found.append(Ref(instance=ref.owner))
            elif ref.function is not None:
                found.extend(self._result(ref.function, depth))
        return _unique(found)

    def _result(self, function: Function, depth: int) -> List[Ref]:
        """Returns the meanings of what a function of the Space returns."""
        if isinstance(function.node, ast.Lambda):
            return self.resolve(function.node.body, function.scope, depth)
        found: List[Ref] = []
        for node in own_nodes(function.node):
            if isinstance(node, ast.Return) and node.value is not None:
                found.extend(self.resolve(node.value, function.scope, depth))
        return _unique(found)


def _unique(refs: List[Ref]) -> List[Ref]:
    found: List[Ref] = []
    for ref in refs:
        if ref not in found:
            found.append(ref)
    return found[:20]
