"""Lists what a block of code runs, in order, without the bodies of functions that it only defines.

Branches whose condition folds to a constant are followed or left out. In all other branches, code is not certain to run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Tuple

from folding import UNKNOWN, Folding
from scopes import FUNCTIONS, Function, Scope

CATCHING = {"Exception", "BaseException", "RuntimeError", "ImportError", "ModuleNotFoundError", "AssertionError", "NotImplementedError"}
ENDING = ("sys.exit", "os._exit", "builtins.exit", "builtins.quit")


@dataclass(frozen=True)
class Step:
    """A node that runs. certain: on every run of the block. caught: an exception there is handled."""

    node: ast.AST
    scope: Scope
    certain: bool
    caught: bool


class Flow:
    """Lists Steps. The test of a condition comes before its branches, an argument before its call."""

    def __init__(self, folding: Folding) -> None:
        self.folding = folding
        self.calls_gpu: Callable[[ast.Call, Scope], bool] = lambda call, scope: False  # known once all modules are read

    def function(self, function: Function) -> Iterator[Step]:
        """Lists what a call of the function runs."""
        if isinstance(function.node, ast.Lambda):
            yield from self._expression(function.node.body, function.scope, True, False)
        else:
            yield from self._block(function.node.body, function.scope, True, False)

    def module(self, scope: Scope) -> Iterator[Step]:
        """Lists what an import of the module runs."""
        yield from self._block(getattr(scope.node, "body"), scope, True, False)

    def _block(self, body: List[ast.stmt], scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        for statement in body:
            yield from self._statement(statement, scope, certain, caught)
            if self.ends(statement, scope):
                return
            certain = certain and not self._leaves_to_gpu(statement, scope)

    def ends(self, statement: ast.stmt, scope: Scope) -> bool:
        """Reports whether nothing after the statement runs."""
        if isinstance(statement, (ast.Return, ast.Raise, ast.Continue, ast.Break)):
            return True
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            return self.folding.names.library(statement.value.func, scope) in ENDING
        if isinstance(statement, ast.If):
            truth = self.folding.truth(statement.test, scope)
            taken = statement.body if truth else statement.orelse
            return truth is not None and any(self.ends(inner, scope) for inner in taken)
        return False

    def _leaves_to_gpu(self, statement: ast.stmt, scope: Scope) -> bool:
        """Reports whether an undecided branch calls a GPU function and ends the block: `if zero: return on_gpu(x)`."""
        if not isinstance(statement, ast.If) or self.folding.truth(statement.test, scope) is not None:
            return False
        for branch in (statement.body, statement.orelse):
            calls = [node for inner in branch for node in ast.walk(inner) if isinstance(node, ast.Call)]
            if any(self.ends(inner, scope) or self._leaves_to_gpu(inner, scope) for inner in branch) and any(
                self.calls_gpu(call, scope) for call in calls
            ):
                return True
        return False

    def _statement(self, node: ast.stmt, scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        yield Step(node, scope, certain, caught)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for expression in [*node.decorator_list, *node.args.defaults, *[d for d in node.args.kw_defaults if d is not None]]:
                yield from self._expression(expression, scope, certain, caught)
        elif isinstance(node, ast.ClassDef):
            for expression in [*node.decorator_list, *node.bases]:
                yield from self._expression(expression, scope, certain, caught)
            yield from self._block(node.body, scope.module.scope_of[node], certain, caught)
        elif isinstance(node, ast.If):
            yield from self._branches(node.test, node.body, node.orelse, scope, certain, caught)
        elif isinstance(node, ast.While):
            yield from self._expression(node.test, scope, certain, caught)
            yield from self._block(node.body, scope, certain and self.folding.truth(node.test, scope) is True, caught)
            yield from self._block(node.orelse, scope, False, caught)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            yield from self._expression(node.iter, scope, certain, caught)
            yield from self._block(node.body, scope, certain and self._runs_once(node.iter, scope), caught)
            yield from self._block(node.orelse, scope, False, caught)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from self._with(node, scope, certain, caught)
        elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
            yield from self._try(node, scope, certain, caught)
        elif type(node).__name__ == "Match":
            yield from self._expression(getattr(node, "subject"), scope, certain, caught)
            for case in getattr(node, "cases"):
                yield from self._block(case.body, scope, False, caught)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._expression(child, scope, certain, caught)

    def _branches(
        self, test: ast.expr, body: List[ast.stmt], orelse: List[ast.stmt], scope: Scope, certain: bool, caught: bool
    ) -> Iterator[Step]:
        yield from self._expression(test, scope, certain, caught)
        truth = self.folding.truth(test, scope)
        if truth is not False:
            yield from self._block(body, scope, certain and truth is True, caught)
        if truth is not True:
            yield from self._block(orelse, scope, certain and truth is False, caught)

    def _with(self, node: ast.stmt, scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        suppressed = caught
        for item in getattr(node, "items"):
            yield from self._expression(item.context_expr, scope, certain, caught)
            called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
            suppressed = suppressed or self.folding.names.library(called, scope) == "contextlib.suppress"
        yield from self._block(getattr(node, "body"), scope, certain, suppressed)

    def _try(self, node: ast.stmt, scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        handlers = getattr(node, "handlers")
        yield from self._block(getattr(node, "body"), scope, certain, caught or any(_catches(h) for h in handlers))
        for handler in handlers:
            yield from self._block(handler.body, scope, False, caught)
        yield from self._block(getattr(node, "orelse"), scope, False, caught)
        yield from self._block(getattr(node, "finalbody"), scope, certain, caught)

    def _runs_once(self, iterated: ast.expr, scope: Scope) -> bool:
        """Reports whether a loop over the expression runs its body at least once."""
        value = self.folding.fold(iterated, scope)
        if value is not UNKNOWN:
            return bool(value)
        if isinstance(iterated, (ast.List, ast.Tuple, ast.Set)):
            return bool(iterated.elts)
        if isinstance(iterated, ast.Call) and self.folding.names.library(iterated.func, scope) == "builtins.range":
            values = [self.folding.fold(a, scope) for a in iterated.args]
            return all(isinstance(v, int) for v in values) and len(range(*values)) > 0 if values else False
        return False

    def _expression(self, node: ast.AST, scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        if isinstance(node, ast.stmt):
            yield from self._statement(node, scope, certain, caught)
            return
        if isinstance(node, FUNCTIONS):
            for default in [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None]]:
                yield from self._expression(default, scope, certain, caught)
        elif isinstance(node, ast.IfExp):
            yield from self._expression(node.test, scope, certain, caught)
            truth = self.folding.truth(node.test, scope)
            for branch, taken in ((node.body, True), (node.orelse, False)):
                if truth is None or truth is taken:
                    yield from self._expression(branch, scope, certain and truth is taken, caught)
        elif isinstance(node, ast.BoolOp):
            yield from self._bool(node, scope, certain, caught)
        else:
            for child in _in_order(node):
                yield from self._expression(child, scope, certain, caught)
        yield Step(node, scope, certain, caught)

    def _bool(self, node: ast.BoolOp, scope: Scope, certain: bool, caught: bool) -> Iterator[Step]:
        for value in node.values:
            yield from self._expression(value, scope, certain, caught)
            truth = self.folding.truth(value, scope)
            if truth is isinstance(node.op, ast.Or):
                return
            certain = certain and truth is not None


def _in_order(node: ast.AST) -> List[ast.AST]:
    return [
        child for child in ast.iter_child_nodes(node) if not isinstance(child, (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop))
    ]


def _catches(handler: ast.ExceptHandler) -> bool:
    kinds: Tuple[Optional[ast.expr], ...] = (handler.type,)
    if isinstance(handler.type, ast.Tuple):
        kinds = tuple(handler.type.elts)
    return any(
        kind is None or (isinstance(kind, (ast.Name, ast.Attribute)) and (kind.id if isinstance(kind, ast.Name) else kind.attr) in CATCHING)
        for kind in kinds
    )
