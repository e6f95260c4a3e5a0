"""Frames: what host and runner say to each other over one socketpair.

A frame is two big-endian uint32 (length of the header, length of the payload), a small JSON object and raw
payload bytes. testdata/frames holds examples that this file and worker/frame.go both read.
"""
from __future__ import annotations

import _thread
import json
import os
import struct
from typing import Any

PROTOCOL = 1
HEADER_LIMIT = 1 << 20
PAYLOAD_LIMIT = 64 << 20
_LENGTHS = struct.Struct(">II")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_AHEAD, _MOST = 16 << 10, 1 << 20  # what is read at a time: of many small frames, of a large one


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Returns the bytes of one frame; raises ValueError above the limits, which both sides hold."""
    head = _ENCODER.encode(header).encode()
    if len(head) > HEADER_LIMIT or len(payload) > PAYLOAD_LIMIT:
        raise ValueError(f"frame of {len(head)}+{len(payload)} bytes is above the limit of {PAYLOAD_LIMIT}")
    return _LENGTHS.pack(len(head), len(payload)) + head + payload


class Channel:
    """One end of the socketpair. send may be called from any thread, receive from one.

    Plain descriptors, since nothing that an app may want to patch first (socket, ssl, threading; gevent does)
    is imported before its first line.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor
        self._lock = _thread.allocate_lock()
        self._read = b""  # and not yet asked for

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.write(encode(header, payload))

    def write(self, frames: bytes) -> None:
        """Sends whole frames, as encode made them."""
        left = memoryview(frames)
        with self._lock:
            while left:
                left = left[os.write(self.descriptor, left) :]

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Blocks for the next frame; raises EOFError when the host has gone, ValueError when it breaks the rules."""
        head, body = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if head > HEADER_LIMIT or body > PAYLOAD_LIMIT:
            raise ValueError(f"frame of {head}+{body} bytes is above the limit")
        header, payload = json.loads(self._exactly(head).decode()), self._exactly(body)
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        return header, payload

    def _exactly(self, size: int) -> bytes:
        """Reads ahead: each read lets go of the interpreter, and has to wait for it after."""
        if len(self._read) < size:
            self._fill(size)
        found, self._read = self._read[:size], self._read[size:]
        return found

    def _fill(self, size: int) -> None:
        parts, have = [self._read], len(self._read)
        while have < size:
            part = os.read(self.descriptor, max(_AHEAD, min(size - have, _MOST)))
            if not part:
                raise EOFError("the host has closed the channel")
            parts.append(part)
            have += len(part)
        self._read = b"".join(parts)
