"""Evaluates pure functions of the Space by reading: arithmetic, conditions, loops, and an allowlist of functions.

It runs nothing of the Space. What it does not know ends the evaluation with Unknown. A picture is an object with a size.
"""

from __future__ import annotations

import ast
import datetime
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

from folding import BINARY, COMPARE, SIMPLE, UNKNOWN, Folding, safe_power
from scopes import Function, Scope

MAX_STEPS = 20_000
MAX_DEPTH = 20
MAX_TEXT = 100_000

ALLOWED: Dict[str, Callable[..., Any]] = {
    **SIMPLE,
    "builtins.sorted": sorted,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.dict": dict,
    "builtins.any": any,
    "builtins.all": all,
    "builtins.divmod": divmod,
    "builtins.zip": zip,
    "builtins.enumerate": enumerate,
    "builtins.reversed": reversed,
    "builtins.set": set,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.sqrt": math.sqrt,
    "math.log": math.log,
    "math.log2": math.log2,
    "math.exp": math.exp,
    "math.prod": math.prod,
    "math.trunc": math.trunc,
    "math.hypot": math.hypot,
    "datetime.timedelta": datetime.timedelta,
    "numpy.clip": lambda v, low, high: max(low, min(v, high)),
    "numpy.ceil": math.ceil,
    "numpy.floor": math.floor,
    "numpy.sqrt": math.sqrt,
    "numpy.round": round,
    "numpy.maximum": max,
    "numpy.minimum": min,
}
METHODS = (
    "lower",
    "upper",
    "strip",
    "split",
    "startswith",
    "endswith",
    "get",
    "keys",
    "values",
    "items",
    "total_seconds",
    "replace",
    "count",
    "index",
)
SILENT = ("builtins.print", "gradio.Info", "gradio.Warning", "logging.info", "logging.debug", "warnings.warn")


class Unknown(Exception):
    """The value depends on something that reading does not know."""


class Failed(Exception):
    """The function would raise an error for these arguments."""


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Loop(Exception):
    def __init__(self, ends: bool) -> None:
        self.ends = ends


@dataclass(frozen=True)
class Picture:
    """Stands for an input image of that size, as PIL.Image does."""

    width: int
    height: int

    @property
    def size(self) -> Tuple[int, int]:
        return self.width, self.height

    def method(self, name: str, arguments: List[Any]) -> "Picture":
        if name == "resize" and arguments:
            return Picture(int(arguments[0][0]), int(arguments[0][1]))
        if name == "crop" and arguments and len(arguments[0]) == 4:
            left, top, right, bottom = arguments[0]
            return Picture(int(right - left), int(bottom - top))
        if name in ("convert", "copy"):
            return self
        raise Unknown(name)


class Opaque:
    """A value of which nothing is known except that it is not None."""


class Evaluator:
    """Evaluates one function at a time."""

    def __init__(self, folding: Folding) -> None:
        self.folding = folding
        self.steps = 0

    def call(self, function: Function, arguments: Dict[str, Any], depth: int = 0) -> Any:
        """Returns what the function returns. arguments are by parameter; * and ** parameters get what they hold."""
        if depth == 0:
            self.steps = 0
        if depth > MAX_DEPTH or isinstance(function.node, ast.AsyncFunctionDef) or function.is_generator():
            raise Unknown(function.name)
        frame = _Frame(self, function.scope, dict(arguments), depth)
        try:
            if isinstance(function.node, ast.Lambda):
                return frame.value(function.node.body)
            frame.block(function.node.body)
        except _Return as result:
            return result.value
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError) as error:
            if any(isinstance(v, (Opaque, Picture)) for v in arguments.values()):
                raise Unknown(str(error)) from error
            raise Failed(f"{type(error).__name__}: {error}") from error
        return None


