"""Recognizes known failures of a Space, so that the host can print one sentence with the place and the next step.

The runner sends the identifier of a rule of internal/check and the values of its sentence. The sentence itself is in Go
(internal/check/runtime.yaml and the pages of the rules). Nothing here runs unless an exception is printed.
"""
from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from . import pickling
from .cuda_order import NO_GPU, REFUSAL
from .tracebacks import RUNNER, package_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Values = dict[str, str]

MAX_VALUE = 200  # characters of one value; the host cuts them there too
MAX_CHAIN = 10


class Frame:
    """One frame of a traceback. file is relative to the Space's folder for its own code, otherwise absolute."""

    def __init__(self, root: str, entry: Any) -> None:
        code = entry.tb_frame.f_code
        self.path, self.line, self.name, self.entry = code.co_filename, entry.tb_lineno, code.co_name, entry
        self.package = package_of(self.path)
        self.file = own_path(root, self.path)

    @property
    def locals(self) -> dict[str, Any]:
        return self.entry.tb_frame.f_locals

    def is_in(self, *end: str) -> bool:
        return self.path.endswith(os.sep.join(end))


def own_path(root: str, path: str) -> str:
    """Returns a file of the Space relative to its folder, with slashes; "" for any other file."""
    if path.startswith("<") or package_of(path) or path.startswith(RUNNER):
        return ""
    whole = os.path.realpath(os.path.join(root, path))
    return os.path.relpath(whole, root).replace(os.sep, "/") if whole.startswith(root + os.sep) else ""


class Raised:
    """One exception of a chain, with what the rules look at."""

    def __init__(self, root: str, error: BaseException) -> None:
        self.root, self.error = root, error
        self.kinds = [kind.__name__ for kind in type(error).__mro__]
        self.modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        try:
            self.text = str(error)
        except Exception:
            self.text = ""
        self.frames = list(self._frames(error))
        self.own = [frame for frame in self.frames if frame.file]
        self.place = (self.own[-1].file, self.own[-1].line) if self.own else ("", 0)

    def _frames(self, error: BaseException) -> Iterator[Frame]:
        entry = error.__traceback__
        while entry is not None:
            yield Frame(self.root, entry)
            entry = entry.tb_next

    def frame(self, name: str, *file: str) -> Frame | None:
        """Returns the innermost frame of a function in a file, given by the end of its path."""
        return next((frame for frame in reversed(self.frames) if frame.name == name and frame.is_in(*file)), None)

    @property
    def handler(self) -> Frame | None:
        """Returns the innermost frame of the wrapper of a GPU function."""
        return next((found for name in HANDLERS if (found := self.frame(name, *WRAPPERS))), None)

    @property
    def last(self) -> Frame | None:
        return self.frames[-1] if self.frames else None

    @property
    def called(self) -> str:
        """Returns what the app's innermost line has called, such as torch.cuda.set_device."""
        inner = self.frames[self.frames.index(self.own[-1]) + 1 :]
        if not inner:
            return "this line"
        return f"{inner[0].entry.tb_frame.f_globals.get('__name__', '')}.{inner[0].name}"

    @property
    def at_import(self) -> bool:
        """Reports whether the app's innermost code is the top level of a module, or runs below the first one."""
        return bool(self.own) and self.own[0].name == "<module>"

    def blame(self, function: Any) -> str:
        """Makes a function's definition the place, unless the exception went through the app's code. Returns its name."""
        code = getattr(function, "__code__", None)
        if not self.own and code is not None and (file := own_path(self.root, code.co_filename)):
            self.place = (file, code.co_firstlineno)
        return str(getattr(function, "__name__", "the function"))


# One function per kind of failure. Each returns the rule and the values of its sentence, or None.

