"""Rules about the start: GPU functions, launch(), the order of imports, CUDA at import."""

from __future__ import annotations

import ast
import os
from typing import List, Optional, Set, Tuple

from context import Space, keyword, line_of
from cuda import LOW_LEVEL_ERROR
from folding import UNKNOWN
from gpu import is_known_library
from order import Event
from scopes import Function
from source import read_text

BUILDERS = (
    "gradio.Blocks",
    "gradio.Interface",
    "gradio.ChatInterface",
    "gradio.TabbedInterface",
    "gradio.load",
    "gradio.Server",
    "gradio.mix.Series",
    "gradio.mix.Parallel",
)
SERVING = (
    "uvicorn.run",
    "uvicorn.Server",
    "uvicorn.Config",
    "gradio.mount_gradio_app",
    "gradio.routes.mount_gradio_app",
    "hypercorn.run",
    "gunicorn.run",
)
DOWNLOADS = ("huggingface_hub.snapshot_download", "huggingface_hub.hf_hub_download")
QUIET = ("builtins.print", "time.sleep", "logging.info", "logging.debug", "logging.warning")


def check(space: Space) -> None:
    """Runs the rules of this file."""
    if space.app is None:
        return
    for rule, run in (
        ("A305", gpu_function),
        ("A606", launch),
        ("A604", launch_arguments),
        ("E301", before_spaces),
        ("E304", no_spaces),
        ("F309", at_import),
        ("A607", downloads),
    ):
        space.facts.safely(rule, lambda run=run: run(space))  # type: ignore[misc]


def uses_zerogpu(space: Space) -> bool:
    """Reports whether the app imports `spaces`."""
    return space.order.spaces is not None


def gpu_function(space: Space) -> None:
    """A305: `spaces` is imported, and nothing in the Space mentions its decorator."""
    first = space.order.spaces
    if first is None or first.caught or not first.certain or space.gpu.all or not space.is_complete or not builds_app(space):
        return
    if _mentions_gpu(space) or not _is_launched(space):
        return
    bound = [space.names.library(e.expression, e.module.scope_at(e.node)) for e in space.endpoints.all if e.function is None]
    severity = "" if all(not name or is_known_library(name) for name in bound) else "warning"  # a library may decorate its handlers
    space.facts.add("A305", first.scope.module.path, line_of(first.node), severity)


def _mentions_gpu(space: Space) -> bool:
    """Reports whether any Python file of the Space mentions GPU or passes `spaces` on."""
    for module in space.modules:
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr in ("GPU", "gradio_auto_wrap", "enable_gradio_auto_wrap"):
                return True
            if isinstance(node, ast.ImportFrom) and node.module == "spaces" and node.level == 0 and node.names[0].name == "*":
                if any(isinstance(used, ast.Name) and used.id == "GPU" for used in module.nodes):
                    return True
            if isinstance(node, ast.alias) and node.name in ("GPU", "gradio_auto_wrap", "enable_gradio_auto_wrap"):
                return True
            if isinstance(node, ast.Call):
                for argument in node.args:
                    if isinstance(argument, ast.Name) and space.names.library(argument, module.scope_at(node)) == "spaces":
                        return True
    texts = (space.project.sources[m.path].text for m in space.modules)
    if any("SPACES_GRADIO_AUTO_WRAP" in text for text in texts):
        return True
    return any("spaces.GPU" in _text(space, path) for path in space.project.python_files(2000) if path not in space.project.modules)


def _text(space: Space, path: str) -> str:
    text, _ = read_text(os.path.join(space.project.root, path))
    return text or ""


def builds_app(space: Space) -> Optional[Event]:
    """Returns where the import builds a Gradio app; the last place counts."""
    found = None
    for event in space.at_import:
        if isinstance(event.node, ast.Call) and space.library(event.node, event.scope) in BUILDERS:
            found = event
    return found


def _launch_calls(space: Space) -> List[Tuple[ast.Call, Optional[Function]]]:
    found: List[Tuple[ast.Call, Optional[Function]]] = []
    for module in space.modules:
        for node in module.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch":
                found.append((node, module.function_at(node)))
    return found


def _is_launched(space: Space) -> bool:
    return any(
        isinstance(e.node, ast.Call) and isinstance(e.node.func, ast.Attribute) and e.node.func.attr == "launch" for e in space.at_import
    )


