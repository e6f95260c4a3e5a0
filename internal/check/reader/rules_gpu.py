"""Rules about handlers and GPU functions: what must be decorated, what cannot be pickled, what a worker cannot do."""

from __future__ import annotations

import ast
from typing import Dict, List, Optional, Set, Tuple

from context import Space, keyword, line_of
from cuda import LOW_LEVEL_ERROR, RUNNING
from endpoints import Endpoint, special_parameters
from folding import UNKNOWN
from reach import Run
from scopes import Function, ModuleScope, Scope, own_nodes

PROCESSES = (
    "multiprocessing.Process",
    "multiprocessing.Pool",
    "multiprocessing.pool.Pool",
    "multiprocessing.Manager",
    "torch.multiprocessing.Process",
    "torch.multiprocessing.Pool",
    "torch.multiprocessing.spawn",
    "concurrent.futures.ProcessPoolExecutor",
    "concurrent.futures.process.ProcessPoolExecutor",
    "multiprocessing.get_context().Process",
    "multiprocessing.get_context().Pool",
)
PROGRAMS = (
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
    "os.system",
    "os.popen",
    "asyncio.create_subprocess_exec",
)
UNPICKLABLE = {
    "builtins.open()": "an open file",
    "threading.Lock()": "a lock",
    "threading.RLock()": "a lock",
    "threading.Event()": "a threading.Event",
    "threading.Thread()": "a thread",
    "sqlite3.connect()": "a database connection",
    "queue.Queue()": "a queue.Queue",
}
MUTATORS = {"append", "extend", "insert", "add", "update", "pop", "remove", "clear", "setdefault", "appendleft", "discard", "popitem"}
COMPILES = ("torch.compile",)


def check(space: Space) -> None:
    """Runs the rules of this file."""
    rules = (
        ("F308", undecorated),
        ("F311", programs),
        ("G307", asynchronous),
        ("G311", event_data),
        ("G312", arguments),
        ("G313", methods),
        ("G314", compiled),
        ("G315", cuda_result),
        ("G317", mutated),
        ("G318", lazy_globals),
        ("G321", processes),
    )
    for rule, run in rules:
        space.facts.safely(rule, lambda run=run: run(space))  # type: ignore[misc]


def role(space: Space, function: Function, path: Tuple[Function, ...]) -> str:
    """Returns how a visitor reaches a function: as a handler, or through one."""
    endpoints = space.endpoints.of(path[0])
    text = endpoints[0].role() if endpoints else "a handler"
    return text if function is path[0] else f"called by {space.name(path[0])}, {text}"


def undecorated(space: Space) -> None:
    """F308 and F315: code that a visitor's call runs outside of GPU functions uses CUDA. One use of each function is reported."""
    certain: Set[Function] = set()
    doubtful: Dict[Function, Run] = {}
    for runs in space.outside().values():
        for run in runs:
            function = run.path[-1]
            if function in certain or (function in doubtful and not _is_certain(space, run)) or not _uses_cuda(space, run):
                continue
            if _is_certain(space, run):
                certain.add(function)
                _report_use(space, run, "")
            else:
                doubtful[function] = run
    for function, run in doubtful.items():
        if function not in certain:
            _report_use(space, run, "warning")


def _is_certain(space: Space, run: Run) -> bool:
    """Reports whether every call runs the node, and outside of GPU functions."""
    return run.certain and not run.caught and not any(space.gpu.may_be_wrapped(f) for f in run.path)


def _uses_cuda(space: Space, run: Run) -> bool:
    """Reports whether a node uses CUDA. Without `spaces`, no model stands on cuda: the placing itself fails."""
    if space.cuda.reaches_low_level(run.node, run.scope)[0] or space.cuda.places(run.node, run.scope):
        return True
    return space.order.spaces is not None and _runs_model(space, run) is not None


def _report_use(space: Space, run: Run, severity: str) -> None:
    function = run.path[-1]
    call, error = space.cuda.reaches_low_level(run.node, run.scope)
    if not call:
        call, error = space.cuda.places(run.node, run.scope), LOW_LEVEL_ERROR
    values = {"function": space.name(function), "role": role(space, function, run.path)}
    if call:
        error = error if space.order.spaces is not None else "RuntimeError: No CUDA GPUs are available"
        space.facts.add("F308", run.scope.module.path, line_of(run.node), severity, call=call, error=error, **values)
        return
    placed = _runs_model(space, run)
    if placed is not None:
        name, line, path = placed
        where = str(line) if path == run.scope.module.path else f"{line} of {path}"
        space.facts.add("F315", run.scope.module.path, line_of(run.node), severity, name=name, placed=where, **values)


