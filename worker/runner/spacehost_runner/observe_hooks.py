"""Installs what observes the start and the calls of a Space (observe.py)."""
from __future__ import annotations

import _thread
import contextlib
import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from .observe import MAX_FACTS, Task
from .observe_machine import watch_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from .observe import Observer


def install(observer: Observer, patches: dict[str, Callable[[Any], None]]) -> None:
    """Installs the hooks. patches are those of the import hook (hooks.py), which run after an import."""
    observer.relay()
    observer.watch()
    _watch_errors(observer)
    _watch_environment(observer)
    _watch_writes(observer)
    watch_names(observer)
    for name, patch in {
        "spaces.zero.decorator": _patch_decorator, "spaces.zero.client": _patch_client, "spaces.zero.wrappers": _patch_wrappers,
        "gradio.helpers": _patch_examples, "gradio.queueing": _patch_queueing, "spaces.zero.torch": _patch_torch,
    }.items():
        patches[name] = _after(patches.get(name), functools.partial(patch, observer))


def _after(first: Callable[[Any], None] | None, second: Callable[[Any], None]) -> Callable[[Any], None]:
    def both(module: Any) -> None:
        if first is not None:
            first(module)
        with contextlib.suppress(Exception):  # an unknown release: less is observed
            second(module)

    return both


def _watch_errors(observer: Observer) -> None:
    original = sys.excepthook

    def excepthook(kind: Any, error: BaseException, tb: Any) -> None:
        with contextlib.suppress(Exception):
            observer.exception(error, "start")  # also after the launch: the Space ends
            if not observer.started:
                observer.look_at_imports()
        original(kind, error, tb)

    sys.excepthook = excepthook


def _watch_environment(observer: Observer) -> None:
    """Records the variables that the app's own code reads and does not find."""
    kind = type(os.environ)
    original = kind.__getitem__

    def __getitem__(self: Any, key: Any) -> Any:
        try:
            return original(self, key)
        except KeyError:
            if len(observer.missing) < MAX_FACTS and isinstance(key, str):
                frame: Any = sys._getframe(1)
                while frame is not None and frame.f_globals.get("__name__") in ("os", "collections.abc", "_collections_abc"):
                    frame = frame.f_back
                if frame is not None and (name := observer.own(frame.f_code.co_filename)):
                    observer.missing.setdefault(key[:100], (name, frame.f_lineno))
            raise

    kind.__getitem__ = __getitem__  # type: ignore[method-assign]


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def _watch_writes(observer: Observer) -> None:
    """Reports writes of the app outside of its folder, its home and /tmp. Only an audit hook sees them all (PEP 578)."""
    allowed = tuple(
        os.path.realpath(path) + os.sep
        for path in (
            observer.root, os.path.expanduser("~"), "/tmp", "/dev", "/proc", sys.prefix, sys.base_prefix,
            os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *(os.environ.get(name, "/tmp") for name in ("HF_HOME", "GRADIO_TEMP_DIR", "TMPDIR")),
        )
    )
    kinds, busy = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink", "shutil.copyfile"), _thread._local()

    def hook(event: str, args: Any) -> None:
        if event not in kinds or getattr(busy, "now", False):
            return
        path = args[1] if event in ("os.rename", "os.link", "os.symlink", "shutil.copyfile") else args[0]
        if event == "open" and not (any(letter in args[1] for letter in "wax+") if isinstance(args[1], str) else args[2] & WRITING):
            return
        busy.now = True
        try:
            path = os.path.realpath(os.path.abspath(os.fsdecode(path)))
            if not (path + os.sep).startswith(allowed):
                place = observer.here()
                if place[0]:
                    observer.report("B605", place, path=path)
        except Exception:  # a descriptor, or a path that is no text
            pass
        finally:
            busy.now = False

    sys.addaudithook(hook)


def _patch_decorator(observer: Observer, module: Any) -> None:
    original = module._GPU

    @functools.wraps(original)
    def decorate(task: Any, duration: Any, *args: Any, **options: Any) -> Any:
        decorated = original(task, duration, *args, **options)
        if decorated is not task and len(observer.tasks) < MAX_FACTS:
            size = options.get("size", next(iter(args), None)) or ""
            observer.tasks[str(id(task))] = Task(observer, task, duration, size)
        return decorated

    module._GPU = decorate


