"""Frames: what host and runner say to each other over one socketpair.

A frame is two big-endian uint32 (length of the header, length of the payload), a small JSON object and raw
payload bytes. testdata/frames holds examples that this file and worker/frame.go both read.
"""
from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

PROTOCOL = 1
HEADER_LIMIT = 1 << 20
PAYLOAD_LIMIT = 64 << 20
_LENGTHS = struct.Struct(">II")


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Returns the bytes of one frame; raises ValueError above the limits, which both sides hold."""
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > HEADER_LIMIT or len(payload) > PAYLOAD_LIMIT:
        raise ValueError(f"frame of {len(head)}+{len(payload)} bytes is above the limit of {PAYLOAD_LIMIT}")
    return _LENGTHS.pack(len(head), len(payload)) + head + payload


class Channel:
    """One end of the socketpair. send may be called from any thread, receive from one."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        data = encode(header, payload)
        with self._lock:
            self._socket.sendall(data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Blocks for the next frame; raises EOFError when the host has gone."""
        head, body = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if head > HEADER_LIMIT or body > PAYLOAD_LIMIT:
            raise ValueError(f"frame of {head}+{body} bytes is above the limit")
        return json.loads(self._exactly(head)), self._exactly(body)

    def _exactly(self, size: int) -> bytes:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            count = self._socket.recv_into(view[got:])
            if count == 0:
                raise EOFError("the host has closed the channel")
            got += count
        return bytes(buffer)