class _Frame:
    def __init__(self, evaluator: Evaluator, scope: Scope, local: Dict[str, Any], depth: int) -> None:
        self.evaluator, self.scope, self.local, self.depth = evaluator, scope, local, depth
        self.names = evaluator.folding.names

    def step(self) -> None:
        self.evaluator.steps += 1
        if self.evaluator.steps > MAX_STEPS:
            raise Unknown("too many steps")

    def block(self, body: List[ast.stmt]) -> None:
        for statement in body:
            self.step()
            method = getattr(self, "do_" + type(statement).__name__, None)
            if method is None:
                raise Unknown(type(statement).__name__)
            method(statement)

    def do_Return(self, node: ast.Return) -> None:
        raise _Return(None if node.value is None else self.value(node.value))

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise Unknown("target")
        self.local[node.target.id] = self.operate(node.op, self.value(ast.Name(node.target.id, ast.Load())), self.value(node.value))

    def do_If(self, node: ast.If) -> None:
        self.block(node.body if self.truth(node.test) else node.orelse)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    do_Import = do_ImportFrom = do_Assert = do_Global = do_Pass

    def do_Break(self, node: ast.Break) -> None:
        raise _Loop(True)

    def do_Continue(self, node: ast.Continue) -> None:
        raise _Loop(False)

    def do_Raise(self, node: ast.Raise) -> None:
        raise Failed("it raises an error")

    def do_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call) and self.names.library(node.value.func, self.scope) in SILENT:
            return
        self.value(node.value)

    def do_Try(self, node: ast.Try) -> None:
        try:
            self.block(node.body)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, Failed) as error:
            if len(node.handlers) != 1 or self.holds_unknown():
                raise Unknown("try") from error
            self.block(node.handlers[0].body)
        else:
            self.block(node.orelse)
        self.block(node.finalbody)

    def holds_unknown(self) -> bool:
        return any(isinstance(v, (Opaque, Picture)) for v in self.local.values())

    def do_For(self, node: ast.For) -> None:
        for value in self.value(node.iter):
            self.step()
            self.assign(node.target, value)
            if not self.turn(node.body):
                return
        self.block(node.orelse)

    def do_While(self, node: ast.While) -> None:
        while self.truth(node.test):
            self.step()
            if not self.turn(node.body):
                return

    def turn(self, body: List[ast.stmt]) -> bool:
        """Runs the body of a loop once. False: it ended with break."""
        try:
            self.block(body)
        except _Loop as loop:
            return not loop.ends
        return True

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.local[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)) and not isinstance(value, Opaque):
            values = list(value)
            if len(values) != len(target.elts):
                raise ValueError("unpacking")
            for element, part in zip(target.elts, values):
                self.assign(element, part)
        else:
            raise Unknown("target")

    def truth(self, node: ast.expr) -> bool:
        value = self.value(node)
        if isinstance(value, Opaque):
            raise Unknown("condition")
        return bool(value)

    def value(self, node: ast.expr) -> Any:
        self.step()
        method = getattr(self, "on_" + type(node).__name__, None)
        if method is None:
            raise Unknown(type(node).__name__)
        return method(node)

    def on_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def on_Name(self, node: ast.Name) -> Any:
        if node.id in self.local:
            return self.local[node.id]
        return self.folded(node)

    def folded(self, node: ast.expr) -> Any:
        value = self.evaluator.folding.fold(node, self.scope)
        if value is UNKNOWN:
            raise Unknown(ast.dump(node)[:60])
        return value

    def operate(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(left, (Opaque, Picture)) or isinstance(right, (Opaque, Picture)) or type(op) not in BINARY:
            raise Unknown("operand")
        if isinstance(op, ast.Pow) and not safe_power(left, right):
            raise Unknown("power")
        if isinstance(op, ast.Mult) and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            numbers = [v for v in (left, right) if isinstance(v, (int, float))]
            sized = [v for v in (left, right) if not isinstance(v, (int, float))]
            if len(sized) == 1 and isinstance(sized[0], (str, list, tuple)) and numbers and abs(numbers[0]) * len(sized[0]) > MAX_TEXT:
                raise Unknown("repetition")
        return BINARY[type(op)](left, right)

    def on_BinOp(self, node: ast.BinOp) -> Any:
        return self.operate(node.op, self.value(node.left), self.value(node.right))

    def on_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return not self.truth(node.operand)
        value = self.value(node.operand)
        if isinstance(value, Opaque):
            raise Unknown("operand")
        return -value if isinstance(node.op, ast.USub) else +value

    def on_BoolOp(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for part in node.values:
            value = self.value(part)
            if isinstance(value, Opaque):
                raise Unknown("condition")
            if bool(value) == isinstance(node.op, ast.Or):
                return value
        return value

    def on_Compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators):
            right = self.value(comparator)
            if (isinstance(left, Opaque) or isinstance(right, Opaque)) and not (
                right is None and isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq))
            ):
                raise Unknown("operand")
            if not COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def on_IfExp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.truth(node.test) else node.orelse)

    def on_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.value(e) for e in node.elts)

    def on_List(self, node: ast.List) -> Any:
        return [self.value(e) for e in node.elts]

    def on_Dict(self, node: ast.Dict) -> Any:
        if any(key is None for key in node.keys):
            raise Unknown("**")
        return {self.value(key): self.value(v) for key, v in zip(node.keys, node.values) if key is not None}

    def on_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return "".join(str(self.value(v.value if isinstance(v, ast.FormattedValue) else v)) for v in node.values)

    def on_Subscript(self, node: ast.Subscript) -> Any:
        base = self.value(node.value)
        if isinstance(base, (Opaque, Picture)):
            raise Unknown("index")
        if isinstance(node.slice, ast.Slice):
            parts = [None if p is None else self.value(p) for p in (node.slice.lower, node.slice.upper, node.slice.step)]
            return base[slice(*parts)]
        return base[self.value(node.slice)]

    def on_Attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id in self.local or isinstance(node.value, (ast.Call, ast.Subscript)):
            base = self.value(node.value)
            if isinstance(base, Picture) and node.attr in ("width", "height", "size"):
                return getattr(base, node.attr)
            if isinstance(base, datetime.timedelta) and node.attr in ("seconds", "days"):
                return getattr(base, node.attr)
            raise Unknown(node.attr)
        if self.names.library(node, self.scope) in ("math.inf", "numpy.inf"):
            return math.inf
        return math.pi if self.names.library(node, self.scope) == "math.pi" else self.folded(node)

    def on_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        return self.on_ListComp(node)

    def on_ListComp(self, node: Any) -> Any:
        if len(node.generators) != 1:
            raise Unknown("comprehension")
        found, generator, before = [], node.generators[0], dict(self.local)
        for value in self.value(generator.iter):
            self.assign(generator.target, value)
            if all(self.truth(condition) for condition in generator.ifs):
                found.append(self.value(node.elt))
        self.local = before
        return found

    def on_Call(self, node: ast.Call) -> Any:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            raise Unknown("*")
        name = self.names.library(node.func, self.scope)
        if isinstance(node.func, ast.Name) and node.func.id in self.local:
            raise Unknown(node.func.id)
        if name in ALLOWED or name == "builtins.range" or name == "builtins.isinstance":
            return self.library(name, node)
        functions = [ref.function for ref in self.names.resolve(node.func, self.scope) if ref.function is not None]
        if len(functions) == 1 and functions[0].owner is None:
            return self.own(functions[0], node)
        if isinstance(node.func, ast.Attribute):
            return self.method(node, node.func)
        raise Unknown(name)

    def library(self, name: str, node: ast.Call) -> Any:
        if name == "builtins.isinstance":
            return self.is_instance(node)
        arguments = [self.value(a) for a in node.args]
        if any(isinstance(a, (Opaque, Picture)) for a in arguments):
            raise Unknown(name)
        if name == "builtins.range":
            made = range(*arguments)
            if len(made) > MAX_STEPS:
                raise Unknown("range")
            return made
        named = {k.arg: self.value(k.value) for k in node.keywords if k.arg is not None}
        return ALLOWED[name](*arguments, **named)

    def is_instance(self, node: ast.Call) -> bool:
        value = self.value(node.args[0])
        kinds = {
            "builtins.str": str,
            "builtins.int": int,
            "builtins.float": float,
            "builtins.bool": bool,
            "builtins.list": list,
            "builtins.tuple": tuple,
            "builtins.dict": dict,
        }
        wanted = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
        named = [kinds.get(self.names.library(w, self.scope)) for w in wanted]
        if isinstance(value, (Opaque, Picture)) or any(n is None for n in named):
            raise Unknown("isinstance")
        return isinstance(value, tuple(n for n in named if n is not None))

    def own(self, function: Function, node: ast.Call) -> Any:
        positional = [self.value(a) for a in node.args]
        named = {k.arg: self.value(k.value) for k in node.keywords if k.arg is not None}
        bound = bind(function, positional, named, self.evaluator, self.depth + 1)
        if bound is None:
            raise Failed(f"{function.name}() is called with the wrong arguments")
        return self.evaluator.call(function, bound, self.depth + 1)

    def method(self, node: ast.Call, func: ast.Attribute) -> Any:
        base = self.value(func.value)
        if isinstance(base, Picture):
            return base.method(func.attr, [self.value(a) for a in node.args[:1]])
        arguments = [self.value(a) for a in node.args]
        if isinstance(base, Opaque) or func.attr not in METHODS or node.keywords:
            raise Unknown(func.attr)
        if any(isinstance(a, (Opaque, Picture)) for a in arguments):
            raise Unknown(func.attr)
        return getattr(base, func.attr)(*arguments)