def _mentions_launch(space: Space) -> bool:
    """Reports whether the attribute launch or a way to run other code appears anywhere in the own modules."""
    for module in space.modules:
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr in ("launch", "reload", "run_path", "run_module", "system", "Popen"):
                return True
            if isinstance(node, ast.Constant) and node.value == "launch":
                return True
            if isinstance(node, ast.Call) and space.library(node, module.scope_at(node)).startswith(
                ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn")
            ):
                return True
    return False


def launch(space: Space) -> None:
    """A606 and A311: the app is built, and launch() never runs."""
    if _reports_itself(space):
        return
    serving = _serving(space)
    built = builds_app(space)
    loop = _endless(space)
    if loop is not None and _launches_later(loop) and not _launches_before(space, loop):
        space.facts.add(
            "A606",
            loop.scope.module.path,
            line_of(loop.node),
            why=f"the loop on line {line_of(loop.node)} never ends, so the code after it does not run",
        )
        return
    if built is None or _is_launched(space):
        return
    if serving is not None and not _launch_calls(space):
        severity = "" if space.gpu.all and uses_zerogpu(space) and serving.certain and space.is_complete else "info"
        name = space.library(serving.node, serving.scope)
        space.facts.add("A311", serving.scope.module.path, line_of(serving.node), severity, call=f"{name}()")
        return
    if serving is None and not space.order.dynamic and not space.project.problems and not _mentions_launch(space):
        if built.certain and not _has_foreign_runner(space):
            space.facts.add("A606", built.scope.module.path, line_of(built.node), why="no line of the Space calls launch()")


def _reports_itself(space: Space) -> bool:
    """Reports whether the app calls spaces.zero.startup(), which sends the report that launch() would send."""
    for event in space.at_import:
        if space.library(event.node, event.scope).startswith("spaces.") and space.library(event.node, event.scope).endswith(".startup"):
            return True
    return False


def _has_foreign_runner(space: Space) -> bool:
    """Reports whether an app object is passed to code of a library, which may launch it."""
    for event in space.at_import:
        if isinstance(event.node, ast.Call) and not space.library(event.node, event.scope).startswith("gradio."):
            for argument in [*event.node.args, *[k.value for k in event.node.keywords]]:
                if any(ref.library in {b + "()" for b in BUILDERS} for ref in space.names.resolve(argument, event.scope)):
                    return True
    return False


def _serving(space: Space) -> Optional[Event]:
    """Returns where the app is served without launch(); uvicorn.run wins over the mount."""
    found = None
    for event in space.at_import:
        if isinstance(event.node, ast.Call):
            name = space.library(event.node, event.scope)
            if name in SERVING and (found is None or name.startswith("uvicorn")):
                found = event
    return found


def _endless(space: Space) -> Optional[Event]:
    """Returns a loop at the top level of a module that certainly never ends."""
    for event in space.at_import:
        node = event.node
        if isinstance(node, ast.While) and event.certain and not event.caught and not event.stack:
            if (
                space.folding.truth(node.test, event.scope) is True
                and isinstance(node.test, ast.Constant)
                and not _may_end(space, node, event)
            ):
                return event
    return None


def _may_end(space: Space, loop: ast.While, event: Event) -> bool:
    """Reports whether anything in a loop may leave it: break, return, raise, or a call that is not known to return."""
    for node in ast.walk(loop):
        if isinstance(node, (ast.Break, ast.Return, ast.Raise, ast.Yield, ast.YieldFrom, ast.Await, ast.Try)):
            return True
        if isinstance(node, ast.Call) and space.library(node, event.scope) not in QUIET:
            return True
    return False


def _launches_later(loop: Event) -> bool:
    """Reports whether the module calls launch() below the loop. An app with a server of its own has no such line."""
    for node in loop.scope.module.nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "launch"
            and line_of(node) > line_of(loop.node)
        ):
            return True
    return False


def _launches_before(space: Space, loop: Event) -> bool:
    for event in space.at_import:
        if event is loop:
            return False
        node = event.node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch":
            return True
    return False


