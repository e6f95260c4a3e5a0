"""Replaces slow steps that Gradio repeats for every event by faster ones with the same result.

No change is visible to a client. A fast path is taken only where its result is the same. It is skipped on a Gradio
that lacks what it replaces.

`go run ./bench` measures the effect of each; docs/design/0001-own-queue.md gives the reason.
"""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Components with quick preprocess and postprocess, which only inspect a value. Components of files and media may be slow,
# and keep the thread that Gradio 6 gives them.
QUICK = frozenset(
    "Button Checkbox CheckboxGroup ClearButton Code ColorPicker DateTime Dropdown HTML JSON Label Markdown Number "
    "Radio Slider State Textbox Timer".split()
)


def install(module: Any) -> None:
    """Installs all fast paths. Called with gradio.queueing at the first attach of a process."""
    if getattr(module, "spacehost_fastpaths", False):
        return
    module.spacehost_fastpaths = True
    for patch in (defer_summary, stay_on_loop, find_matplotlib_once, cache_root_urls, cache_signatures):
        try:
            patch(module)
        except (AttributeError, KeyError):  # this Gradio is built otherwise and stays as it is
            continue


SUMMARY = "cached_event_analytics_summary"


def defer_summary(module: Any) -> None:
    """Computes the summary of past events when it is read.

    Gradio has pandas summarize the history of all events after each one, in a thread. Only /monitoring/summary shows it.
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
    """The anyio of gradio.blocks: quick preprocess and postprocess calls stay on the loop, as in Gradio 5."""

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
    """Reports whether function is Gradio's own method of a quick component. Subclasses and patched methods of an app are not."""
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


def find_matplotlib_once(module: Any) -> None:
    """Searches for matplotlib once. Where it is missing, Gradio searches all of sys.path twice per event (gradio/utils.py)."""
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


def cache_root_urls(module: Any) -> None:
    """Caches the root of an app's URLs, which Gradio parses anew for each event. Behind the host four values determine it.

    The sub-path at which a reverse proxy serves the Space is added to the root.
    """
    original, roots = module.route_utils.get_root_url, {}

    def get_root_url(request: Any, route_path: str, root_path: str | None) -> str:
        headers = request.headers
        host, sub_path = headers.get("x-forwarded-host"), headers.get("x-forwarded-prefix")
        if not host or "x-gradio-server" in headers:
            root = original(request=request, route_path=route_path, root_path=root_path)
            return add_sub_path(root, sub_path, root_path)
        key = (host, headers.get("x-forwarded-proto"), sub_path, root_path)
        if key not in roots:
            if len(roots) > 1000:  # visitors choose the host name
                roots.clear()
            root = original(request=request, route_path=route_path, root_path=root_path)
            roots[key] = add_sub_path(root, sub_path, root_path)
        return roots[key]

    module.route_utils.get_root_url = get_root_url


def add_sub_path(root: str, sub_path: str | None, root_path: str | None) -> str:
    """Adds the sub-path to the root of an app's URLs, unless the app's own root_path is that path or a whole URL."""
    if not sub_path or root_path and (root_path.rstrip("/") == sub_path or "://" in root_path):
        return root
    scheme, _, rest = root.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{sub_path}{slash}{path}"


def cache_signatures(module: Any) -> None:
    """Caches signatures. A new session reads those of every component's __init__, each event that of its function."""
    for name in ("gradio.blocks", "gradio.helpers"):
        sys.modules[name].inspect = Inspect(sys.modules[name].inspect)


class Inspect:
    """The inspect of two Gradio modules. It computes a signature once, and again after a change of what it depends on."""

    def __init__(self, original: Any) -> None:
        import weakref

        self._original = original
        self._known: Any = weakref.WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def signature(self, function: Any, **options: Any) -> Any:
        inputs = None if options else signature_inputs(function)
        if inputs is None:
            return self._original.signature(function, **options)
        known = self._known.get(function)
        if known is None or len(known[0]) != len(inputs) or any(a is not b for a, b in zip(known[0], inputs)):
            known = self._known[function] = (inputs, self._original.signature(function))
        return known[1]


def signature_inputs(function: Any) -> list[Any] | None:
    """Returns what the signature of function and of the functions it wraps depends on; None unless all are plain."""
    found: list[Any] = []
    while type(function) is _Function and len(found) < 40:
        attributes = function.__dict__
        if "__signature__" in attributes:
            return None
        found += (function.__code__, function.__defaults__, function.__kwdefaults__, function.__annotations__)
        if "__wrapped__" not in attributes:
            return found
        function = attributes["__wrapped__"]
    return None


_Function = type(install)
