"""Patches servers: guards those of the Space, reports one without Gradio, and repeats Gradio's check of its own."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .guard import Guard

if TYPE_CHECKING:
    from .state import State

PUBLIC_PORT = 7860  # the port at which the Hub expects a Space (huggingface hub-docs, spaces-config-reference, app_port)


def patch_config(state: State, module: Any) -> None:
    """Guards the servers of this Space. A server that the app starts at the public port moves to a private one."""
    import inspect

    state.printer.patch_server_log()
    Config = module.Config
    init, load = Config.__init__, Config.load
    signature = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if bound.arguments.get("port") == PUBLIC_PORT:
            bound.arguments.update(host="127.0.0.1", port=state.take_port(), uds=None, ssl_keyfile=None, ssl_certfile=None)
        init(*bound.args, **bound.kwargs)

    @functools.wraps(load)
    def load_guarded(self: Any) -> None:
        load(self)
        if self.port in state.ports:
            self.loaded_app = Guard(self.loaded_app, state, self.port)

    Config.__init__, Config.load = __init__, load_guarded


SELF_CHECKS = 10  # of one launch; each takes 3 s at most (gradio/networking.py, url_ok)


def patch_networking(state: State, module: Any) -> None:
    """Repeats Gradio's check that the app answers at localhost. On a busy machine one answer takes more than its 3 s.

    launch() would then end the app with "When localhost is not accessible, a shareable link must be created", while
    visitors use it. The check follows the start of the server, so the port is right.
    """
    original = module.url_ok

    @functools.wraps(original)
    def url_ok(url: str) -> bool:
        return any(original(url) for _ in range(SELF_CHECKS if state.launching else 1))

    module.url_ok = url_ok


def patch_server(state: State, module: Any) -> None:
    """Reports a server of the app at the public port that serves no Gradio, such as FastAPI after spaces.zero.startup().

    Gradio starts its own servers before its queue. Blocks that are mounted to an app start their queue in its lifespan,
    so they have attached when startup returns.
    """
    original, handle_exit = module.Server.startup, module.Server.handle_exit

    @functools.wraps(original)
    async def startup(self: Any, *args: Any, **kwargs: Any) -> None:
        await original(self, *args, **kwargs)
        if self.config.port in state.ports and not state.is_further(self.config.port):
            import asyncio

            state.liveness.attached(asyncio.get_running_loop())
        port, attached = self.config.port, {adapter.report["port"] for adapter in state.adapters}
        gradios = any(cls.__module__.partition(".")[0] == "gradio" for cls in type(self).__mro__)
        if port in state.ports and port not in attached and not gradios and getattr(self, "started", False):
            state.send({"op": "server", "port": port, "further": state.is_further(port), "tasks": state.tasks})

    @functools.wraps(handle_exit)
    def handle_exit_unless_shielded(self: Any, number: int, *args: Any) -> None:
        if not (state.shield and state.shield.ignores(number)):
            handle_exit(self, number, *args)

    module.Server.startup, module.Server.handle_exit = startup, handle_exit_unless_shielded
