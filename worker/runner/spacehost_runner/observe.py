"""Observes the start and the calls of a Space for `spacehost check`. No other start imports this module.

An observation is the identifier of a rule (internal/check/rules), a place in the Space, and named values. The process of
the Space sends it as a frame. A forked worker writes it to a pipe, which a thread of that process reads. Both ends bound
the number and the size of observations: they are claims of the Space.
"""
from __future__ import annotations

import _thread
import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from . import failures, observe_calls, observe_imports, pickling
from .fake_cuda_messages import NOTE
from .observe_calls import text
from .observe_machine import cause, chain, destination, is_connection, unset_variable

if TYPE_CHECKING:
    from .state import State

MAX_FACTS = 200  # of one process
PIPE_BUF = 4096  # bytes that a pipe writes atomically (pipe(7))

REFUSAL = "CUDA has been initialized before importing"  # spaces 0.51.3, zero/__init__.py
FIRST_USE = "CUDA was first used"  # cuda_order.py
LOW_LEVEL = "Low-level CUDA init"  # spaces 0.51.3, zero/torch/patching.py
LOW_LEVEL_ERROR = "RuntimeError: Low-level CUDA init reached"
CUDA_RESULT = "the GPU function returns or yields a tensor on cuda"  # fake_cuda_results.py


