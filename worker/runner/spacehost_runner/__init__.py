"""The host's half inside the Space's Python process: hooks Gradio, executes events with Gradio's own code."""
from __future__ import annotations

import os
import sys

from . import children, hooks
from .frames import PROTOCOL, Channel
from .state import State


def start(descriptor: int) -> None:
    """Greets the host, takes its configuration and installs the import hooks; called once, before app.py.

    Secrets, the device API's address and the key of the Space's own port arrive over the channel, not in the
    environment of the exec: so they never stand in /proc/<pid>/environ.
    """
    channel = Channel(descriptor)
    channel.send({"op": "hello", "protocol": PROTOCOL, "pid": os.getpid(), "python": sys.version.split()[0]})
    config, _ = channel.receive()
    os.environ.update(config["environment"])
    state = State(
        channel=channel,
        port=config["port"],
        key=config["key"].encode(),
        public_url=config["public_url"],
        device_port=config["device_port"],
        simulated=config["simulated"],
        subreaper=config.get("subreaper", False),
    )
    children.install(state)
    hooks.install(state)
    state.listen()