WRAPPERS = ("spaces", "zero", "wrappers.py")
HANDLERS = ("gradio_handler", "gpu_executor")  # the wrapper of a GPU function, in spaces 0.51 and 0.52
FIRST_USE = re.compile(r"CUDA was first used in (\S+) \((\S+)\)(?:, reached from (\S+:\d+))?")
IMPORTS_SPACES = re.compile(r"^[ \t]*(import|from)[ \t]+spaces\b", re.M)


def _cuda_before_spaces(raised: Raised) -> tuple[str, Values] | None:
    if REFUSAL not in raised.text:
        return None
    found = FIRST_USE.search(raised.text)
    imported = "{}:{}".format(*raised.place) if raised.own else "app.py"
    if not found:
        return "E301", {"call": "CUDA", "imported": imported}
    first, call, reached = found.groups()
    file, _, line = (reached or first).rpartition(":")
    raised.place = (file, int(line))
    if reached:
        return "E302", {"library": first, "call": call, "imported": imported}
    return "E301", {"call": call, "imported": imported}


def _no_gpu(raised: Raised) -> tuple[str, Values] | None:
    text = raised.text
    if not (NO_GPU in text or "Found no NVIDIA driver" in text or "Torch not compiled with CUDA enabled" in text):
        return None
    if "spaces" in sys.modules:
        return _cuda_outside(raised)
    found = FIRST_USE.search(text)
    call = found.group(2) if found else "CUDA"
    for frame in raised.own:
        source = _source(raised.root, frame.file)
        if imported := IMPORTS_SPACES.search(source):
            return "E301", {"call": call, "imported": f"{frame.file}:{source.count(chr(10), 0, imported.start()) + 1}"}
    return "E304", {"call": call}


def _source(root: str, file: str) -> str:
    try:
        with open(os.path.join(root, file), encoding="utf-8", errors="replace") as source:
            return source.read(1 << 20)
    except OSError:
        return ""


def _cuda_outside(raised: Raised) -> tuple[str, Values] | None:
    if not raised.own or raised.frame("run_task", *WRAPPERS) or raised.frame("iterate", *WRAPPERS):
        return None  # in a GPU worker it is not the author's
    call = raised.called
    if not raised.at_import:
        return "F308", {"function": raised.own[0].name, "call": call}
    if any(frame.package == "transformers" for frame in raised.frames):
        return "F310", {"call": call}
    return "F309", {"call": call}


LOW_LEVEL = re.compile(r"Low-level CUDA init .*reached")  # spaces 0.51.3, zero/torch/patching.py; the middle names the function


def _low_level(raised: Raised) -> tuple[str, Values] | None:
    return _cuda_outside(raised) if LOW_LEVEL.search(raised.text) else None


FORKED = {
    "Cannot re-initialize CUDA in forked subprocess": "such a child cannot use CUDA",  # torch 2.9.1, cuda/__init__.py
    "daemonic processes are not allowed to have children": "a worker must not have children",  # multiprocessing/process.py
}


def _forked(raised: Raised) -> tuple[str, Values] | None:
    if not raised.own:
        return None
    for text, outcome in FORKED.items():
        if text in raised.text:
            return "G321", {"function": raised.own[0].name, "outcome": outcome}
    return None


def _async_function(raised: Raised) -> tuple[str, Values] | None:
    last = raised.last
    if "NotImplementedError" not in raised.kinds or last is None or not last.is_in("spaces", "zero", "decorator.py"):
        return None
    return "G307", {"function": raised.blame(last.locals.get("task"))}


def _argument(raised: Raised) -> tuple[str, Values] | None:
    """An argument that cannot be pickled: spaces sends arguments to the worker in the wrapper of the function."""
    handler = raised.handler
    if handler is None or not raised.frame("put", "spaces", "utils.py"):
        return None
    task = handler.locals.get("task")
    args, kwargs = handler.locals.get("args", ()), handler.locals.get("kwargs", {})
    function = raised.blame(task)
    found = pickling.argument(task, args, kwargs)
    return ("G312", {"function": function, **found}) if found else None


