"""Reads and writes frames, the messages between host and runner on one socketpair.

A frame is two big-endian uint32 (length of the header, length of the payload), a small JSON object and raw
payload bytes. testdata/frames holds examples that the tests of this file and of worker/frame.go both read.
"""
from __future__ import annotations

import _thread
import json
import os
import struct
from typing import Any

PROTOCOL = 1
HEADER_LIMIT = 1 << 20
PAYLOAD_LIMIT = 320 << 20
_LENGTHS = struct.Struct(">II")
_DESCRIPTOR = struct.Struct("i")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_MIN_READ, _MAX_READ = 16 << 10, 1 << 20  # bytes per read: enough for many small frames; at most, of a large one


_LARGE = 64 << 10  # a payload of this size is not copied


def encode(header: dict[str, Any], payload: bytes = b"") -> list[bytes]:
    """Returns one frame in its parts. Raises ValueError above the limits, which both sides enforce."""
    head = _ENCODER.encode(header).encode()
    if len(head) > HEADER_LIMIT or len(payload) > PAYLOAD_LIMIT:
        raise ValueError(f"frame of {len(head)}+{len(payload)} bytes is above the limit of {PAYLOAD_LIMIT}")
    head = _LENGTHS.pack(len(head), len(payload)) + head
    return [head, payload] if len(payload) > _LARGE else [head + payload]


class Channel:
    """One end of the socketpair. send may be called from any thread, receive from one.

    It uses plain descriptors. No module that an app may want to patch first (socket, ssl, threading; gevent does) is
    imported before the first line of the app.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor
        self._lock = _thread.allocate_lock()
        self._buffer = b""  # bytes read ahead

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.write(encode(header, payload))

    def write(self, parts: list[bytes]) -> None:
        """Writes whole frames, in the parts that encode returned."""
        with self._lock:
            for part in parts if len(parts) < 2 or sum(map(len, parts)) > _LARGE else [b"".join(parts)]:
                left = memoryview(part)
                while left:
                    left = left[os.write(self.descriptor, left) :]

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Blocks for the next frame. Raises EOFError when the host has exited, ValueError for an invalid frame."""
        head, body = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if head > HEADER_LIMIT or body > PAYLOAD_LIMIT:
            raise ValueError(f"frame of {head}+{body} bytes is above the limit")
        header, payload = json.loads(self._exactly(head).decode()), self._exactly(body)
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        return header, payload

    def accept(self) -> int:
        """Reads the first bytes of the next frame, and returns the descriptor that the host sends beside them; -1: none."""
        import _socket  # without Python code, unlike socket

        peer = _socket.socket(fileno=self.descriptor)
        try:
            data, beside, _, _ = peer.recvmsg(_MIN_READ, _socket.CMSG_SPACE(_DESCRIPTOR.size), _socket.MSG_CMSG_CLOEXEC)
        finally:
            peer.detach()
        if not data:
            raise EOFError("the host has closed the channel")
        self._buffer += data
        for level, kind, content in beside:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS and len(content) >= _DESCRIPTOR.size:
                return int(_DESCRIPTOR.unpack_from(content)[0])
        return -1

    def _exactly(self, size: int) -> bytes:
        """Returns the next size bytes. It reads ahead: each read releases the interpreter lock and must wait for it again."""
        if len(self._buffer) < size:
            self._fill(size)
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _fill(self, size: int) -> None:
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            part = os.read(self.descriptor, max(_MIN_READ, min(size - have, _MAX_READ)))
            if not part:
                raise EOFError("the host has closed the channel")
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)
