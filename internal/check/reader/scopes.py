"""Symbol tables of one module: which names each scope binds, and to what."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple, Union

FunctionNode = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass
class Binding:
    """One place at which a scope binds a name.

    kind is import, from, function, class, assign, part (of an unpacked value), loop (of a for statement), with, param, or other. node is the statement.
    value is the expression of assign, part and with. guarded: the place is in an `except` block of a guarded import.
    """

    kind: str
    node: ast.AST
    value: Optional[ast.expr] = None
    module: str = ""
    attr: str = ""
    level: int = 0
    index: int = -1
    guarded: bool = False
    function: Optional["Function"] = None
    owner: Optional["Class"] = None


class Scope:
    """The names of a module, a function or a class body."""

    def __init__(self, kind: str, node: ast.AST, parent: Optional["Scope"], module: "ModuleScope") -> None:
        self.kind, self.node, self.parent, self.module = kind, node, parent, module
        self.bindings: Dict[str, List[Binding]] = {}
        self.globals: Set[str] = set()
        self.function: Optional[Function] = None

    def bind(self, name: str, binding: Binding) -> None:
        target = self.module if name in self.globals else self
        target.bindings.setdefault(name, []).append(binding)

    def lookup(self, name: str) -> Tuple[Optional["Scope"], List[Binding]]:
        """Returns the scope that binds name and its bindings there, as Python would find them."""
        scope: Optional[Scope] = self.module if name in self.globals else self
        while scope is not None:
            if name in scope.bindings and (scope.kind != "class" or scope is self):
                return scope, scope.bindings[name]
            scope = scope.parent
        return None, []


@dataclass(eq=False)
class Function:
    """A function, method or lambda of the Space."""

    name: str
    node: FunctionNode
    scope: Scope  # of its body
    outer: Scope
    module: "ModuleScope"
    owner: Optional["Class"] = None

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def is_lambda(self) -> bool:
        return isinstance(self.node, ast.Lambda)

    @property
    def is_nested(self) -> bool:
        return self.outer.kind == "function"

    @property
    def decorators(self) -> List[ast.expr]:
        return [] if isinstance(self.node, ast.Lambda) else self.node.decorator_list

    def is_generator(self) -> bool:
        return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(self.node))


@dataclass(eq=False)
class Class:
    """A class of the Space. attributes are the values of `self.name = value` in its methods."""

    name: str
    node: ast.ClassDef
    scope: Scope
    outer: Scope
    module: "ModuleScope"
    attributes: Dict[str, List[Tuple[ast.expr, Scope]]] = field(default_factory=dict)

    @property
    def methods(self) -> Dict[str, Function]:
        found: Dict[str, Function] = {}
        for name, bindings in self.scope.bindings.items():
            for binding in bindings:
                if binding.function is not None:
                    found[name] = binding.function
        return found


class ModuleScope(Scope):
    """The scope of a module, with all functions and classes below it. Functions are in the order of the file."""

    def __init__(self, path: str, name: str, tree: ast.Module) -> None:
        super().__init__("module", tree, None, self)
        self.path, self.name, self.tree = path, name, tree
        self.functions: List[Function] = []
        self.classes: List[Class] = []
        self.by_node: Dict[ast.AST, Function] = {}
        self.scope_of: Dict[ast.AST, Scope] = {tree: self}
        self.parents: Dict[ast.AST, ast.AST] = {}
        self.stars: List[Tuple[str, int]] = []
        self.items: Dict[str, List[Tuple[ast.expr, ast.expr, Scope]]] = {}  # `name[key] = value` by name: key, value, scope
        self.nodes: List[ast.AST] = []  # all, in the order of ast.walk
        for parent in ast.walk(tree):
            self.nodes.append(parent)
            for child in ast.iter_child_nodes(parent):
                self.parents[child] = parent
        _Builder(self).run()

    def scope_at(self, node: ast.AST) -> Scope:
        """Returns the scope in which the expression or statement runs."""
        at: Optional[ast.AST] = node
        child = node
        while at is not None:
            if at in self.scope_of and (at is not node or isinstance(at, ast.Module)) and _inside(at, child):
                return self.scope_of[at]
            child, at = at, self.parents.get(at)
        return self

    def function_at(self, node: ast.AST) -> Optional[Function]:
        """Returns the innermost function whose body contains node."""
        scope: Optional[Scope] = self.scope_at(node)
        while scope is not None and scope.function is None:
            scope = scope.parent
        return scope.function if scope is not None else None

    def is_above(self, node: ast.AST, kinds: Tuple[type, ...]) -> Optional[ast.AST]:
        """Returns the nearest ancestor of one of the kinds."""
        at = self.parents.get(node)
        while at is not None and not isinstance(at, kinds):
            at = self.parents.get(at)
        return at


def _inside(scope: ast.AST, child: ast.AST) -> bool:
    """Reports whether child, a direct child of a scope's node, runs inside of that scope."""
    if isinstance(scope, ast.Lambda):
        return child is scope.body
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return child in scope.body
    return True


