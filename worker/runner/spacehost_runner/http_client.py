"""Sends the HTTP requests of spaces' APIClient (spaces/zero/api.py) over kept connections, in place of httpx.Client.

A warm GPU call makes two requests, and httpx accounts for a large part of its cost over a plain call. These requests
need little of HTTP, and the server is the host. Everything else is delegated to the httpx.Client that spaces has made.

Modules are imported where they are used, since the app may want to import them first. After some idle milliseconds a
request pays several times for each line of code and each system call, so this file has few of both.
"""
from __future__ import annotations

import re  # typing has imported it already
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping

    import httpx

TIMEOUT = 60  # seconds, as spaces configures its client
MAX_HEAD = 65536
MAX_IDLE = 16  # connections kept; closed ones stay in the list until they are reused
needs_no_quotes = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch  # of a query: what urllib.parse.quote_plus leaves as it is


class Client:
    """Replaces an httpx.Client for all threads of one process. Each request has a connection to itself."""

    def __init__(self, whole: httpx.Client) -> None:
        self._whole = whole
        url = whole.base_url
        self._address, self._path = (url.host, url.port or 80), url.raw_path.decode().rstrip("/")
        self._rest = f" HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\nContent-Length: 0\r\n\r\n"
        self._idle: list[socket.socket] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def build_request(self, method: str, url: str, params: Mapping[str, Any] | None = None, **more: Any) -> Any:
        if more:
            return self._whole.build_request(method, url, params=params, **more)
        query = "?" + "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in params.items()) if params else ""
        return f"{method} {self._path}{url}{query}{self._rest}"

    def send(self, request: Any, *, stream: bool = False, **more: Any) -> Any:
        if not isinstance(request, str) or more:
            return self._whole.send(request, stream=stream, **more)
        response = Response(self, self._write(request.encode("ascii")))
        if not stream:
            response.read()
        return response

    def post(self, url: str, **more: Any) -> Any:
        return self.send(self.build_request("POST", url, **more))

    def get(self, url: str, **more: Any) -> Any:
        return self.send(self.build_request("GET", url, **more))

    def _write(self, request: bytes) -> socket.socket:
        """Sends request and returns its connection. The response owns the connection until it calls keep."""
        connection = self._idle_connection() or _connect(self._address)
        try:
            connection.sendall(request)
        except OSError as error:
            import httpx

            raise httpx.WriteError(str(error)) from error
        return connection

    def _idle_connection(self) -> socket.socket | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if not _has_ended(connection):
                return connection
        return None

    def keep(self, connection: socket.socket) -> None:
        """Takes back a connection after its response has been read."""
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def _quoted(value: Any) -> str:
    """Formats a query value as httpx does (httpx/_utils.py, primitive_value_to_str; httpx/_urls.py, QueryParams)."""
    text = {True: "true", False: "false", None: ""}[value] if value is None or isinstance(value, bool) else str(value)
    if needs_no_quotes(text):
        return text
    from urllib.parse import quote_plus

    return quote_plus(text)


def _connect(address: tuple[str, int]) -> socket.socket:
    """Connects, with timeouts in the kernel. With a timeout of Python's each read and write is two system calls."""
    import socket
    import struct

    import httpx

    try:
        connection = socket.create_connection(address, TIMEOUT)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for limit in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            connection.setsockopt(socket.SOL_SOCKET, limit, struct.pack("ll", TIMEOUT, 0))
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error
    return connection


def _has_ended(connection: socket.socket) -> bool:
    """Reports whether the host has closed an idle connection."""
    import socket

    try:
        connection.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    connection.close()
    return True


class Headers(dict[str, str]):
    """Header values by name. Names are case-insensitive."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Response:
    """Replaces an httpx.Response. It raises the exceptions of httpx."""

    def __init__(self, client: Client, connection: socket.socket) -> None:
        self._client, self._connection, self._buffer = client, connection, b""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status_code = int(first.split(" ", 2)[1])
        self.headers = Headers(lines)
        self._body: bytes | None = None
        self._is_read = False

    def read(self) -> bytes:
        if self._body is None:
            self._body = b"".join(self._pieces())
        return self._body

    def json(self) -> Any:
        import json

        return json.loads(self.read())

    def iter_text(self) -> Iterator[str]:
        """Yields each chunk as text. The host sends one chunk per event."""
        for piece in self._pieces():
            yield piece.decode()

    def close(self) -> None:
        """Closes the connection of a response that has not been read to its end."""
        if not self._is_read:
            self._connection.close()

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                yield self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
        else:
            yield self._exactly(int(self.headers.get("content-length", 0)))
        self._is_read = True
        if self.headers.get("connection") == "close":
            self._connection.close()
        else:
            self._client.keep(self._connection)

    def _until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > MAX_HEAD:
                import httpx

                raise httpx.RemoteProtocolError(f"the host sent {len(self._buffer)} bytes without the end of a line or header; limit {MAX_HEAD}")
            self._receive()
        found, self._buffer = self._buffer[:at], self._buffer[at + len(end):]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        try:
            received = self._connection.recv(65536)
        except OSError as error:
            import httpx

            if isinstance(error, BlockingIOError):
                raise httpx.ReadTimeout(f"no response from the host within {TIMEOUT} s") from error
            raise httpx.ReadError(str(error)) from error
        if not received:
            import httpx

            raise httpx.RemoteProtocolError("the host closed the connection before the end of its response")
        self._buffer += received
