"""Patches uvicorn: guards the servers of the Space, and reports a server without Gradio."""
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


def patch_server(state: State, module: Any) -> None:
    """Reports a server of the app at the public port that serves no Gradio, such as FastAPI after spaces.zero.startup().

    Gradio starts its own servers before its queue. Blocks that are mounted to an app start their queue in its lifespan,
    so they have attached when startup returns.
    """
    original = module.Server.startup

    @functools.wraps(original)
    async def startup(self: Any, *args: Any, **kwargs: Any) -> None:
        await original(self, *args, **kwargs)
        port, attached = self.config.port, {adapter.report["port"] for adapter in state.adapters}
        gradios = any(cls.__module__.partition(".")[0] == "gradio" for cls in type(self).__mro__)
        if port in state.ports and port not in attached and not gradios and getattr(self, "started", False):
            state.send({"op": "server", "port": port, "further": state.is_further(port), "tasks": state.tasks})

    module.Server.startup = startup
