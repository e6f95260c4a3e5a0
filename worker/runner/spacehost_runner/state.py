"""What the hooks share: the channel, the Space's own port and its key, the apps that are attached."""
from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from .children import end_descendants
from .frames import Channel

if TYPE_CHECKING:
    from .seam import Seam


class State:
    """Made once per process. (Not a dataclass: that would import inspect before the app's first line.)"""

    def __init__(self, channel: Channel, port: int, key: bytes, public_url: str, device_port: int) -> None:
        self.channel = channel
        self.port = port  # where the Space's own server listens
        self.key = key  # the header that its requests must carry
        self.public_url = public_url  # where visitors reach the Space
        self.device_port = device_port  # of the host's device API
        self.ports: set[int] = set()  # every port that a server of this Space was given
        self.launching: set[int] = set()  # id(Blocks) of launches under way: the guard lets their self-checks through
        self.seams: list[Seam] = []  # index = the `app` of the frames
        self.apps: dict[int, Any] = {}  # id(Blocks) -> the last App made for it
        self.mounts: dict[int, str] = {}  # id(Blocks) -> path given to mount_gradio_app

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.channel.send(header, payload)

    def listen(self) -> None:
        """Starts the thread that takes the host's frames; a daemon, so that the app's end is the app's own."""
        threading.Thread(target=self._listen, name="spacehost", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                header, payload = self.channel.receive()
                self.seams[header["app"]].post(header, payload)
        except (EOFError, OSError):
            # The host is gone: nobody will ever end these workers, and a lease without a host is over.
            end_descendants()
            os._exit(3)