class Observer:
    """What one traced start has observed. Its methods may be called from any thread, and in a forked worker."""

    def __init__(self, state: State, root: str, limit: float, calls: bool) -> None:
        self.state, self.root, self.limit, self.calls = state, os.path.realpath(root), limit, calls
        self.seen: set[str] = set()
        self.started = False  # the app has attached: exceptions from now on belong to calls
        self.main = _thread.get_ident()
        self.tasks: dict[str, Task] = {}  # by the taskId of spaces
        self.running = _thread._local()  # .task: the GPU function whose worker this thread starts
        self.task: Task | None = None  # the function of this worker: it runs no other
        self.handlers: list[Any] = []  # functions of the app that Gradio calls, without GPU functions
        self.leases: dict[str, tuple[str, float]] = {}  # by allow token: task and time of the grant
        self.examples: list[Any] = []  # gradio.helpers.Examples
        self.caching = 0  # runs of Examples.cache
        self.missing: dict[str, tuple[str, int]] = {}  # variables that the app's own code did not find, with the first place
        self.pipe: tuple[int, int] | None = None
        self.rest = b""  # of the pipe, after the last whole line
        self.reading = _thread.allocate_lock()  # guards rest and the order of the lines
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.task = getattr(self.running, "task", None)

    # Reports

    def report(self, rule: str, place: tuple[str, int] = ("", 0), severity: str = "", **values: Any) -> None:
        """Sends one observation. An equal one is sent once."""
        fact: dict[str, Any] = {"rule": rule, "file": place[0], "line": place[1], "values": {k: text(v) for k, v in values.items()}}
        if severity:
            fact["severity"] = severity
        key = json.dumps(fact, sort_keys=True)
        if key in self.seen or len(self.seen) >= MAX_FACTS:
            return
        self.seen.add(key)
        with contextlib.suppress(OSError, ValueError):  # the host has exited
            if not self.state.forked:
                self.state.send({"op": "fact", "fact": fact})
            elif self.pipe is not None and len(key) < PIPE_BUF - 1:
                os.write(self.pipe[1], key.encode() + b"\n")

    def relay(self) -> None:
        """Begins to send what the workers write to the pipe, in a thread of its own."""
        reading, _ = self.pipe = os.pipe()
        os.set_blocking(reading, False)
        _thread.start_new_thread(self._relay, (reading,))

    def _relay(self, reading: int) -> None:
        import select

        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while poll.poll():
            self.drain()

    def drain(self) -> None:
        """Sends what is in the pipe. A worker writes before it sends its result: after that, nothing of the call is missing."""
        if self.pipe is None or self.state.forked:
            return
        with self.reading:
            with contextlib.suppress(BlockingIOError):
                while block := os.read(self.pipe[0], 64 << 10):
                    *lines, self.rest = (self.rest + block).split(b"\n")
                    for line in lines:
                        with contextlib.suppress(ValueError, OSError):
                            self.state.send({"op": "fact", "fact": json.loads(line)})

    # Places

    def own(self, path: str) -> str:
        """Returns path relative to the Space's folder; "" if it is not the Space's own source."""
        if path.startswith("<"):
            return ""
        path = os.path.realpath(path)
        if not path.startswith(self.root + os.sep) or f"{os.sep}site-packages{os.sep}" in path:
            return ""
        return os.path.relpath(path, self.root)

    def here(self) -> tuple[str, int]:
        """Returns the innermost line of the Space's own code in this thread."""
        frame: Any = sys._getframe(1)
        return self.innermost(frame)

    def innermost(self, frame: Any) -> tuple[str, int]:
        while frame is not None:
            if name := self.own(frame.f_code.co_filename):
                return name, frame.f_lineno
            frame = frame.f_back
        return "", 0

    def raised(self, error: BaseException) -> tuple[tuple[str, int], str, list[Any]]:
        """Returns the innermost own line of a traceback, the name of its function, and the frames further in."""
        place, function, further, tb = ("", 0), "", [], error.__traceback__
        while tb is not None:
            if name := self.own(tb.tb_frame.f_code.co_filename):
                place, function, further = (name, tb.tb_lineno), tb.tb_frame.f_code.co_name, []
            else:
                further.append(tb.tb_frame)
            tb = tb.tb_next
        if isinstance(error, SyntaxError) and error.filename and (name := self.own(error.filename)):
            place = name, error.lineno or 0
        return place, function, further

    def connecting(self, error: BaseException) -> tuple[str, int]:
        """Returns the own line that wanted a connection: the app may have raised another exception since."""
        places = [self.raised(one)[0] for one in chain(error)]
        return next((place for place in reversed(places) if place[0]), ("", 0))

    # Errors

    def exception(self, error: BaseException, during: str) -> None:
        """Reports an exception of the app. during is start, call or gpu."""
        place, function, further = self.raised(error)
        words, kind = str(error), type(error).__name__
        if during == "start":
            self.ended(error, place, further, kind, words)
        elif is_connection(error):  # also below a gr.Error that the app raises then
            self.offline(self.connecting(error), error, *destination(error), function=function)
        elif name := unset_variable(self, error, place):
            self.report("B604", place, name=name, exception=kind, message=words, when="a call", function=function)
        elif any(base.__module__.partition(".")[0] in ("gradio", "spaces") for base in type(error).__mro__):
            return  # gr.Error is an answer to the visitor; "ZeroGPU worker error" was observed in the worker
        elif isinstance(error, ModuleNotFoundError) and error.name and not self.has(top := error.name.partition(".")[0]) and top not in sys.modules:
            self.absent(place, top, f"{function} fails")
        elif CUDA_RESULT in words:
            if (task := self.task) is not None:
                self.report("G315", task.returns(), function=task.name)
        elif task := self.failed_duration(further):
            self.report("H801", task.place(), function=task.name, exception=kind, message=words)
        elif NOTE in words or any(NOTE in note for note in getattr(error, "__notes__", ())):
            self.report("simulated", place, function=function, message=words)
        elif LOW_LEVEL in words:
            self.report("F308", place, function=function, role="a handler", call=called(further), error=LOW_LEVEL_ERROR)
        elif unpicklable(error, further):
            self.unpicklable(place, further)
        else:
            self.report("G801" if during == "gpu" else "S801", place, function=function, exception=kind, message=words)

    def ended(self, error: BaseException, place: tuple[str, int], further: list[Any], kind: str, words: str) -> None:
        """Reports the exception that ends the start."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)) or REFUSAL in words or FIRST_USE in words:
            return  # the last two were reported by cuda
        if isinstance(error, ModuleNotFoundError) and error.name:
            top = error.name.partition(".")[0]
            if not self.has(top) and top not in sys.modules:
                self.absent(place, top, "the Space ends")
                return
        if LOW_LEVEL in words:
            if maps := device_map(further):
                self.report("F310", place, device_map=as_written(further, place) or maps, library="transformers", version=version_of("transformers"))
            else:
                self.report("F309", place, call=called(further), error=LOW_LEVEL_ERROR)
            return
        if is_connection(error):
            name, here = destination(error)
            self.report("A803", self.connecting(error), name=name, exception=kind, message=words, cause=cause(error, here))
            return
        if name := unset_variable(self, error, place):
            self.report("B604", place, name=name, exception=kind, message=words, when="the start")
            return
        known = failures.recognize(self.root, error)
        if known.get("rule") == "B701":
            self.report("B701", place, **known["values"])
            return
        if kind in ("TypeError", "AttributeError") and about_gradio(words, further):
            self.report("B801", place, message=words, version=version_of("gradio"))
            return
        self.report("A801", place, reason=f"{kind}: {words}" if words else kind)

    def has(self, module: str) -> bool:
        """Reports whether a top-level module belongs to the Space."""
        return any(os.path.exists(os.path.join(self.root, name)) for name in (module, module + ".py"))

    def absent(self, place: tuple[str, int], module: str, outcome: str) -> None:
        """Reports the module for want of which the start or a call ends."""
        because, severity = "no requirement brings it", ""
        if fetching := observe_imports.fetches(self):
            because, severity = f"neither a requirement nor {fetching} brings it here", "warning"
        self.report("A206", place, severity, module=module, because=because, target="requirements.txt", outcome=f"{outcome} with ModuleNotFoundError")

    def offline(self, place: tuple[str, int], error: BaseException, name: str, here: bool, function: str = "") -> None:
        """Reports a connection that failed, and that the app may handle."""
        self.report("offline", place, name=name, exception=type(error).__name__, cause=cause(error, here), function=function)

    def unpicklable(self, place: tuple[str, int], further: list[Any]) -> None:
        """Reports the argument of a GPU function that cannot be pickled."""
        for frame in further:
            local = frame.f_locals
            if frame.f_globals.get("__name__") == "spaces.zero.wrappers" and "args" in local and "task_id" in local:
                task = self.tasks.get(str(local["task_id"]))
                if task is not None and (found := pickling.argument(task.function, local["args"], local.get("kwargs") or {})):
                    self.report("G312", place if place[0] else task.place(), argument=found["path"], function=task.name, what=found["kind"])

    def failed_duration(self, further: list[Any]) -> Task | None:
        """Returns the GPU function whose duration spaces could not compute."""
        for frame in further:
            if frame.f_globals.get("__name__") == "spaces.zero.wrappers" and frame.f_code.co_name in ("static_duration", "process_duration"):
                return self.tasks.get(str(frame.f_back.f_locals.get("task_id"))) if frame.f_back is not None else None
        return None

    def reader(self, name: str, names: dict[str, Any]) -> str:
        """Returns a handler that reads the global, "" without one."""
        for function in self.handlers:
            code = getattr(function, "__code__", None)
            if code is not None and name in code.co_names and getattr(function, "__globals__", None) is names:
                return str(function.__name__)
        return ""

    # The start

    def cuda(self, library: str, own: str, called: str, imported: str) -> None:
        """Reports the first use of CUDA, if it came before `import spaces` (cuda_order.py)."""
        place = split(own)
        if library:
            self.report("E302", place, library=library, call=called, imported=imported or "nowhere")
        else:
            self.report("E301", place, call=called, imported=imported or "nowhere")

    def watch(self) -> None:
        """Reports where a start hangs, shortly before the host ends it."""
        if self.limit > 0:
            _thread.start_new_thread(self._watch, (max(self.limit * 0.75, self.limit - 5),))

    def _watch(self, pause: float) -> None:
        time.sleep(pause)
        if not self.started and not self.state.adapters:
            frame = sys._current_frames().get(self.main)
            place = self.innermost(frame)
            innermost = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
            self.report("A802", place, limit=f"{self.limit:g}", innermost=os.path.basename(innermost))

    def attached(self, blocks: Any, path: str) -> None:
        """Runs when the app is about to receive visitors."""
        self.started = True
        decorated = [task.function for task in self.tasks.values()]
        for fn in getattr(blocks, "fns", {}).values():
            function = getattr(fn, "fn", None)
            if function is not None and not any(observe_calls.is_wrapper(function, one) for one in decorated):
                self.handlers.append(function)
        for name, place in list(self.missing.items()):
            self.report("missing", place, name=name)
        self.look_at_imports()
        if self.calls:
            _thread.start_new_thread(observe_calls.send_list, (self, blocks, path))

    def look_at_imports(self) -> None:
        """Reports modules that functions import and that are missing."""
        with contextlib.suppress(Exception):
            observe_imports.report(self)

    def address(self, argument: str, value: Any) -> None:
        self.report("A604", self.here(), argument=f"{argument}={value!r}")


class Task:
    """One GPU function."""

    def __init__(self, observer: Observer, function: Any, duration: Any, size: str) -> None:
        self.observer, self.function, self.duration, self.size = observer, function, duration, size
        self.name = str(getattr(function, "__name__", "?"))

    def place(self) -> tuple[str, int]:
        """Returns the line of the first decorator, or of the definition without one."""
        code = getattr(self.function, "__code__", None)
        name = self.observer.own(code.co_filename) if code is not None else ""
        return (name, code.co_firstlineno) if name else ("", 0)

    def returns(self) -> tuple[str, int]:
        """Returns the line of the only return or yield; place if there are several."""
        import ast
        import inspect

        with contextlib.suppress(Exception):
            lines, first = inspect.getsourcelines(self.function)
            import textwrap

            found = [n.lineno for n in ast.walk(ast.parse(textwrap.dedent("".join(lines)))) if isinstance(n, (ast.Return, ast.Yield))]
            if len(found) == 1:
                return self.place()[0], first + found[0] - 1
        return self.place()


def split(place: str) -> tuple[str, int]:
    """Returns the two parts of "app.py:12"."""
    name, _, line = place.rpartition(":")
    return (name, int(line)) if line.isdigit() else ("", 0)


def version_of(package: str) -> str:
    return str(getattr(sys.modules.get(package), "__version__", "?"))


def unpicklable(error: BaseException, further: list[Any]) -> bool:
    """Reports whether spaces could not pickle an argument of a GPU function."""
    words = str(error).lower()
    sending = any(frame.f_globals.get("__name__", "").startswith("spaces.zero") for frame in further)
    return sending and ("pickle" in words or type(error).__name__ == "PicklingError")


def device_map(further: list[Any]) -> str:
    """Returns the device_map with which the app has called a library; "" without one."""
    for frame in further:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("transformers", "accelerate", "diffusers"):
            local = frame.f_locals
            found = local.get("device_map") or (local.get("kwargs") or {}).get("device_map")
            if found:
                return text(found)
    return ""


def as_written(further: list[Any], place: tuple[str, int]) -> str:
    """Returns the device_map in the app's line; "" if it is not there. Libraries normalize the value."""
    import linecache
    import re

    caller = further[0].f_back if further else None
    line = linecache.getline(caller.f_code.co_filename, place[1]) if caller is not None else ""
    found = re.search(r"""device_map\s*=\s*(\{[^}]*\}|"[^"]*"|'[^']*'|[\w.]+)""", line)
    return found[1] if found else ""


def called(further: list[Any]) -> str:
    """Returns the public function of torch that the app has called."""
    for frame in further:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "torch":
            return f"{module}.{frame.f_code.co_name}"
    return "CUDA"


def about_gradio(words: str, further: list[Any]) -> bool:
    """Reports whether an app calls Gradio as another release would have it."""
    if "module 'gradio" in words:
        return True
    if "unexpected keyword argument" not in words:
        return False
    callee = words.partition("(")[0].partition(".")[0]  # "Blocks.__init__() got an unexpected keyword argument 'theme'"
    inside = bool(further) and further[-1].f_globals.get("__name__", "").partition(".")[0] == "gradio"
    return inside or any(hasattr(sys.modules.get(name), callee) for name in ("gradio", "gradio.events"))