def _runs_model(space: Space, run: Run) -> Optional[Tuple[str, int, str]]:
    """Returns the module on cuda that a call runs."""
    node = run.node
    if not isinstance(node, ast.Call):
        return None
    target: ast.AST = node.func
    if isinstance(target, ast.Attribute) and target.attr in RUNNING:
        found = space.standing.of(target.value, run.scope, space.names)
    else:
        found = space.standing.of(target, run.scope, space.names)
    if found is None or any(space.names.functions(node.func, run.scope)):
        return None
    return found.name, found.line, found.path


def programs(space: Space) -> None:
    """F311: a GPU function starts another Python program."""
    for function, runs in space.inside().items():
        for run in runs:
            if (
                space.library(run.node, run.scope) in PROGRAMS
                and isinstance(run.node, ast.Call)
                and run.node.args
                and _is_python(run.node.args[0])
            ):
                space.facts.add("F311", run.scope.module.path, line_of(run.node), function=space.name(function))


def _is_python(command: ast.AST) -> bool:
    for node in ast.walk(command):
        if isinstance(node, ast.Attribute) and node.attr == "executable":
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.replace("/", " ").split()
            if any(w in ("python", "python3", "accelerate", "torchrun") or w.endswith(".py") for w in words):
                return True
    return False


def asynchronous(space: Space) -> None:
    """G307: an async GPU function."""
    for gpu in space.gpu.all:
        node = gpu.function.node
        if isinstance(node, ast.AsyncFunctionDef) and not gpu.function.is_generator() and _reaches_gpu_directly(space, gpu.function):
            space.facts.add("G307", gpu.function.module.path, node.lineno, function=gpu.name)


def _reaches_gpu_directly(space: Space, function: Function) -> bool:
    """Reports whether spaces.GPU gets the coroutine function itself: it is the innermost decorator, or no wrapper is between."""
    decorators = function.decorators
    if not decorators:
        return True
    return space.gpu.decoration(decorators[-1], function.outer) is not None and space.gpu.by_function[function].decoration.known


def event_data(space: Space) -> None:
    """G311: Gradio's event data is pickled for the worker, which fails."""
    for gpu in space.gpu.all:
        events, _ = special_parameters(space.names, gpu.function)
        bound = [e for e in space.endpoints.of(gpu.function) if e.kind == "event"]
        if events and bound and gpu.function.owner is None:
            line = _parameter_line(gpu.function, events[0])
            space.facts.add("G311", gpu.function.module.path, line, function=gpu.name, parameter=events[0])
    for function, runs in space.outside().items():
        events, _ = special_parameters(space.names, function)
        for run in runs:
            if events and run.path == (function,) and isinstance(run.node, ast.Call) and _calls_gpu(space, run.node, run.scope):
                for argument in [*run.node.args, *[k.value for k in run.node.keywords]]:
                    if isinstance(argument, ast.Name) and argument.id in events and run.scope is function.scope:
                        called = space.name(space.names.functions(run.node.func, run.scope)[0])
                        space.facts.add(
                            "G311",
                            run.scope.module.path,
                            line_of(run.node),
                            "" if run.certain and not run.caught else "warning",
                            function=called,
                            parameter=argument.id,
                        )


def _parameter_line(function: Function, name: str) -> int:
    for argument in [*function.node.args.posonlyargs, *function.node.args.args]:
        if argument.arg == name:
            return argument.lineno
    return function.line


def _calls_gpu(space: Space, node: ast.Call, scope: Scope) -> bool:
    found = space.names.resolve(node.func, scope)
    return bool(found) and all(
        ref.function is not None and ref.function in space.gpu and not space.gpu.by_function[ref.function].by_call for ref in found
    )