def bind(
    function: Function, positional: List[Any], named: Dict[str, Any], evaluator: Evaluator, depth: int = 0
) -> Optional[Dict[str, Any]]:
    """Returns the value of each parameter, as Python binds a call. None: the call does not fit."""
    arguments = function.node.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    bound = {a.arg: value for a, value in zip(ordered, positional)}
    if len(positional) > len(ordered):
        if arguments.vararg is None:
            return None
    rest = {n: v for n, v in named.items() if n not in {a.arg for a in [*arguments.args, *arguments.kwonlyargs]}}
    if rest and arguments.kwarg is None:
        return None
    for name, value in named.items():
        if name in bound and name not in rest:
            return None
        if name not in rest:
            bound[name] = value
    defaults = dict(zip([a.arg for a in ordered[len(ordered) - len(arguments.defaults) :]], arguments.defaults))
    defaults.update({a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d is not None})
    for argument in [*ordered, *arguments.kwonlyargs]:
        if argument.arg not in bound:
            if argument.arg not in defaults:
                return None
            value = evaluator.folding.fold(defaults[argument.arg], function.outer)
            bound[argument.arg] = Opaque() if value is UNKNOWN else value
    if arguments.vararg is not None:
        bound[arguments.vararg.arg] = tuple(positional[len(ordered) :])
    if arguments.kwarg is not None:
        bound[arguments.kwarg.arg] = rest
    return bound
