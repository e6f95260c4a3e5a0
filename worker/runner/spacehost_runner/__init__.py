"""Connects the Space's Python process to the host: hooks Gradio and runs events with Gradio's own code."""
from __future__ import annotations

import os
import sys


def start(descriptor: int) -> None:
    """Sends the hello frame, reads the configuration and installs the hooks. sitecustomize.py calls it once, before app.py.

    Secrets, the address of the device API and the key of the Space's own port arrive over the channel. They are not
    part of the environment of the exec, so /proc/<pid>/environ never shows them.
    """
    from . import fork, hooks  # here: a child of a worker imports cuda_child alone
    from .frames import PROTOCOL, Channel
    from .liveness import out_of_reach
    from .state import State

    channel = Channel(out_of_reach(descriptor))
    channel.send({"op": "hello", "protocol": PROTOCOL, "pid": os.getpid(), "python": sys.version.split()[0]})
    stacks = channel.accept()
    config, _ = channel.receive()
    os.environ.update(config["environment"])
    state = State(
        channel=channel,
        port=config["port"],
        key=config["key"].encode(),
        public_url=config["public_url"],
        local_url=config.get("local_url"),
        device_port=config["device_port"],
        simulated=config["simulated"],
        subreaper=config.get("subreaper", False),
        strict=config.get("strict", False),
        storage=config.get("storage", False),
        shield=config.get("shield", False),
    )
    if stacks >= 0:
        state.liveness.install(stacks, config["stack_signal"])
    if observed := config.get("observe"):  # by `spacehost check`
        from .observe import Observer

        state.observer = Observer(state, os.getcwd(), observed["limit"], observed["calls"])
    fork.install(state)
    state.printer.install()
    hooks.install(state)
    if config.get("standby"):
        from . import standby

        standby.wait(channel, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    state.listen()
