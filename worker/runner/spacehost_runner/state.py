"""What the hooks share: the channel, the Space's own port and its key, the apps that are attached."""
from __future__ import annotations

import _thread
import contextlib
import os
from typing import TYPE_CHECKING, Any

from .children import end_descendants
from .frames import Channel

if TYPE_CHECKING:
    from .seam import Seam


class State:
    """Made once per process. (Not a dataclass: that would import inspect before the app's first line.)"""

    def __init__(
        self, channel: Channel, port: int, key: bytes, public_url: str, device_port: int, simulated: bool, subreaper: bool = False
    ) -> None:
        self.channel = channel
        self.preferred_port = port  # where the Space's own server shall listen
        self.port = port  # where the one that was started last does
        self.ports: set[int] = set()  # every port that a server of this Space was given
        self.key = key  # the header that its requests must carry
        self.public_url = public_url  # where visitors reach the Space
        self.device_port = device_port  # of the host's device API
        self.simulated = simulated  # there is no GPU behind what it lends
        self.subreaper = subreaper  # each GPU worker of what it starts
        self.forked = False  # this is a child: what it says is nobody's business
        self.launching: set[int] = set()  # id(Blocks) of launches under way: the guard lets their self-checks through
        self.seams: list[Seam] = []  # index = the `app` of the frames
        self.apps: dict[int, Any] = {}  # id(Blocks) -> the last App made for it
        self.mounts: dict[int, str] = {}  # id(Blocks) -> path given to mount_gradio_app
        self.tasks: dict[str, dict[str, Any]] = {}  # by the taskId that spaces gives a decorated function

    def take_port(self, public: bool = True) -> int:
        """Returns the preferred port, or another free one if a demo of this app already listens there.

        Not public: the app has asked for a port at which nobody reaches a Space.
        """
        if not public or (port := _probe(self.preferred_port)) is None:
            port = _probe(0)
        self.port = port
        self.ports.add(self.port)
        return self.port

    def is_further(self, port: int) -> bool:
        """Whether an app at port stands beside one that visitors reach."""
        return port != self.preferred_port and _probe(self.preferred_port) is None

    def port_of(self, blocks: Any) -> int:
        """Returns where blocks is served. A mount has 7860 for its port, whatever server it is mounted to."""
        port = getattr(blocks, "server_port", None)
        return port if port in self.ports else self.port

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        if not self.forked:
            self.channel.send(header, payload)

    def listen(self) -> None:
        """Starts the thread that takes the host's frames. Not threading.Thread: the app may well count those."""
        _thread.start_new_thread(self._listen, ())

    def _listen(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    header, payload = self.channel.receive()
                    self.seams[header["app"]].post(header, payload)
        except BaseException:
            import traceback

            traceback.print_exc()
        # The host is gone: nobody will ever end these workers, and a lease without a host is over.
        end_descendants()
        os._exit(3)


def _probe(port: int) -> int | None:
    """Returns a port of loopback that is free, for 0 any; None if somebody listens there."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return probe.getsockname()[1]