def arguments(space: Space) -> None:
    """G312: an argument of a GPU function that cannot be pickled."""
    for function, runs in space.outside().items():
        for run in runs:
            if not isinstance(run.node, ast.Call) or not _calls_gpu(space, run.node, run.scope):
                continue
            called = space.name(space.names.functions(run.node.func, run.scope)[0])
            named: List[Tuple[str, ast.expr]] = [(str(i + 1), a) for i, a in enumerate(run.node.args)]
            named += [(k.arg, k.value) for k in run.node.keywords if k.arg]
            for name, argument in named:
                what = _unpicklable(space, argument, run.scope)
                if what:
                    position = f"argument {name}" if name.isdigit() else f"the argument {name}"
                    space.facts.add(
                        "G312",
                        run.scope.module.path,
                        line_of(run.node),
                        "" if run.certain and not run.caught else "warning",
                        function=called,
                        argument=position,
                        what=what,
                    )


def _unpicklable(space: Space, node: ast.expr, scope: Scope) -> str:
    """Returns what an argument is, if it cannot be pickled."""
    if isinstance(node, ast.Lambda):
        return "a lambda"
    if isinstance(node, ast.GeneratorExp):
        return "a generator"
    if isinstance(node, ast.Name):
        where, bindings = scope.lookup(node.id)
        if where is None or len(bindings) != 1:
            return ""
        if bindings[0].kind == "function" and where.kind == "function":
            return f"the inner function {node.id}"
        if bindings[0].kind == "assign" and isinstance(bindings[0].value, ast.Lambda):
            return "a lambda"
        if bindings[0].kind == "assign" and isinstance(bindings[0].value, ast.GeneratorExp):
            return "a generator"
        if bindings[0].kind not in ("assign", "with"):
            return ""
    refs = space.names.resolve(node, scope)
    if len(refs) == 1:
        function = refs[0].function
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Call) and function is None:
            return UNPICKLABLE.get(refs[0].library, "")
        if isinstance(node, ast.Call):
            called = space.names.functions(node.func, scope)
            if len(called) == 1 and called[0].is_generator() and called[0] not in space.gpu:
                return f"the generator {called[0].name}()"
        if refs[0].library in UNPICKLABLE:
            return UNPICKLABLE[refs[0].library]
    return ""


def methods(space: Space) -> None:
    """G313: a GPU function is a method, so self is pickled with each call. An object without attributes is no burden."""
    for gpu in space.gpu.all:
        function = gpu.function
        static = any(isinstance(d, ast.Name) and d.id in ("staticmethod", "classmethod") for d in function.decorators)
        empty = function.owner is not None and not function.owner.attributes and not function.owner.node.bases
        if function.owner is not None and not empty and not static and not gpu.by_call and function.node.args.args:
            space.facts.add("G313", function.module.path, function.line, function=gpu.name)


def compiled(space: Space) -> None:
    """G314: torch.compile."""
    found: Dict[Tuple[str, int], bool] = {}
    for event in space.at_import:
        for node in [event.node, *getattr(event.node, "decorator_list", [])]:
            called = node.func if isinstance(node, ast.Call) else node
            if isinstance(called, (ast.Attribute, ast.Name)) and space.names.library(called, event.scope) in COMPILES:
                key = (event.scope.module.path, line_of(node))
                found[key] = found.get(key, False) or (event.certain and not event.caught)
    for runs in [*space.inside().values(), *space.outside().values()]:
        for run in runs:
            if space.library(run.node, run.scope) in COMPILES:
                key = (run.scope.module.path, line_of(run.node))
                found[key] = found.get(key, False) or (run.certain and not run.caught)
    for (path, line), certain in found.items():
        space.facts.add("G314", path, line, "warning" if certain else "")


def cuda_result(space: Space) -> None:
    """G315: a GPU function returns a value that the same expression places on cuda. Inside of a worker that is no fault."""
    for gpu in space.gpu.all:
        if not space.durations.is_called_outside(gpu):
            continue
        for run in space.inside().get(gpu.function, []):
            node = run.node
            if isinstance(node, (ast.Return, ast.Yield)) and run.path == (gpu.function,) and run.certain and not run.caught:
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                if any(v is not None and space.cuda.places(v, run.scope) for v in values):
                    space.facts.add("G315", run.scope.module.path, line_of(node), function=gpu.name)


