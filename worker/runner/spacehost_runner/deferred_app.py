"""Creates the FastAPI app of a Blocks when it is first read.

Gradio creates one at the end of each `with gr.Blocks()`, at each queue(), and another one at launch(), which replaces the
others. Each takes about 70 ms, since FastAPI analyses 80 routes. An app that reads `demo.app` before launch() finds what it
would have found.
"""
from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import State

REPLACED = frozenset({"__exit__", "queue"})  # methods of Blocks after which launch() creates another app


class Deferred:
    """The value of `Blocks.app` until it is read."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self.create = create


def patch(state: State, module: Any) -> None:
    """Patches gradio.routes. The last App of each Blocks is in state.apps."""
    create = module.App.create_app

    @functools.wraps(create)
    def create_app(blocks: Any, *args: Any, **kwargs: Any) -> Any:
        def now() -> Any:
            state.apps[id(blocks)] = app = create(blocks, *args, **kwargs)
            return app

        return _defer(blocks, now)

    module.App.create_app = staticmethod(create_app)


def _defer(blocks: Any, create: Callable[[], Any]) -> Any:
    """Returns the app for the assignment to `blocks.app` that follows, or the app itself for any other caller of create_app."""
    caller = sys._getframe(2)  # that of create_app
    if caller.f_code.co_name not in REPLACED or caller.f_globals.get("__name__") != "gradio.blocks":
        return create()
    kind = caller.f_globals["Blocks"]
    if "app" not in kind.__dict__:
        kind.app = property(_read, _write)
    if hasattr(sys.modules["gradio.routes"].App, "setup_mcp_server"):  # create_app begins with it, and it sets config
        blocks.config = blocks.get_config_file()
    return Deferred(create)


def _read(blocks: Any) -> Any:
    try:
        app = blocks.__dict__["app"]
    except KeyError:
        raise AttributeError(f"{type(blocks).__name__!r} object has no attribute 'app'", name="app", obj=blocks) from None
    if isinstance(app, Deferred):
        blocks.__dict__["app"] = app = app.create()
    return app


def _write(blocks: Any, app: Any) -> None:
    blocks.__dict__["app"] = app