def unlaunched(root: str, frame: Any) -> dict[str, Any]:
    """Returns the failure of an app that has not launched in time. frame is the innermost one of its main thread."""
    while frame is not None:
        if file := own_path(root, frame.f_code.co_filename):
            name = frame.f_code.co_name
            where = "the top level of the module" if name == "<module>" else name
            return {"rule": "A802", "file": file, "line": frame.f_lineno, "values": _bounded({"function": where})}
        frame = frame.f_back
    return {"rule": "A802", "file": "", "line": 0, "values": {"function": "code of Python or of a package"}}


def unused_worker(error: BaseException) -> Any:
    """Returns the process of a worker that never got its arguments, or None. spaces forgets it, and it would wait for ever."""
    entry, worker, sending = error.__traceback__, None, False
    while entry is not None:
        code = entry.tb_frame.f_code
        if code.co_name in HANDLERS and code.co_filename.endswith(os.sep.join(WRAPPERS)):
            worker = entry.tb_frame.f_locals.get("worker")
        sending = sending or code.co_name == "put" and code.co_filename.endswith(os.path.join("spaces", "utils.py"))
        entry = entry.tb_next
    return getattr(worker, "process", None) if sending else None


def lost_worker(root: str, frame: Any) -> dict[str, Any]:
    """Returns the failure of a worker that exited without an answer: it cannot unpickle the event data of Gradio. frame is below
    the wrapper of the function."""
    while frame is not None and frame.f_code.co_name not in HANDLERS:
        frame = frame.f_back
    if frame is None:
        return {}
    task, args, kwargs = (frame.f_locals.get(name) for name in ("task", "args", "kwargs"))
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        return {}
    for value in (*args, *kwargs.values()):
        if "EventData" in [kind.__name__ for kind in type(value).__mro__]:
            code = getattr(task, "__code__", None)
            file = own_path(root, code.co_filename) if code is not None else ""
            values = {"function": str(getattr(task, "__name__", "")), "class": type(value).__name__}
            return {"rule": "G311", "file": file, "line": code.co_firstlineno if file else 0, "values": _bounded(values)}
    return {}


def _result(raised: Raised) -> tuple[str, Values] | None:
    """A result that cannot be pickled. It is raised in the worker, and only the function is known by name."""
    sender = raised.frame("run_task", *WRAPPERS) or raised.frame("iterate", *WRAPPERS)
    if sender is None or not raised.frame("put", "spaces", "utils.py"):
        return None
    task = sender.locals.get("task")
    function = raised.blame(task)
    if "a tensor on cuda" in raised.text:
        return "G315", {"function": function}
    result = sender.locals.get("res")
    return "G701", {"function": function, **pickling.result(getattr(result, "value", result))}


def _duration(raised: Raised) -> tuple[str, Values] | None:
    handler = raised.handler
    if handler is None or "TypeError" not in raised.kinds or raised.last is None:
        return None
    task, duration = handler.locals.get("task"), handler.locals.get("duration")
    last = raised.last
    if last.name == "static_duration" and last.is_in(*WRAPPERS):
        function = raised.blame(task)
        return "H403", {"function": function, "duration": _name(duration), "message": raised.text}
    if last.name == "process_duration" and last.is_in(*WRAPPERS):
        function, value = raised.blame(task), repr(last.locals.get("duration"))
        if callable(duration):
            return "H404", {"function": function, "duration": _name(duration), "value": value}
        return "H402", {"function": function, "value": value}
    return None


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", "the duration function"))


def _secret(raised: Raised) -> tuple[str, Values] | None:
    last = raised.last
    if "KeyError" not in raised.kinds or last is None or last.locals.get("self") is not os.environ or not raised.error.args:
        return None
    return "B601", {"name": str(raised.error.args[0])}


