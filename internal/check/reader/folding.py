"""Folds expressions to constants, as they are in a Space on ZeroGPU.

A name counts if its scope binds it once. `torch.cuda.is_available()` is true once `spaces` is imported, as its
emulation makes it.
"""

from __future__ import annotations

import ast
import operator
from typing import Any, Callable, Dict, Optional

from names import Names
from scopes import Scope


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False


UNKNOWN: Any = _Unknown()

MAX_DEPTH = 25

BINARY: Dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARE: Dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
SIMPLE: Dict[str, Callable[..., Any]] = {
    "builtins.max": max,
    "builtins.min": min,
    "builtins.int": int,
    "builtins.float": float,
    "builtins.str": str,
    "builtins.bool": bool,
    "builtins.round": round,
    "builtins.abs": abs,
    "builtins.len": len,
    "builtins.sum": sum,
}
# What ZeroGPU sets (huggingface.co/docs/hub/spaces-overview, helper environment variables; spaces 0.51.3, config.py).
ZEROGPU_VARIABLES = {"SPACES_ZERO_GPU": "true", "SYSTEM": "spaces", "SPACE_REPO_NAME": UNKNOWN}
PLATFORM = {"sys.platform": "linux", "os.name": "posix"}


def safe_power(left: Any, right: Any) -> bool:
    """Reports whether an operation stays small: no power and no repetition that fills the memory."""
    return not (isinstance(left, (int, float)) and isinstance(right, (int, float)) and (abs(left) > 1e6 or abs(right) > 64))


