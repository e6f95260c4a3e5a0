"""Where Gradio takes the long way for every event. Nothing that a client sees changes: a shortcut is taken only where
its result is the same, and left out on a Gradio that lacks what it stands in for.

`go run ./bench` measures the effect of each; docs/design/0001-own-queue.md gives the reason.
"""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Components whose preprocess and postprocess only look at a value. Those of files and media may take their time,
# and keep the thread that Gradio 6 gives them.
QUICK = frozenset(
    "Button Checkbox CheckboxGroup ClearButton Code ColorPicker DateTime Dropdown HTML JSON Label Markdown Number "
    "Radio Slider State Textbox Timer".split()
)


def take(module: Any) -> None:
    """Called with gradio.queueing at the first attach of a process."""
    if getattr(module, "spacehost_shortcuts", False):
        return
    module.spacehost_shortcuts = True
    for shortcut in (summarize_when_asked, stay_on_loop, look_once_for_matplotlib, remember_roots, remember_signatures):
        try:
            shortcut(module)
        except (AttributeError, KeyError):  # this Gradio goes another way, which is left alone
            continue


SUMMARY = "cached_event_analytics_summary"


def summarize_when_asked(module: Any) -> None:
    """After each event Gradio has pandas sum up the history of all, in a thread; /monitoring/summary alone shows it.

    Here the history is noted, and summed up when somebody reads the summary.
    """
    Queue, original = module.Queue, module.run_sync
    compute = Queue.compute_analytics_summary

    def note_history(self: Any, records: Any) -> Any:
        self.__dict__["spacehost_history"] = records
        return self.__dict__[SUMMARY]

    def read(self: Any) -> Any:
        records = self.__dict__.pop("spacehost_history", None)
        if records is not None:
            compute(self, records)
        return self.__dict__[SUMMARY]

    def write(self: Any, summary: Any) -> None:
        self.__dict__[SUMMARY] = summary

    async def run_sync(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if getattr(function, "__func__", None) is note_history:
            return function(*args)
        return await original(function, *args, **options)

    Queue.compute_analytics_summary, module.run_sync = note_history, run_sync
    setattr(Queue, SUMMARY, property(read, write))


class Anyio:
    """The anyio that gradio.blocks sees: quick preprocess and postprocess stay on the loop, as on Gradio 5."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self.to_thread = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    async def run_sync(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if is_quick(function):
            return function(*args)
        return await self._original.to_thread.run_sync(function, *args, **options)


def is_quick(function: Callable[..., Any]) -> bool:
    """Gradio's own method of Gradio's own component: neither a subclass of the app's nor a patched one."""
    code, owner = getattr(function, "__func__", None), type(getattr(function, "__self__", None))
    return (
        getattr(code, "__name__", "") in ("preprocess", "postprocess")
        and owner.__name__ in QUICK
        and owner.__module__.startswith("gradio.components.")
        and code.__module__ == owner.__module__
    )


def stay_on_loop(module: Any) -> None:
    blocks = sys.modules["gradio.blocks"]
    blocks.anyio = Anyio(blocks.anyio)


def look_once_for_matplotlib(module: Any) -> None:
    """Where it is not installed, each event looks through all of sys.path for it, twice (gradio/utils.py)."""
    import importlib.util

    utils = sys.modules["gradio.utils"]
    if importlib.util.find_spec("matplotlib") is not None:
        return

    class Manager(utils.MatplotlibBackendMananger):  # the name is upstream's
        def __enter__(self) -> Any:
            self.absent = "matplotlib" not in sys.modules
            return None if self.absent else super().__enter__()

        def __exit__(self, *raised: Any) -> Any:
            return None if self.absent else super().__exit__(*raised)

    utils.MatplotlibBackendMananger = Manager


def remember_roots(module: Any) -> None:
    """The root of an app's URLs is parsed anew for each event; behind a proxy, as here, three values decide it."""
    original, roots = module.route_utils.get_root_url, {}

    def get_root_url(request: Any, route_path: str, root_path: str | None) -> str:
        headers = request.headers
        host = headers.get("x-forwarded-host")
        if not host or "x-gradio-server" in headers:
            return original(request=request, route_path=route_path, root_path=root_path)
        key = (host, headers.get("x-forwarded-proto"), root_path)
        if key not in roots:
            if len(roots) > 1000:  # a visitor may name the host as they like
                roots.clear()
            roots[key] = original(request=request, route_path=route_path, root_path=root_path)
        return roots[key]

    module.route_utils.get_root_url = get_root_url


def remember_signatures(module: Any) -> None:
    """A new session reads the signature of every component's __init__, each event that of its function."""
    for name in ("gradio.blocks", "gradio.helpers"):
        sys.modules[name].inspect = Inspect(sys.modules[name].inspect)


class Inspect:
    """The inspect that two modules of Gradio see: a function's signature is read once, and again when what it is made
    of is another."""

    def __init__(self, original: Any) -> None:
        import weakref

        self._original = original
        self._known: Any = weakref.WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def signature(self, function: Any, **options: Any) -> Any:
        made_of = None if options else facts(function)
        if made_of is None:
            return self._original.signature(function, **options)
        known = self._known.get(function)
        if known is None or len(known[0]) != len(made_of) or any(a is not b for a, b in zip(known[0], made_of)):
            known = self._known[function] = (made_of, self._original.signature(function))
        return known[1]


def facts(function: Any) -> list[Any] | None:
    """What the signature of a function depends on, and of those that it wraps; None if that is not plain."""
    found: list[Any] = []
    while type(function) is _Function and len(found) < 40:
        said = function.__dict__
        if "__signature__" in said:
            return None
        found += (function.__code__, function.__defaults__, function.__kwdefaults__, function.__annotations__)
        if "__wrapped__" not in said:
            return found
        function = said["__wrapped__"]
    return None


_Function = type(take)
