"""What later stages need: GPU functions, endpoints, variables and imports, as JSON."""

from __future__ import annotations

import ast
import math
import sys
from typing import Any, Dict, List, Set

from context import Space, line_of
from evaluate import Opaque
from folding import UNKNOWN
from gpu import GPUFunction, seconds
from variables import variables

MAX_ROWS = 20


def inventory(space: Space) -> Dict[str, Any]:
    """Returns the inventory. Each part is [] if it could not be made."""
    parts: Dict[str, Any] = {
        "imports_spaces": space.order.spaces is not None,
        "gpu_functions": [],
        "endpoints": [],
        "variables": [],
        "imports": [],
    }
    makers = {"gpu_functions": _gpu_functions, "endpoints": _endpoints, "variables": _variables, "imports": _imports}
    for name, make in makers.items():

        def run(name: str = name, make: Any = make) -> None:
            parts[name] = make(space)

        space.facts.safely(f"the inventory of {name}", run)
    return parts


def _gpu_functions(space: Space) -> List[Dict[str, Any]]:
    return [_gpu_function(space, gpu) for gpu in space.gpu.all]


def _gpu_function(space: Space, gpu: GPUFunction) -> Dict[str, Any]:
    decoration = gpu.decoration
    where = decoration.scope.module.path if decoration.scope is not None else decoration.module.path
    made: Dict[str, Any] = {
        "name": gpu.name,
        "file": gpu.function.module.path,
        "line": gpu.function.line,
        "generator": gpu.function.is_generator(),
        "decorator_file": where,
        "decorator_line": line_of(decoration.duration if decoration.duration is not None else decoration.node),
    }
    size = space.folding.fold(decoration.size, decoration.scope) if decoration.size is not None and decoration.scope is not None else None
    made["size"] = size if isinstance(size, str) else ""
    function = space.durations.function_of(gpu)
    if function is None:
        value = seconds(gpu, space.folding)
        if hasattr(value, "total_seconds"):
            value = value.total_seconds()
        known = value is not UNKNOWN and isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        made["duration"] = "fixed" if known else "unknown"
        if known:
            made["seconds"] = float(value)
        return made
    made.update(duration="dynamic", duration_function=space.name(function), duration_file=function.module.path, duration_line=function.line)
    found = space.durations.evaluate(gpu, function)
    for name, extreme in (("longest", found.longest), ("shortest", found.shortest)):
        if extreme is not None and math.isfinite(extreme[0]):
            made[name] = {"seconds": extreme[0], "inputs": _plain(extreme[1])}
    made["complete"] = found.complete and found.longest is not None
    return made


def _plain(inputs: Dict[str, Any]) -> Dict[str, str]:
    return {name: str(value) for name, value in inputs.items() if not isinstance(value, Opaque)}


def _endpoints(space: Space) -> List[Dict[str, Any]]:
    made: List[Dict[str, Any]] = []
    used: Set[str] = set()
    for endpoint in space.endpoints.all:
        if endpoint.kind == "examples":
            continue
        name = base = endpoint.name()
        number = 1
        while name and name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        row: Dict[str, Any] = {
            "kind": endpoint.kind,
            "file": endpoint.module.path,
            "line": endpoint.line,
            "api_name": f"/{name}" if name else "",
            "hidden": endpoint.api_name is False,
            "function": space.name(endpoint.function) if endpoint.function else "",
            "gpu": endpoint.function is not None and endpoint.function in space.gpu,
            "label": endpoint.label,
            "event": endpoint.event,
        }
        if endpoint.inputs is not None:
            row["inputs"] = [c.describe() for c in endpoint.inputs]
        scope = endpoint.module.scope_at(endpoint.node)
        examples = space.folding.fold(endpoint.keywords.get("examples"), scope)
        if isinstance(examples, (list, tuple)):
            row["examples"] = [e if isinstance(e, (list, tuple)) else [e] for e in examples[:MAX_ROWS]]
        made.append(row)
    _add_examples(space, made)
    return made


def _add_examples(space: Space, made: List[Dict[str, Any]]) -> None:
    """Gives the rows of gr.Examples to the endpoints with the same function."""
    for endpoint in space.endpoints.all:
        if endpoint.kind != "examples" or endpoint.function is None:
            continue
        scope = endpoint.module.scope_at(endpoint.node)
        rows = space.folding.fold(endpoint.keywords.get("examples") or (endpoint.node.args[0] if endpoint.node.args else None), scope)
        for row in made:
            if isinstance(rows, (list, tuple)) and row["function"] == space.name(endpoint.function) and "examples" not in row:
                row["examples"] = [r if isinstance(r, (list, tuple)) else [r] for r in rows[:MAX_ROWS]]


def _variables(space: Space) -> List[Dict[str, object]]:
    return [variable.describe() for variable in variables(space)]


def _imports(space: Space) -> List[Dict[str, Any]]:
    """Returns the imports of libraries, the first place of each top-level name."""
    found: Dict[str, Dict[str, Any]] = {}
    for module in space.modules:
        for node in module.nodes:
            names: List[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if space.names.own_module(top) is None and not space.project.is_namespace(top):
                    found.setdefault(top, {"name": top, "file": module.path, "line": line_of(node)})
    return [found[name] for name in sorted(found)]