class Folding:
    """Folds expressions. available is what torch.cuda.is_available() returns."""

    def __init__(self, names: Names, available: bool) -> None:
        self.names, self.available = names, available

    def fold(self, node: Optional[ast.AST], scope: Scope, depth: int = 0) -> Any:
        """Returns the value of an expression, or UNKNOWN."""
        if node is None or depth > MAX_DEPTH:
            return UNKNOWN
        method = getattr(self, "_" + type(node).__name__, None)
        try:
            return UNKNOWN if method is None else method(node, scope, depth + 1)
        except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError, IndexError, MemoryError):
            return UNKNOWN

    def truth(self, node: ast.expr, scope: Scope) -> Optional[bool]:
        """Returns whether a condition holds, or None."""
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            parts = [self.truth(part, scope) for part in node.values]
            return stop if stop in parts else None if None in parts else not stop
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand, scope)
            return None if inner is None else not inner
        value = self.fold(node, scope)
        return None if value is UNKNOWN else bool(value)

    def _Constant(self, node: ast.Constant, scope: Scope, depth: int) -> Any:
        return node.value

    def _Name(self, node: ast.Name, scope: Scope, depth: int) -> Any:
        if node.id == "__name__" and "__name__" not in scope.module.bindings:
            return "__main__" if scope.module.name == "__main__" else scope.module.name
        where, bindings = scope.lookup(node.id)
        if where is None:
            return UNKNOWN
        usual = [b for b in bindings if not b.guarded]
        if len(usual) != 1:
            return UNKNOWN
        binding = usual[0]
        if binding.kind == "assign" and isinstance(binding.node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            return self.fold(binding.value, where, depth)
        if binding.kind == "from":
            if binding.module == "typing" and binding.attr == "TYPE_CHECKING":
                return False
            own = self.names.project.source_module(where.module, binding)
            if own is not None and own is not where.module and binding.attr in own.bindings:
                return self.fold(ast.Name(binding.attr, ast.Load()), own, depth)
        if binding.kind in ("from", "import"):
            return self._library(self.names.library(node, scope))
        return UNKNOWN

    def _library(self, name: str) -> Any:
        if name in PLATFORM:
            return PLATFORM[name]
        if name.split(".")[0] == "spaces" and self.available:
            return True  # a module or function: true, and not None
        return False if name == "typing.TYPE_CHECKING" else UNKNOWN

    def _Attribute(self, node: ast.Attribute, scope: Scope, depth: int) -> Any:
        refs = self.names.resolve(node.value, scope)
        if len(refs) == 1 and refs[0].module is not None:
            return self.fold(ast.Name(node.attr, ast.Load()), refs[0].module, depth)
        owner = refs[0].instance or refs[0].owner if len(refs) == 1 else None
        if owner is not None:
            values = list(owner.attributes.get(node.attr, []))
            values += [
                (b.value, owner.scope) for b in owner.scope.bindings.get(node.attr, []) if b.kind == "assign" and b.value is not None
            ]
            return self.fold(values[0][0], values[0][1], depth) if len(values) == 1 else UNKNOWN
        if len(refs) == 1 and refs[0].library:
            return self._library(f"{refs[0].library}.{node.attr}")
        return UNKNOWN

    def _UnaryOp(self, node: ast.UnaryOp, scope: Scope, depth: int) -> Any:
        value = self.fold(node.operand, scope, depth)
        if value is UNKNOWN:
            return UNKNOWN
        if isinstance(node.op, ast.Not):
            return not value
        return -value if isinstance(node.op, ast.USub) else +value if isinstance(node.op, ast.UAdd) else UNKNOWN

    def _BinOp(self, node: ast.BinOp, scope: Scope, depth: int) -> Any:
        left, right = self.fold(node.left, scope, depth), self.fold(node.right, scope, depth)
        if left is UNKNOWN or right is UNKNOWN or type(node.op) not in BINARY:
            return UNKNOWN
        if isinstance(node.op, ast.Pow) and not safe_power(left, right):
            return UNKNOWN
        if isinstance(node.op, ast.Mult) and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            return UNKNOWN
        return BINARY[type(node.op)](left, right)

    def _BoolOp(self, node: ast.BoolOp, scope: Scope, depth: int) -> Any:
        values = [self.fold(value, scope, depth) for value in node.values]
        stop = isinstance(node.op, ast.Or)
        for value in values:
            if value is UNKNOWN:
                return UNKNOWN
            if bool(value) == stop:
                return value
        return values[-1]

    def _Compare(self, node: ast.Compare, scope: Scope, depth: int) -> Any:
        if len(node.ops) != 1 or type(node.ops[0]) not in COMPARE:
            return UNKNOWN
        left, right = self.fold(node.left, scope, depth), self.fold(node.comparators[0], scope, depth)
        if left is UNKNOWN or right is UNKNOWN:
            return UNKNOWN
        return COMPARE[type(node.ops[0])](left, right)

    def _IfExp(self, node: ast.IfExp, scope: Scope, depth: int) -> Any:
        test = self.fold(node.test, scope, depth)
        if test is UNKNOWN:
            return UNKNOWN
        return self.fold(node.body if test else node.orelse, scope, depth)

    def _JoinedStr(self, node: ast.JoinedStr, scope: Scope, depth: int) -> Any:
        parts = []
        for value in node.values:
            part = self.fold(value.value if isinstance(value, ast.FormattedValue) else value, scope, depth)
            if part is UNKNOWN or (isinstance(value, ast.FormattedValue) and value.format_spec is not None):
                return UNKNOWN
            parts.append(str(part))
        return "".join(parts)

    def _Tuple(self, node: ast.Tuple, scope: Scope, depth: int) -> Any:
        values = [self.fold(element, scope, depth) for element in node.elts]
        return UNKNOWN if any(v is UNKNOWN for v in values) else tuple(values)

    def _List(self, node: ast.List, scope: Scope, depth: int) -> Any:
        values = [self.fold(element, scope, depth) for element in node.elts]
        return UNKNOWN if any(v is UNKNOWN for v in values) else values

    def _Dict(self, node: ast.Dict, scope: Scope, depth: int) -> Any:
        keys = [self.fold(key, scope, depth) for key in node.keys]
        values = [self.fold(value, scope, depth) for value in node.values]
        return UNKNOWN if any(v is UNKNOWN for v in [*keys, *values]) else dict(zip(keys, values))

    def _Subscript(self, node: ast.Subscript, scope: Scope, depth: int) -> Any:
        base, index = self.fold(node.value, scope, depth), self.fold(node.slice, scope, depth)
        return UNKNOWN if base is UNKNOWN or index is UNKNOWN else base[index]

    def _Call(self, node: ast.Call, scope: Scope, depth: int) -> Any:
        name = self.names.library(node.func, scope)
        if name in ("torch.cuda.is_available", "torch.accelerator.is_available"):
            return self.available
        if name in ("torch.backends.mps.is_available", "torch.backends.mps.is_built", "torch.xpu.is_available"):
            return False
        if name == "torch.cuda.device_count" and self.available:
            return 1
        if name == "torch.device" and node.args:
            return self._device(self.fold(node.args[0], scope, depth))
        if name in ("os.getenv", "os.environ.get") and node.args:
            return ZEROGPU_VARIABLES.get(self.fold(node.args[0], scope, depth), UNKNOWN) if self.available else UNKNOWN
        if name == "builtins.hasattr" and len(node.args) == 2 and self.available:
            attr = self.fold(node.args[1], scope, depth)
            return True if self.names.library(node.args[0], scope) == "spaces" and attr == "GPU" else UNKNOWN
        if name == "importlib.util.find_spec" and node.args and self.fold(node.args[0], scope, depth) == "spaces":
            return True if self.available else UNKNOWN
        return self._simple(name, node, scope, depth)

    @staticmethod
    def _device(value: Any) -> Any:
        return f"cuda:{value}" if isinstance(value, int) and not isinstance(value, bool) else value

    def _simple(self, name: str, node: ast.Call, scope: Scope, depth: int) -> Any:
        if any(k.arg is None for k in node.keywords) or any(isinstance(a, ast.Starred) for a in node.args):
            return UNKNOWN
        values = [self.fold(a, scope, depth) for a in node.args]
        if any(v is UNKNOWN for v in values):
            return UNKNOWN
        if name == "datetime.timedelta":
            return self._timedelta(node, scope, depth, values)
        if node.keywords:
            return UNKNOWN
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("lower", "upper", "strip", "startswith", "endswith"):
            base = self.fold(node.func.value, scope, depth)
            return getattr(base, node.func.attr)(*values) if isinstance(base, str) else UNKNOWN
        return SIMPLE[name](*values) if name in SIMPLE else UNKNOWN

    def _timedelta(self, node: ast.Call, scope: Scope, depth: int, values: Any) -> Any:
        import datetime

        named = {k.arg: self.fold(k.value, scope, depth) for k in node.keywords if k.arg}
        if any(v is UNKNOWN for v in named.values()):
            return UNKNOWN
        return datetime.timedelta(*values, **named)


def is_cuda(value: Any) -> bool:
    """Reports whether a folded value names a CUDA device. A number is an index of one."""
    if isinstance(value, str):
        return value == "cuda" or value.startswith("cuda:")
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 64