def launch_arguments(space: Space) -> None:
    """A604: launch() names a port or an address that the Hub does not look at."""
    for event in space.at_import:
        node = event.node
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "launch"):
            continue
        port = space.folding.fold(keyword(node, "server_port"), event.scope)
        name = space.folding.fold(keyword(node, "server_name"), event.scope)
        if isinstance(port, int) and not isinstance(port, bool) and port != 7860:
            space.facts.add("A604", event.scope.module.path, line_of(node), argument=f"server_port={port}")
        if isinstance(name, str) and (name in ("localhost", "::1") or name.startswith("127.")):
            space.facts.add("A604", event.scope.module.path, line_of(node), argument=f'server_name="{name}"')


def before_spaces(space: Space) -> None:
    """E301: CUDA is used before the first import of `spaces`, across the Space's own modules."""
    first = space.order.spaces
    if first is None or not first.certain:
        return
    imported = f"{first.scope.module.path}:{line_of(first.node)}"
    for event in space.at_import:
        if event.spaces:
            return
        call, asks = space.cuda.touches(event.node, event.scope)
        if call:
            severity = "" if event.certain else "warning"
            outcome = "the import" if asks else 'the call fails with "No CUDA GPUs are available", or the import'
            space.facts.add("E301", event.scope.module.path, line_of(event.node), severity, call=call, imported=imported, outcome=outcome)
            if event.certain:
                return


def no_spaces(space: Space) -> None:
    """E304: no import of `spaces`. An error if the app certainly uses CUDA, else a remark."""
    if space.order.spaces is not None or space.mentions_spaces or builds_app(space) is None:
        return
    for event in space.at_import:
        if event.certain and not event.caught:
            call = space.cuda.places(event.node, event.scope)
            if call and space.is_complete:
                space.facts.add(
                    "E304",
                    event.scope.module.path,
                    line_of(event.node),
                    what=f"{call} needs a GPU, and nothing imports `spaces`",
                    outcome='there is no GPU outside of GPU functions, so the line fails with "No CUDA GPUs are available"',
                )
                return
    handlers = _handlers_on_cuda(space)
    if not handlers:
        space.facts.add(
            "E304",
            space.project.app,
            0,
            "info",
            what="nothing imports `spaces`",
            outcome="ZeroGPU stops a Space without a GPU function, so this Space runs on other hardware only, such as CPU basic",
        )


def _handlers_on_cuda(space: Space) -> bool:
    found = False
    for runs in space.outside().values():
        for run in runs:
            call = space.cuda.places(run.node, run.scope) if run.certain and not run.caught else ""
            if call and space.is_complete and not found:
                space.facts.add(
                    "E304",
                    run.scope.module.path,
                    line_of(run.node),
                    what=f"{call} needs a GPU, and nothing imports `spaces`",
                    outcome='there is no GPU outside of GPU functions, so the call fails with "No CUDA GPUs are available"',
                )
                found = True
    return found


def at_import(space: Space) -> None:
    """F309: calls at import that the emulation of spaces does not intercept."""
    seen: Set[Tuple[str, int]] = set()
    default: Optional[Event] = None
    for event in space.at_import:
        if not event.spaces or not event.certain or any(function in space.gpu for function in event.stack):
            continue
        call, error = space.cuda.reaches_low_level(event.node, event.scope)
        place = (event.scope.module.path, line_of(event.node))
        if call and place not in seen:
            seen.add(place)
            space.facts.add("F309", *place, "warning" if event.caught else "", call=call, error=error)
        if space.cuda.sets_default_device(event.node, event.scope):
            default = event
        elif default is not None and space.cuda.creates(event.node, event.scope):
            call = f"the default device of line {line_of(default.node)}, with which this line creates a tensor"
            space.facts.add("F309", *place, "warning" if event.caught else "", call=call, error=LOW_LEVEL_ERROR)
            return


def downloads(space: Space) -> None:
    """A607: a download at import, which preload_from_hub would move to the build."""
    readme = _text(space, "README.md")
    for event in space.at_import:
        node = event.node
        if isinstance(node, ast.Call) and event.certain and space.library(node, event.scope) in DOWNLOADS:
            repo = space.folding.fold(keyword(node, "repo_id") or (node.args[0] if node.args else None), event.scope)
            if repo is not UNKNOWN and isinstance(repo, str) and not ("preload_from_hub" in readme and repo in readme):
                space.facts.add("A607", event.scope.module.path, line_of(node), repo=repo)
