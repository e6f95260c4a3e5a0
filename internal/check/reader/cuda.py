"""Recognizes code that uses CUDA: what places values on it, what initializes it, and which names stand on it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Dict, List, Optional, Set, Tuple

from containers import Element, part, root, values
from folding import UNKNOWN, Folding, is_cuda
from names import Names
from scopes import Binding, Function, Scope, own_nodes

# Functions after which spaces refuses its import. Measured with torch 2.9.1+cu128 and spaces 0.51.3 (torch_test.go).
TOUCHING = {
    "torch.cuda." + name
    for name in (
        "is_available",
        "current_device",
        "get_device_name",
        "get_device_properties",
        "get_device_capability",
        "set_device",
        "init",
        "synchronize",
        "mem_get_info",
        "current_stream",
        "default_stream",
        "is_bf16_supported",
        "get_arch_list",
        "get_rng_state",
        "can_device_access_peer",
        "current_blas_handle",
        "ipc_collect",
        "reset_peak_memory_stats",
        "set_per_process_memory_fraction",
        "initial_seed",
        "get_gencode_flags",
        "amp.autocast",
        "amp.GradScaler",
    )
} | {"torch.accelerator.is_available", "torch.accelerator.device_count"}
# Those that only ask. The others need a GPU at once, so they fail themselves.
ASKING = {
    "torch.cuda." + name
    for name in ("is_available", "is_bf16_supported", "get_arch_list", "get_gencode_flags", "amp.autocast", "amp.GradScaler")
} | {"torch.accelerator.is_available", "torch.accelerator.device_count"}
LOW_LEVEL_ERROR = "RuntimeError: Low-level CUDA init (`torch._C._cuda_init`) reached"
DRIVER_ERROR = "an error of CUDA"
# Functions that the emulation of spaces does not replace, with what they raise outside of a GPU function. Measured likewise.
LOW_LEVEL = {
    **{
        "torch.cuda." + name: LOW_LEVEL_ERROR
        for name in (
            "set_device",
            "init",
            "current_stream",
            "default_stream",
            "ipc_collect",
            "get_rng_state",
            "current_blas_handle",
            "can_device_access_peer",
            "set_per_process_memory_fraction",
            "initial_seed",
            "FloatTensor",
            "HalfTensor",
            "BFloat16Tensor",
        )
    },
    "torch.cuda.reset_peak_memory_stats": "RuntimeError: Invalid device argument",
    "torch.cuda.reset_max_memory_allocated": "RuntimeError: Invalid device argument",
    "torch.cuda.Stream": DRIVER_ERROR,
}
RUNNING = {
    "forward",
    "generate",
    "encode_image",
    "encode_text",
    "get_image_features",
    "get_text_features",
    "transcribe",
    "predict",
    "infer",
    "inference",
    "chat",
    "sample",
    "encode",
    "decode",
}
FACTORIES = {
    "torch." + name
    for name in (
        "ones",
        "zeros",
        "empty",
        "full",
        "rand",
        "randn",
        "randint",
        "arange",
        "linspace",
        "tensor",
        "eye",
        "as_tensor",
        "zeros_like",
        "ones_like",
        "rand_like",
        "randn_like",
        "empty_like",
        "full_like",
        "randperm",
        "Generator",
        "tril",
        "triu",
    )
}


@dataclass(frozen=True)
class Placed:
    """A value that stands on cuda from the import on. name is how the code refers to it."""

    name: str
    line: int
    path: str


class Cuda:
    """Answers questions about single nodes."""

    def __init__(self, names: Names, folding: Folding) -> None:
        self.names, self.folding = names, folding

    def places(self, node: ast.AST, scope: Scope) -> str:
        """Returns the call in words if it places a value on cuda: `.to("cuda")`, `.cuda()`, `torch.ones(device="cuda")`."""
        if not isinstance(node, ast.Call):
            return ""
        name = self.names.library(node.func, scope)
        if name in FACTORIES:
            device = self._argument(node, "device", 0 if name == "torch.Generator" else None)
            return f"{name}(device=...)" if device is not None and self._is_cuda(device, scope) else ""
        if isinstance(node.func, ast.Attribute):
            attr = node.func.attr
            if attr == "cuda" and len(node.args) <= 1:
                return ".cuda()" if self._is_tensor_like(node.func.value, scope) else ""
            if attr == "to" and self._is_tensor_like(node.func.value, scope):
                for device in [*node.args[:1], *[k.value for k in node.keywords if k.arg == "device"]]:
                    if self._is_cuda(device, scope):
                        return f".to({self._text(device, scope)})"
        return ""

    def _is_tensor_like(self, node: ast.expr, scope: Scope) -> bool:
        """Reports whether a value may be a tensor or module: not a module of a library or an object of a class of the Space
        that has its own method `to` and is no torch module."""
        for ref in self.names.resolve(node, scope):
            if ref.module is not None:
                return False
            owner = ref.instance
            if owner is not None and ("to" in owner.scope.bindings or "cuda" in owner.scope.bindings):
                return False
            if ref.library and not ref.library.endswith(")") and "()" not in ref.library:
                return False
            if ref.library.split(".")[0] in ("numpy", "pandas", "PIL", "cv2"):
                return False
        return True

    def _text(self, node: ast.expr, scope: Scope) -> str:
        value = self.folding.fold(node, scope)
        return f'"{value}"' if isinstance(value, str) else repr(value)

    def _is_cuda(self, node: ast.expr, scope: Scope) -> bool:
        value = self.folding.fold(node, scope)
        return value is not UNKNOWN and is_cuda(value)

    @staticmethod
    def _argument(node: ast.Call, name: str, index: Optional[int]) -> Optional[ast.expr]:
        for keyword in node.keywords:
            if keyword.arg == name:
                return keyword.value
        return node.args[index] if index is not None and len(node.args) > index else None

    def touches(self, node: ast.AST, scope: Scope) -> Tuple[str, bool]:
        """Returns the call in words if it initializes CUDA or asks for it, and whether it only asks."""
        if not isinstance(node, ast.Call):
            return "", False
        name = self.names.library(node.func, scope)
        if name in TOUCHING:
            return name + "()", name in ASKING
        return self.places(node, scope), False

    def reaches_low_level(self, node: ast.AST, scope: Scope) -> Tuple[str, str]:
        """Returns a call that the emulation of spaces does not intercept, and what it raises; "" for other code."""
        if not isinstance(node, ast.Call):
            return "", ""
        name = self.names.library(node.func, scope)
        if name in LOW_LEVEL:
            return name + "()", LOW_LEVEL[name]
        if name == "torch.Generator":
            device = self._argument(node, "device", 0)
            return ('torch.Generator("cuda")', DRIVER_ERROR) if device is not None and self._is_cuda(device, scope) else ("", "")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "pin_memory" and not node.args:
            base = self.names.library(node.func.value, scope)
            return (".pin_memory()", DRIVER_ERROR) if base in {f + "()" for f in FACTORIES} else ("", "")
        return "", ""

    def sets_default_device(self, node: ast.AST, scope: Scope) -> bool:
        """Reports whether a call makes cuda the default device of this thread."""
        if not isinstance(node, ast.Call) or not node.args:
            return False
        name = self.names.library(node.func, scope)
        if name == "torch.set_default_tensor_type":
            value = self.folding.fold(node.args[0], scope)
            return isinstance(value, str) and value.startswith("torch.cuda.")
        return name == "torch.set_default_device" and self._is_cuda(node.args[0], scope)

    def creates(self, node: ast.AST, scope: Scope) -> bool:
        """Reports whether a call creates a tensor or a layer on the default device."""
        name = self.names.library(node.func, scope) if isinstance(node, ast.Call) else ""
        return (
            name in FACTORIES
            and not any(k.arg == "device" for k in getattr(node, "keywords", []))
            or name in ("torch.nn.Linear", "torch.nn.Conv2d", "torch.nn.Embedding", "torch.nn.LayerNorm")
        )

    def placed_expression(self, node: Optional[ast.AST], scope: Scope, depth: int = 0) -> bool:
        """Reports whether the value of an expression is a module or tensor on cuda: `X(...).to("cuda").eval()`."""
        if node is None or depth > 8:
            return False
        if isinstance(node, ast.Call):
            if self.places(node, scope) or self._pipeline(node, scope) or self._returns_placed(node, scope, depth):
                return True
            chained = isinstance(node.func, ast.Attribute) and node.func.attr in (
                "eval",
                "half",
                "float",
                "bfloat16",
                "requires_grad_",
                "train",
                "to",
                "share_memory",
            )
            return (
                chained
                and isinstance(node.func, ast.Attribute)
                and not self._leaves(node, scope)
                and self.placed_expression(node.func.value, scope, depth + 1)
            )
        return False

    def _returns_placed(self, node: ast.Call, scope: Scope, depth: int) -> bool:
        """Reports whether a call of the Space's own function returns a value that the function has placed on cuda."""
        called = [ref.function for ref in self.names.resolve(node.func, scope)]
        if len(called) != 1 or called[0] is None or isinstance(called[0].node, ast.Lambda):
            return False
        function = called[0]
        returns = [n.value for n in own_nodes(function.node) if isinstance(n, ast.Return)]
        return bool(returns) and all(self._is_placed_local(value, function, depth) for value in returns)

    def _is_placed_local(self, value: Optional[ast.expr], function: Function, depth: int) -> bool:
        """Reports whether a returned value was placed in the function: in the expression, by its last assignment, or by `x.to("cuda")`."""
        if not isinstance(value, ast.Name):
            return self.placed_expression(value, function.scope, depth + 1)
        placed = False
        for statement in getattr(function.node, "body"):
            if isinstance(statement, ast.Assign) and any(isinstance(t, ast.Name) and t.id == value.id for t in statement.targets):
                placed = self.placed_expression(statement.value, function.scope, depth + 1)
            elif (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Call)
                and isinstance(statement.value.func, ast.Attribute)
            ):
                moved = statement.value.func
                if isinstance(moved.value, ast.Name) and moved.value.id == value.id and moved.attr in ("to", "cuda", "cpu"):
                    placed = self.placed_expression(statement.value, function.scope, depth + 1)
        return placed

    def _leaves(self, node: ast.Call, scope: Scope) -> bool:
        """Reports whether `.to(...)` moves the value to another or an unknown device."""
        if not isinstance(node.func, ast.Attribute) or node.func.attr != "to":
            return False
        return any(not isinstance(a, ast.Attribute) for a in [*node.args, *[k.value for k in node.keywords if k.arg == "device"]])

    def _pipeline(self, node: ast.Call, scope: Scope) -> bool:
        """Reports whether a call loads a model straight to cuda: `pipeline(..., device=0)`, `from_pretrained(device_map="cuda")`."""
        name = self.names.library(node.func, scope)
        keywords = {k.arg: k.value for k in node.keywords if k.arg}
        if name in ("transformers.pipeline", "transformers.pipelines.pipeline") and "device" in keywords:
            return self._is_cuda(keywords["device"], scope)
        if name.split(".")[0] in ("transformers", "diffusers") and name.endswith(".from_pretrained") and "device_map" in keywords:
            return self._is_cuda(keywords["device_map"], scope)
        return False