def _patch_client(observer: Observer, module: Any) -> None:
    """Records which function asks for a GPU, for whom, and how long it keeps it."""
    import inspect

    schedule, release = module.schedule, module.release
    signature = inspect.signature(schedule)

    @functools.wraps(schedule)
    def schedule_and_record(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        task = observer.running.task = observer.tasks.get(str(given.get("task_id")))
        if task is not None and not observer.caching:
            with contextlib.suppress(Exception):
                if not _has_visitor(module, signature, given):
                    _without_visitor(observer, task)
        response = schedule(*args, **options)
        if task is not None:
            declared = given.get("duration")
            seconds = declared.total_seconds() if declared is not None else module.DEFAULT_SCHEDULE_DURATION
            observer.leases[response.allowToken] = task, seconds, time.monotonic()
        return response

    @functools.wraps(release)
    def release_and_record(allow_token: str, *args: Any, **options: Any) -> Any:
        observer.drain()
        if (lease := observer.leases.pop(allow_token, None)) is not None and not options.get("fail"):
            task, seconds, began = lease
            observer.report("C406", task.place(), function=task.name, declared=f"{seconds:g}", used=f"{time.monotonic() - began:.1f}")
        return release(allow_token, *args, **options)

    module.schedule, module.release = schedule_and_record, release_and_record


def _has_visitor(module: Any, signature: Any, given: dict[str, Any]) -> bool:
    """Reports whether a visitor's request is known. spaces 0.51 passes it on; 0.52 reads its headers from a context."""
    if "request" in signature.parameters:
        return given.get("request") is not None
    return "x-ip-token" in {str(name).lower() for name in module.context.get().headers}


def _without_visitor(observer: Observer, task: Task) -> None:
    where = "when the app is imported" if not observer.started and _thread.get_ident() == observer.main else "in a thread of the app"
    observer.report("C508", observer.here(), function=task.name, where=where)


def _patch_wrappers(observer: Observer, module: Any) -> None:
    """Observes the exceptions and the globals of GPU functions, in their worker."""
    original, init = module.exception_result, module.worker_init

    @functools.wraps(original)
    def exception_result(error: Exception) -> Any:
        with contextlib.suppress(Exception):
            observer.exception(error, "gpu")
        return original(error)

    @functools.wraps(init)
    def worker_init(*args: Any, **options: Any) -> Any:
        result = init(*args, **options)
        with contextlib.suppress(Exception):
            _compare_globals(observer, module)
        return result

    module.exception_result, module.worker_init = exception_result, worker_init


def _compare_globals(observer: Observer, module: Any) -> None:
    """Reports globals that a GPU function has changed and a handler in the Space's process reads. It runs in a new worker."""
    task, put = observer.task, module.Queue.put  # of this process alone
    if task is None:
        return
    names = task.function.__globals__
    before = {name: state(value) for name, value in names.items()}

    def put_and_compare(self: Any, result: Any) -> None:
        if isinstance(result, module.OkResult):
            with contextlib.suppress(Exception):
                for name, value in names.items():
                    if before.get(name) != state(value) and (reader := observer.reader(name, names)):
                        observer.report("B802", task.place(), function=task.name, name=name, reader=reader)
        put(self, result)

    module.Queue.put = put_and_compare


def state(value: Any) -> Any:
    """Returns what tells a changed value of a global from an unchanged one."""
    if isinstance(value, (list, dict, set)):
        return id(value), len(value)
    return value if isinstance(value, (int, float, str, bytes, bool, type(None))) else id(value)


def _patch_examples(observer: Observer, module: Any) -> None:
    """Records gr.Examples, and reports those that are cached at the start."""
    Examples = module.Examples
    create, cache = Examples.create, Examples.cache

    @functools.wraps(create)
    def create_and_record(self: Any, *args: Any, **options: Any) -> Any:
        if len(observer.examples) < MAX_FACTS:
            observer.examples.append(self)
        if getattr(self, "cache_examples", False) is True and len(getattr(self, "examples", ())) > 0:
            observer.report("C319", observer.here(), number=f"{len(self.examples)} examples", function=getattr(getattr(self, "fn", None), "__name__", "the function"))
        return create(self, *args, **options)

    @functools.wraps(cache)
    async def cache_and_mark(self: Any, *args: Any, **options: Any) -> Any:
        observer.caching += 1
        try:
            return await cache(self, *args, **options)
        finally:
            observer.caching -= 1

    Examples.create, Examples.cache = create_and_record, cache_and_mark


def _patch_queueing(observer: Observer, module: Any) -> None:
    """Observes the exceptions of calls in the Space's process. Gradio turns each into an answer by error_payload."""
    original = module.error_payload

    @functools.wraps(original)
    def error_payload(error: Any, *args: Any, **options: Any) -> Any:
        if isinstance(error, BaseException):
            with contextlib.suppress(Exception):
                observer.exception(error, "call")
        return original(error, *args, **options)

    module.error_payload = error_payload


def _patch_torch(observer: Observer, module: Any) -> None:
    """Reports a module on cuda that is called outside of a GPU function, with tensors on the CPU: its weights are zeros.

    On the main thread the emulation of spaces computes with the weights, or raises. Other threads, in which Gradio runs
    functions, have no emulation.
    """
    torch, patching = sys.modules.get("torch"), sys.modules.get("spaces.zero.torch.patching")
    if torch is None or patching is None:
        return
    Module, aliases = torch.nn.Module, patching.cuda_aliases
    original = Module.__call__

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **options: Any) -> Any:
        if not observer.state.forked and _thread.get_ident() != observer.main:
            with contextlib.suppress(Exception):
                weights = next(self.parameters(), None)
                if weights is not None and weights in aliases:
                    frame: Any = sys._getframe(1)
                    file = observer.own(frame.f_code.co_filename)
                    if file:
                        names = [name for name, value in {**frame.f_globals, **frame.f_locals}.items() if value is self]
                        observer.report(
                            "F315", (file, frame.f_lineno), function=frame.f_code.co_name, role="a handler", name=names[0] if names else type(self).__name__,
                            placed=placed(frame.f_code.co_filename, names),
                        )
        return original(self, *args, **options)

    Module.__call__ = __call__


def placed(file: str, names: list[str]) -> str:
    """Returns the line of file that puts one of the names on cuda; "?" if none does so in a simple form."""
    import linecache
    import re

    for number, line in enumerate(linecache.getlines(file), 1):
        if any(re.match(rf"\s*{re.escape(name)}\b.*(\.to\(|\.cuda\()", line) for name in names):
            return str(number)
    return "?"