NO_NETWORK = ("ConnectionError", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError", "OfflineModeIsEnabled", "MaxRetryError", "gaierror")


def _download(raised: Raised) -> tuple[str, Values] | None:
    unresolved = "URLError" in raised.kinds and ("Name or service not known" in raised.text or "Temporary failure in name resolution" in raised.text)
    if not unresolved and not set(NO_NETWORK) & set(raised.kinds):
        return None
    packages = {frame.package for frame in raised.frames}
    if raised.kinds[0] == "ConnectionError" and raised.modules == {"builtins"} and not packages & {"huggingface_hub", "requests", "httpx", "urllib3"}:
        return None  # a connection of another kind
    for frame in raised.frames:
        if frame.package == "huggingface_hub" and isinstance(repo := frame.locals.get("repo_id"), str):
            return "A803", {"name": repo}
    return "A803", {"name": "a file"}


def _file_value(raised: Raised) -> tuple[str, Values] | None:
    return ("D701", {}) if "The 'meta' field must be" in raised.text else None


def _missing_module(raised: Raised) -> tuple[str, Values] | None:
    name = getattr(raised.error, "name", None)
    if "ModuleNotFoundError" not in raised.kinds or not isinstance(name, str) or not raised.own:
        return None
    top, _, inner = name.partition(".")
    package = sys.modules.get(top)
    if not inner or package is None:
        return "A206", {"module": top}
    file = getattr(package, "__file__", None) or ""
    if own := own_path(raised.root, file):
        return "S605", {"name": inner, "module": own}
    return "B701", {"name": inner, "package": top, "version": _version(top)}


FROM = re.compile(r"cannot import name '([^']+)' from '([^']+)'")


def _missing_name(raised: Raised) -> tuple[str, Values] | None:
    found = FROM.search(raised.text) if "ImportError" in raised.kinds and raised.own else None
    if not found:
        return None
    name, module = found.groups()
    file = getattr(sys.modules.get(module), "__file__", None) or getattr(raised.error, "path", None) or ""
    if own := own_path(raised.root, file):
        return "S605", {"name": name, "module": own}
    package = package_of(file)
    return ("B701", {"name": name, "package": module.partition(".")[0], "version": _version(module)}) if package else None


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", "as installed"))


KEYWORD = re.compile(r"^([A-Za-z_]\w*)(?:\.(\w+))?\(\) got an unexpected keyword argument '([^']+)'")


def _removed_argument(raised: Raised) -> tuple[str, Values] | None:
    found = KEYWORD.search(raised.text) if "TypeError" in raised.kinds and raised.own else None
    gradio = sys.modules.get("gradio")
    if not found or not hasattr(gradio, found.group(1)):
        return None
    owner, method, argument = found.groups()
    name = owner if method in (None, "__init__") else f"{owner}.{method}"
    return "B801", {"name": name, "argument": argument, "version": _version("gradio")}


def _compiled(raised: Raised) -> tuple[str, Values] | None:
    if not any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(raised.error).__mro__):
        return None
    return "G314", {"exception": raised.kinds[0]}


RULES: tuple[Callable[[Raised], tuple[str, Values] | None], ...] = (
    _cuda_before_spaces, _no_gpu, _low_level, _forked, _async_function, _argument, _result, _duration, _secret, _compiled,
    _file_value, _missing_module, _missing_name, _removed_argument, _download,
)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Returns the exception that was printed, then those that caused it."""
    seen = 0
    while error is not None and seen < MAX_CHAIN:
        yield error
        seen += 1
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _bounded(values: Values) -> Values:
    return {name: text[:MAX_VALUE] for name, text in values.items()}


def recognize(root: str, error: BaseException) -> dict[str, Any]:
    """Returns rule, file, line and values of a known failure, or {}. A rule that fails itself is passed over."""
    for one in _chain(error):
        raised = Raised(root, one)
        for rule in RULES:
            try:
                found = rule(raised)
            except Exception:
                continue
            if found:
                file, line = raised.place
                if not file:  # the cause was raised in a library: the printed exception has the app's line
                    file, line = Raised(root, error).place
                return {"rule": found[0], "file": file, "line": line, "values": _bounded(found[1])}
    return {}
