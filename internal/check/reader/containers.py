"""Finds the elements of lists, tuples and dictionaries that the code writes as literals: `HANDLERS["x"]`, `for f in TABS`.

A container counts if its name is bound once. Elements that the code adds by `name[key] = value` belong to it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import List, Optional, Tuple

from scopes import Scope

MAX_DEPTH = 4  # of containers in containers
UNKNOWN_KEY = object()  # a key that is no constant


@dataclass(frozen=True)
class Element:
    """One element. key is its constant key or index, or UNKNOWN_KEY."""

    key: object
    value: ast.expr
    scope: Scope


def values(node: ast.AST, scope: Scope, depth: int = 0) -> List[Element]:
    """Returns the elements that `container[key]` or `container.get(key)` may stand for; none for other expressions."""
    if isinstance(node, ast.Subscript):
        container, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        container, key = node.func.value, node.args[0]
    else:
        return []
    found = contents(container, scope, depth + 1)
    if not isinstance(key, ast.Constant):
        return found
    return [e for e in found if e.key is UNKNOWN_KEY or e.key == key.value]


def contents(node: ast.AST, scope: Scope, depth: int = 0) -> List[Element]:
    """Returns the elements of a literal, or of the only one that a name is bound to."""
    if depth > MAX_DEPTH:
        return []
    if isinstance(node, (ast.List, ast.Tuple)):
        starred = any(isinstance(e, ast.Starred) for e in node.elts)
        return [Element(UNKNOWN_KEY if starred else i, e, scope) for i, e in enumerate(node.elts) if not isinstance(e, ast.Starred)]
    if isinstance(node, ast.Dict):
        return [Element(_key(key), value, scope) for key, value in zip(node.keys, node.values) if key is not None]
    if isinstance(node, (ast.DictComp, ast.ListComp)):
        return [Element(UNKNOWN_KEY, node.value if isinstance(node, ast.DictComp) else node.elt, scope)]
    if isinstance(node, ast.Name):
        where, bindings = scope.lookup(node.id)
        if where is None or len(bindings) != 1 or bindings[0].kind != "assign" or bindings[0].value is None:
            return []
        added = [(k, v, s) for k, v, s in where.module.items.get(node.id, []) if s.lookup(node.id)[0] is where]
        return [*contents(bindings[0].value, where, depth + 1), *(Element(_key(k), v, s) for k, v, s in added)]
    return [e for inner in values(node, scope, depth) for e in contents(inner.value, inner.scope, depth + 1)]


def elements(node: Optional[ast.AST], scope: Scope, index: int = -1) -> List[Element]:
    """Returns what the variable of a loop over node stands for. index: its position in `for a, b in ...`, or -1."""
    method = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and method in ("values", "items"):
        found = contents(node.func.value, scope)
        if method == "items":
            return found if index == 1 else []
    else:
        found = contents(node, scope) if node is not None and not _is_mapping(node, scope) else []
    if index < 0:
        return found
    return [inner for e in found for inner in contents(e.value, e.scope) if inner.key == index]


def part(node: Optional[ast.AST], scope: Scope, index: int) -> List[Element]:
    """Returns what the name at that position of `a, b = container[key]` stands for."""
    found = values(node, scope) if node is not None else []
    return [inner for e in found for inner in contents(e.value, e.scope) if inner.key == index]


def root(node: ast.AST, scope: Scope, depth: int = 0) -> Optional[Tuple[Scope, str]]:
    """Returns the scope and name of the container of an element: of `MODELS["a"]`, `MODELS.get(x)`, or a loop's variable.

    The depth is bounded, because a loop may bind the name of its own container: `for models in models.values()`.
    """
    if depth > MAX_DEPTH:
        return None
    if isinstance(node, ast.Name):
        where, bindings = scope.lookup(node.id)
        if where is not None and len(bindings) == 1 and bindings[0].kind == "loop" and bindings[0].value is not None:
            return root(bindings[0].value, where, depth + 1) or _named(bindings[0].value, where)
        return None
    if isinstance(node, ast.Subscript):
        return root(node.value, scope, depth + 1) or _named(node.value, scope)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "values", "items"):
        return root(node.func.value, scope, depth + 1) or _named(node.func.value, scope)
    return None


def _named(node: ast.AST, scope: Scope) -> Optional[Tuple[Scope, str]]:
    where = scope.lookup(node.id)[0] if isinstance(node, ast.Name) else None
    return (where, node.id) if where is not None and isinstance(node, ast.Name) else None


def _is_mapping(node: ast.AST, scope: Scope) -> bool:
    """Reports whether a loop over node yields keys."""
    if isinstance(node, ast.Name):
        where, bindings = scope.lookup(node.id)
        return where is not None and any(isinstance(b.value, (ast.Dict, ast.DictComp)) for b in bindings)
    return isinstance(node, (ast.Dict, ast.DictComp))


def _key(node: Optional[ast.AST]) -> object:
    return node.value if isinstance(node, ast.Constant) else UNKNOWN_KEY