@functools.lru_cache(maxsize=None)
def own_nodes(node: ast.AST) -> List[ast.AST]:
    """Returns the nodes of a function's body without those of the functions, lambdas and classes inside. Callers share the list."""
    body = getattr(node, "body", [])
    todo: List[ast.AST] = [body] if isinstance(body, ast.AST) else list(body)
    found: List[ast.AST] = []
    while todo:
        at = todo.pop()
        found.append(at)
        if isinstance(at, FUNCTIONS + (ast.ClassDef,)):
            todo.extend(getattr(at, "decorator_list", []))
            continue
        todo.extend(ast.iter_child_nodes(at))
    return found


class _Builder:
    def __init__(self, module: ModuleScope) -> None:
        self.module = module
        self.guarded = 0

    def run(self) -> None:
        self.block(self.module.tree.body, self.module, None)

    def block(self, body: List[ast.stmt], scope: Scope, owner: Optional[Class]) -> None:
        _declare_globals(body, scope)
        for statement in body:
            self.visit(statement, scope, owner)

    def visit(self, node: ast.AST, scope: Scope, owner: Optional[Class]) -> None:
        method = getattr(self, "visit_" + type(node).__name__, None)
        if method is not None:
            method(node, scope, owner)
        else:
            self.children(node, scope, owner)

    def children(self, node: ast.AST, scope: Scope, owner: Optional[Class]) -> None:
        for child in ast.iter_child_nodes(node):
            self.visit(child, scope, owner)

    def bind(self, scope: Scope, name: str, kind: str, node: ast.AST, value: Optional[ast.expr] = None, index: int = -1) -> None:
        scope.bind(name, Binding(kind, node, value, index=index, guarded=self.guarded > 0))

    def visit_FunctionDef(self, node: ast.FunctionDef, scope: Scope, owner: Optional[Class]) -> None:
        function = self.function(node, node.name, scope, owner)
        scope.bind(node.name, Binding("function", node, function=function, guarded=self.guarded > 0))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef, scope: Scope, owner: Optional[Class]) -> None:
        function = self.function(node, node.name, scope, owner)
        scope.bind(node.name, Binding("function", node, function=function, guarded=self.guarded > 0))

    def visit_Lambda(self, node: ast.Lambda, scope: Scope, owner: Optional[Class]) -> None:
        self.function(node, "<lambda>", scope, owner)

    def function(self, node: FunctionNode, name: str, scope: Scope, owner: Optional[Class]) -> Function:
        for outside in [*getattr(node, "decorator_list", []), *node.args.defaults, *[d for d in node.args.kw_defaults if d is not None]]:
            self.visit(outside, scope, owner)
        inner = Scope("function", node, scope, self.module)
        function = Function(name, node, inner, scope, self.module, owner if scope.kind == "class" else None)
        inner.function = function
        self.module.functions.append(function)
        self.module.by_node[node], self.module.scope_of[node] = function, inner
        arguments = node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
            if argument is not None:
                inner.bind(argument.arg, Binding("param", argument))
        if isinstance(node, ast.Lambda):
            self.visit(node.body, inner, owner)
        else:
            self.block(node.body, inner, owner)
        return function

    def visit_ClassDef(self, node: ast.ClassDef, scope: Scope, owner: Optional[Class]) -> None:
        for outside in [*node.decorator_list, *node.bases, *[k.value for k in node.keywords]]:
            self.visit(outside, scope, owner)
        inner = Scope("class", node, scope, self.module)
        found = Class(node.name, node, inner, scope, self.module)
        self.module.classes.append(found)
        self.module.scope_of[node] = inner
        scope.bind(node.name, Binding("class", node, owner=found, guarded=self.guarded > 0))
        self.block(node.body, inner, found)

    def visit_Import(self, node: ast.Import, scope: Scope, owner: Optional[Class]) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            module = alias.name if alias.asname else top
            scope.bind(alias.asname or top, Binding("import", node, module=module, guarded=self.guarded > 0))

    def visit_ImportFrom(self, node: ast.ImportFrom, scope: Scope, owner: Optional[Class]) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.module.stars.append((node.module or "", node.level))
                continue
            binding = Binding("from", node, module=node.module or "", attr=alias.name, level=node.level, guarded=self.guarded > 0)
            scope.bind(alias.asname or alias.name, binding)

    def visit_Assign(self, node: ast.Assign, scope: Scope, owner: Optional[Class]) -> None:
        self.visit(node.value, scope, owner)
        for target in node.targets:
            self.target(target, node, node.value, scope, owner)

    def visit_AnnAssign(self, node: ast.AnnAssign, scope: Scope, owner: Optional[Class]) -> None:
        if node.value is not None:
            self.visit(node.value, scope, owner)
            self.target(node.target, node, node.value, scope, owner)

    def visit_AugAssign(self, node: ast.AugAssign, scope: Scope, owner: Optional[Class]) -> None:
        self.visit(node.value, scope, owner)
        self.target(node.target, node, None, scope, owner)

    def visit_NamedExpr(self, node: ast.NamedExpr, scope: Scope, owner: Optional[Class]) -> None:
        self.visit(node.value, scope, owner)
        self.target(node.target, node, node.value, scope, owner)

    def visit_For(self, node: ast.For, scope: Scope, owner: Optional[Class]) -> None:
        parts = node.target.elts if isinstance(node.target, (ast.Tuple, ast.List)) else [node.target]
        for index, part in enumerate(parts):
            if isinstance(part, ast.Name):
                self.bind(scope, part.id, "loop", node, node.iter, index if len(parts) > 1 else -1)
            else:
                self.target(part, node, None, scope, owner)
        self.visit(node.iter, scope, owner)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement, scope, owner)

    visit_AsyncFor = visit_For

    def visit_With(self, node: ast.With, scope: Scope, owner: Optional[Class]) -> None:
        for item in node.items:
            self.visit(item.context_expr, scope, owner)
            if isinstance(item.optional_vars, ast.Name):
                self.bind(scope, item.optional_vars.id, "with", node, item.context_expr)
            elif item.optional_vars is not None:
                self.target(item.optional_vars, node, None, scope, owner)
        for statement in node.body:
            self.visit(statement, scope, owner)

    visit_AsyncWith = visit_With

    def visit_Try(self, node: ast.Try, scope: Scope, owner: Optional[Class]) -> None:
        for statement in node.body:
            self.visit(statement, scope, owner)
        fallback = any(isinstance(s, (ast.Import, ast.ImportFrom)) for s in node.body)
        self.guarded += fallback
        for handler in node.handlers:
            if handler.name:
                self.bind(scope, handler.name, "other", handler)
            for statement in handler.body:
                self.visit(statement, scope, owner)
        self.guarded -= fallback
        for statement in [*node.orelse, *node.finalbody]:
            self.visit(statement, scope, owner)

    visit_TryStar = visit_Try

    def visit_comprehension(self, node: ast.comprehension, scope: Scope, owner: Optional[Class]) -> None:
        self.target(node.target, node, None, scope, owner)
        self.visit(node.iter, scope, owner)
        for condition in node.ifs:
            self.visit(condition, scope, owner)

    def visit_MatchAs(self, node: ast.AST, scope: Scope, owner: Optional[Class]) -> None:
        name = getattr(node, "name", None)
        if name:
            self.bind(scope, name, "other", node)
        self.children(node, scope, owner)

    def target(self, target: ast.expr, node: ast.AST, value: Optional[ast.expr], scope: Scope, owner: Optional[Class]) -> None:
        if isinstance(target, ast.Name):
            self.bind(scope, target.id, "assign" if value is not None else "other", node, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else None
            for index, element in enumerate(target.elts):
                if parts is not None:
                    self.target(element, node, parts[index], scope, owner)
                elif isinstance(element, ast.Name):
                    self.bind(scope, element.id, "part", node, value, index)
                else:
                    self.target(element, node, None, scope, owner)
        elif isinstance(target, ast.Starred):
            self.target(target.value, node, None, scope, owner)
        elif isinstance(target, ast.Attribute):
            self.visit(target.value, scope, owner)
            if owner is not None and value is not None and _is_self(target.value, scope):
                owner.attributes.setdefault(target.attr, []).append((value, scope))
        else:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and value is not None:
                self.module.items.setdefault(target.value.id, []).append((target.slice, value, scope))
            self.children(target, scope, owner)


def _is_self(node: ast.expr, scope: Scope) -> bool:
    function = scope.function
    if function is None or function.owner is None or not isinstance(node, ast.Name):
        return False
    arguments = [*function.node.args.posonlyargs, *function.node.args.args]
    return bool(arguments) and arguments[0].arg == node.id


def _declare_globals(body: List[ast.stmt], scope: Scope) -> None:
    """Records the `global` statements of a function's body before its assignments are bound."""
    if scope.kind != "function":
        return
    for node in own_nodes(scope.node):
        if isinstance(node, ast.Global):
            scope.globals.update(node.names)