def _text(node: ast.AST) -> str:
    """Returns a name or a dotted name as it is written."""
    if isinstance(node, ast.Attribute):
        return f"{_text(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


class Standing:
    """The module-level names and attributes that stand on cuda after the import."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.placed: Dict[Tuple[int, str], Placed] = {}
        self._ran: Set[int] = set()  # expressions that certainly ran at import
        self._left: Set[Tuple[int, str]] = set()  # containers of which the import moves an element away

    def visit(self, node: ast.AST, scope: Scope, certain: bool) -> None:
        """Looks at a statement or expression that runs at import. One that is not certain to run may move a value away only."""
        if certain:
            self._ran.add(id(node))
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                key = self._key(target, scope)
                if key is None:
                    continue
                if self.cuda.placed_expression(node.value, scope):
                    self._place(key, Placed(_text(target), node.lineno, scope.module.path), certain)
                elif not self._keeps(node.value, target):
                    self.placed.pop(key, None)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
            call, moved = node.value, node.value.func.value
            key = self._key(moved, scope)
            if key is not None and self.cuda.placed_expression(call, scope):
                self._place(key, Placed(_text(moved), node.lineno, scope.module.path), certain)
            elif key is not None and node.value.func.attr in ("cpu", "to"):
                self.placed.pop(key, None)
            container = root(moved, scope)
            if container is not None and node.value.func.attr in ("cpu", "to") and not self.cuda.placed_expression(call, scope):
                self._left.add((id(container[0]), container[1]))

    def _place(self, key: Tuple[int, str], placed: Placed, certain: bool) -> None:
        if certain:
            self.placed[key] = placed

    def _key(self, target: ast.expr, scope: Scope) -> Optional[Tuple[int, str]]:
        """Returns what identifies a global, or an attribute of an object of the Space's own class."""
        if isinstance(target, ast.Name) and (scope.kind == "module" or target.id in scope.globals):
            return id(scope.module), target.id
        if isinstance(target, ast.Attribute):
            refs = self.cuda.names.resolve(target.value, scope)
            if len(refs) == 1 and refs[0].instance is not None:
                return id(refs[0].instance), target.attr
        return None

    @staticmethod
    def _keeps(value: ast.expr, target: ast.expr) -> bool:
        """Reports whether an assignment leaves the value where it stood: `model = torch.compile(model)`, `model = model.eval()`."""
        if isinstance(value, ast.Call):
            inner = [*value.args, *([value.func.value] if isinstance(value.func, ast.Attribute) else [])]
            moved = isinstance(value.func, ast.Attribute) and value.func.attr in ("cpu", "to")
            return not moved and any(_text(node) == _text(target) for node in inner)
        return False

    def of(self, node: ast.AST, scope: Scope, names: Names, depth: int = 0) -> Optional[Placed]:
        """Returns what a name, `module.name` or an element of a container stands for, if it stands on cuda."""
        if depth > 5:
            return None
        if isinstance(node, ast.Name):
            where, bindings = scope.lookup(node.id)
            if where is None:
                return None
            found = self.placed.get((id(where), node.id))
            if found is not None or len(bindings) != 1:
                return found
            return self._bound(where, bindings[0], names, depth)
        if isinstance(node, ast.Attribute):
            refs = names.resolve(node.value, scope)
            if len(refs) == 1:
                return self.placed.get((id(refs[0].module or refs[0].instance), node.attr))
        return self._element(node, scope, values(node, scope), names, depth)

    def _element(self, node: ast.AST, scope: Scope, found: List[Element], names: Names, depth: int) -> Optional[Placed]:
        """Returns the first of the elements, if all stand on cuda."""
        container = root(node, scope)
        if container is None or (id(container[0]), container[1]) in self._left:
            return None
        for e in found:
            placed = id(e.value) in self._ran and self.cuda.placed_expression(e.value, e.scope)
            if not placed and self.of(e.value, e.scope, names, depth + 1) is None:
                return None
        return Placed(ast.unparse(node), found[0].value.lineno, found[0].scope.module.path) if found else None

    def _bound(self, where: Scope, binding: Binding, names: Names, depth: int) -> Optional[Placed]:
        """Returns what the only binding of a name stands for: an element of a container, or a name of another module."""
        if binding.kind == "part" and binding.value is not None:
            return self._element(binding.value, where, part(binding.value, where, binding.index), names, depth)
        if binding.kind == "assign" and isinstance(binding.value, (ast.Subscript, ast.Call)):
            return self._element(binding.value, where, values(binding.value, where), names, depth)
        return self._imported(where, binding, names)

    def _imported(self, where: Scope, binding: Binding, names: Names) -> Optional[Placed]:
        if binding.kind != "from":
            return None
        own = names.project.source_module(where.module, binding)
        return self.placed.get((id(own), binding.attr)) if own is not None else None