def _written_globals(function: Function) -> List[Tuple[str, ast.AST]]:
    """Returns the module's names that a function changes, with the statement."""
    found: List[Tuple[str, ast.AST]] = []
    for node in own_nodes(function.node):
        target: Optional[ast.AST] = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            target = node.func.value
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for one in targets:
                if isinstance(one, ast.Name) and one.id in function.scope.globals:
                    found.append((one.id, node))
                elif isinstance(one, ast.Subscript):
                    target = one.value
        if isinstance(target, ast.Name) and target.id not in function.scope.bindings:
            found.append((target.id, node))
    return found


def mutated(space: Space) -> None:
    """G317: a GPU function changes a global that a handler outside reads."""
    readers = {
        f: {(id(n.scope.module), x.id) for n in runs for x in [n.node] if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load)}
        for f, runs in space.outside().items()
    }
    for function, runs in space.inside().items():
        for body in {run.path[-1] for run in runs} | {function}:
            for name, node in _written_globals(body):
                if not _is_data(body.module, name):
                    continue
                reader = next((f for f, read in readers.items() if (id(body.module), name) in read and f is not function), None)
                if reader is not None:
                    space.facts.add(
                        "G317", body.module.path, line_of(node), function=space.name(body), name=name, reader=space.name(reader)
                    )


def _is_data(module: ModuleScope, name: str) -> bool:
    """Reports whether a module binds the name to plain data: a literal, or a container of the standard library."""
    bindings = module.bindings.get(name, [])
    kinds = (ast.List, ast.Dict, ast.Set, ast.Constant, ast.Tuple, ast.ListComp, ast.DictComp)
    return (
        bool(bindings)
        and all(
            b.kind != "assign"
            or isinstance(b.value, kinds)
            or (
                isinstance(b.value, ast.Call)
                and isinstance(b.value.func, ast.Name)
                and b.value.func.id in ("list", "dict", "set", "deque", "defaultdict")
            )
            for b in bindings
            if b.node in module.tree.body
        )
        and any(b.kind == "assign" for b in bindings)
    )


def lazy_globals(space: Space) -> None:
    """G318: a GPU function loads a model into a global on its first call."""
    for function, runs in space.inside().items():
        for body in {run.path[-1] for run in runs}:
            for name, node in _written_globals(body):
                if (
                    isinstance(node, ast.Assign)
                    and name in body.scope.globals
                    and _is_lazy(body, name, node)
                    and _is_heavy(space, body, node.value)
                ):
                    space.facts.add("G318", body.module.path, line_of(node), function=space.name(body), name=name)


def _is_lazy(function: Function, name: str, node: ast.AST) -> bool:
    """Reports whether the assignment stands below a test whether the name is empty."""
    above = function.module.is_above(node, (ast.If,))
    while isinstance(above, ast.If):
        if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(above.test)):
            return True
        above = function.module.is_above(above, (ast.If,))
    return False


def _is_heavy(space: Space, function: Function, value: ast.expr) -> bool:
    """Reports whether a value is a model: loaded by from_pretrained or load, or placed on cuda."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = space.library(node, function.scope)
            last = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if last in ("from_pretrained", "from_single_file", "load_model", "load_checkpoint") or name in (
                "transformers.pipeline",
                "torch.load",
                "torch.hub.load",
            ):
                return True
            if space.cuda.places(node, function.scope):
                return True
    return False


def processes(space: Space) -> None:
    """G321: a worker is a daemon process, which must not have children."""
    for function, runs in space.inside().items():
        for run in runs:
            if call := _process_call(space, run):
                space.facts.add(
                    "G321",
                    run.scope.module.path,
                    line_of(run.node),
                    "" if run.certain and not run.caught else "warning",
                    function=space.name(function),
                    call=call,
                )


def _process_call(space: Space, run: Run) -> str:
    """Returns the call that starts processes, as it is reported; "" for any other."""
    name = space.library(run.node, run.scope)
    if name in PROCESSES:
        return f"{name}()"
    if name in ("torch.utils.data.DataLoader", "torch.utils.data.dataloader.DataLoader") and isinstance(run.node, ast.Call):
        workers = space.folding.fold(keyword(run.node, "num_workers"), run.scope)
        if workers is not UNKNOWN and isinstance(workers, int) and workers > 0:
            return f"DataLoader(num_workers={workers})"
    return ""
