"""Executes the first imports of the app in advance, and waits until the host needs the process (`run --watch`).

A restart then takes the time of the app's own code instead of that of `import gradio`. The imports are those statements
with which the app begins, in its order, so the app finds what it would have found. They end at the first statement that is
no import, and at the first import of a module of the Space.
"""
from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

    from .frames import Channel

# Modules that Gradio imports during launch(), after the app's own code.
AT_LAUNCH = (
    "anyio._backends._asyncio",
    "encodings.idna",
    "gradio.http_server",
    "starlette.middleware.cors",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    *([] if sys.version_info >= (3, 14) else ["pydantic.v1"]),  # it warns of newer Pythons
)
STALE = 75  # exit code of a standby that the host must replace by a new process (worker/standby.go)


def wait(channel: Channel, runner: str) -> None:
    """Imports, then returns once the host has sent `go`. Ends the process if it would differ from a new one."""
    folders = [os.path.dirname(os.path.abspath(sys.orig_argv[-1])), os.getcwd()]
    done = _first_imports(folders)
    _execute(done, folders, runner)
    if _has_modules_of(folders):
        os._exit(STALE)
    try:
        channel.receive()
    except EOFError:
        os._exit(3)
    if [_text(node) for node in _first_imports(folders)[: len(done)]] != [_text(node) for node in done]:
        os._exit(STALE)


def _text(node: ast.stmt) -> str:
    import ast

    return ast.dump(node, include_attributes=True)  # with the line, which tracebacks show


def _first_imports(folders: list[str]) -> list[ast.stmt]:
    """Returns the import statements with which the app begins."""
    import ast

    found: list[ast.stmt] = []
    for node in _parse(_read()):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # the docstring
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            break
        if any(_is_own(name.partition(".")[0], folders) for name in names):
            break
        found.append(node)
    return found


def _read() -> bytes:
    try:
        with open(sys.orig_argv[-1], "rb") as file:
            return file.read()
    except OSError:
        return b""


def _parse(source: bytes) -> list[ast.stmt]:
    """Returns the statements of source, up to the line of a syntax error."""
    import ast

    for _ in range(2):
        try:
            return ast.parse(source, sys.orig_argv[-1]).body
        except SyntaxError as error:
            source = b"\n".join(source.split(b"\n")[: max(0, (error.lineno or 1) - 1)])
        except ValueError:  # null bytes
            break
    return []


def _is_own(root: str, folders: list[str]) -> bool:
    """Reports whether the Space has a module of that name."""
    for folder in folders:
        with os.scandir(folder) as entries:
            if any(entry.name.partition(".")[0] == root and root for entry in entries):
                return True
    return False


def _execute(imports: list[ast.stmt], folders: list[str], runner: str) -> None:
    """Executes the statements with the sys.path of the app. An error ends the process: the app's own start reports it."""
    import ast

    before = sys.path[:]
    sys.path[:] = [folders[0], *_path_of_the_app(before, runner)]
    try:
        code = compile(ast.Module(body=imports, type_ignores=[]), os.path.abspath(sys.orig_argv[-1]), "exec")
        exec(code, {"__name__": "__main__"})
        _import_for_launch()
    except BaseException:
        os._exit(STALE)
    finally:
        sys.path[:] = before


def _import_for_launch() -> None:
    """Imports what launch() of Gradio needs, if the app has imported Gradio. The modules of another Gradio may be others."""
    import importlib

    if "gradio" not in sys.modules:
        return
    for name in AT_LAUNCH:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def _path_of_the_app(now: list[str], runner: str) -> list[str]:
    """Returns sys.path with the entries of PYTHONPATH, which sitecustomize has taken out, without the runner's folder."""
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return [entry for entry in [*given, *now] if entry != runner]


def _has_modules_of(folders: list[str]) -> bool:
    """Reports whether a module of the Space has been imported. Its next edit would have no effect."""
    installed = [os.path.realpath(prefix) + os.sep for prefix in {sys.prefix, sys.base_prefix}]
    own = [os.path.realpath(folder) + os.sep for folder in folders]
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            path = os.path.realpath(path)
            if any(path.startswith(folder) for folder in own) and not any(path.startswith(prefix) for prefix in installed):
                return True
    return False
