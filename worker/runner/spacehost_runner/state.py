"""Holds what the hooks share: the channel, the Space's own port and its key, the attached apps."""
from __future__ import annotations

import _thread
import contextlib
import os
from typing import TYPE_CHECKING, Any

from .fork import kill_descendants
from .frames import Channel
from .liveness import Liveness
from .printing import Printer

if TYPE_CHECKING:
    from .observe import Observer
    from .queue_adapter import QueueAdapter
    from .shield import Shield


class State:
    """The state of the runner, created once per process. A dataclass would import inspect before the app's first line."""

    def __init__(
        self, channel: Channel, port: int, key: bytes, public_url: str, device_port: int, simulated: bool, subreaper: bool = False,
        strict: bool = False,
        storage: bool = False,
        local_url: str | None = None,
        shield: bool = False,
    ) -> None:
        self.channel = channel
        self.preferred_port = port  # the port of the server that visitors reach
        self.port = port  # the port of the server that was started last
        self.ports: set[int] = set()  # every port that a server of this Space was given
        self.key = key  # the value of the header that requests to these ports must carry
        self.public_url = public_url  # the visitors' address of the Space
        self.local_url = local_url or public_url  # the address at which the Space itself reaches it
        self.device_port = device_port  # the port of the host's device API
        self.simulated = simulated  # no physical GPU is behind a lease
        self.subreaper = subreaper  # each GPU worker becomes the subreaper of its descendants
        self.strict = strict  # what ZeroGPU refuses fails, instead of printing a warning
        self.storage = storage  # the Space has a folder of its own at /data
        self.forked = False  # this process is a forked child: it sends no frames
        self.launching: set[int] = set()  # id(Blocks) of launches in progress: the guard lets their self-checks pass
        self.adapters: list[QueueAdapter] = []  # index = the `app` of the frames
        self.lifespans: dict[int, dict[str, Any]] = {}  # port of a server -> the state of its app's lifespan
        self.apps: dict[int, Any] = {}  # id(Blocks) -> the last App made for it
        self.mounts: dict[int, str] = {}  # id(Blocks) -> path given to mount_gradio_app
        self.printer = Printer(self)  # of exceptions
        self.tasks: dict[str, dict[str, Any]] = {}  # by the taskId that spaces gives a decorated function
        self.observer: Observer | None = None  # of `spacehost check`
        self.liveness = Liveness(channel)
        self.shield: Shield | None = None  # of a Space on a node
        if shield:
            from .shield import Shield

            self.shield = Shield()

    def take_port(self, public: bool = True) -> int:
        """Returns the preferred port, or another free one if a demo of this app already listens there.

        public is false if the app has requested a port at which visitors never reach a Space.
        """
        port = _free_port(self.preferred_port) if public else None
        if port is None:
            port = _free_port(0)
            while not public and port == self.preferred_port:
                port = _free_port(0)  # the kernel may offer the one that is kept for the next launch
            if public and self.preferred_port not in self.ports:
                self.preferred_port = port  # another process has taken the port since the host chose it
        self.port = port
        self.ports.add(self.port)
        return self.port

    def is_further(self, port: int) -> bool:
        """Reports whether the app at port runs beside the one that visitors reach."""
        return port != self.preferred_port and _free_port(self.preferred_port) is None

    def port_of(self, blocks: Any) -> int:
        """Returns the port that serves blocks. Mounted Blocks report 7860, whatever server they are mounted to."""
        port = getattr(blocks, "server_port", None)
        return port if port in self.ports else self.port

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        if not self.forked:
            self.channel.send(header, payload)

    def listen(self) -> None:
        """Starts the thread that reads the host's frames. It is no threading.Thread: the app may count those."""
        _thread.start_new_thread(self._listen, ())

    def _listen(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self._handle(*self.channel.receive())
        except BaseException:
            import traceback

            traceback.print_exc()
        if self._is_closed():
            self.liveness.closed()
        # The host has exited: no other process ends these workers, and a lease ends with its host.
        kill_descendants()
        os._exit(3)


    def _handle(self, header: dict[str, Any], payload: bytes) -> None:
        match header["op"]:
            case "probe":
                self.liveness.probe(header["number"])
            case "stacks":
                self.liveness.write_stacks()
            case "stack":
                self.printer.report_stack()
            case "end":
                if self.shield:
                    self.shield.end()
            case _:
                self.adapters[header["app"]].post(header, payload)

    def _is_closed(self) -> bool:
        """Reports whether the app has closed the descriptor of the channel."""
        try:
            os.fstat(self.channel.descriptor)
        except OSError:
            return True
        return False


def _free_port(port: int) -> int | None:
    """Returns port if it is free on loopback, or any free port for 0. Returns None if the port is in use."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return probe.getsockname()[1]
