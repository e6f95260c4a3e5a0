"""What spaces' APIClient asks of an httpx.Client (spaces/zero/api.py), over one kept connection.

httpx takes a good part of what a GPU call costs over a plain one, for the two requests that a warm one makes; what they
need of HTTP is little, and the host at the other end is ours. What is not here is asked of the httpx.Client that spaces
has made. Modules are imported where they are used: the app may want to be first.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    import httpx

PATIENCE = 60  # seconds, as spaces gives its client
MAX_HEAD = 65536


class Client:
    """Stands in for an httpx.Client. One thread at a time."""

    def __init__(self, whole: httpx.Client) -> None:
        self._whole = whole
        url = whole.base_url
        self._address, self._path = (url.host, url.port or 80), url.raw_path.decode().rstrip("/")
        self._idle: socket.socket | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def build_request(self, method: str, url: str, params: Mapping[str, Any] | None = None, **more: Any) -> Any:
        from urllib.parse import quote, urlencode

        if more:
            return self._whole.build_request(method, url, params=params, **more)
        query = "?" + urlencode({k: _plain(v) for k, v in params.items()}, quote_via=quote) if params else ""
        return f"{method} {self._path}{url}{query} HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\nContent-Length: 0\r\n\r\n"

    def send(self, request: Any, *, stream: bool = False, **more: Any) -> Any:
        if not isinstance(request, str) or more:
            return self._whole.send(request, stream=stream, **more)
        response = Response(self, self._ask(request.encode("ascii")))
        if not stream:
            response.read()
        return response

    def post(self, url: str, **more: Any) -> Any:
        return self.send(self.build_request("POST", url, **more))

    def get(self, url: str, **more: Any) -> Any:
        return self.send(self.build_request("GET", url, **more))

    def _ask(self, request: bytes) -> socket.socket:
        """Returns the connection on which the answer comes. It is the answer's until keep."""
        import socket

        import httpx

        connection, self._idle = self._idle, None
        if connection is None or _has_ended(connection):
            try:
                connection = socket.create_connection(self._address, PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                raise httpx.ConnectError(str(error)) from error
        try:
            connection.sendall(request)
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        return connection

    def keep(self, connection: socket.socket) -> None:
        """Takes back a connection whose answer has been read."""
        self._idle = connection


def _plain(value: Any) -> Any:
    """As httpx writes it (httpx/_utils.py, primitive_value_to_str)."""
    return {True: "true", False: "false", None: ""}[value] if value is None or isinstance(value, bool) else value


def _has_ended(connection: socket.socket) -> bool:
    """Whether the host has closed a connection on which nothing is under way."""
    connection.settimeout(0)
    try:
        connection.recv(1)
    except BlockingIOError:
        connection.settimeout(PATIENCE)
        return False
    except OSError:
        pass
    connection.close()
    return True


class Response:
    """Stands in for an httpx.Response. Errors are httpx's."""

    def __init__(self, client: Client, connection: socket.socket) -> None:
        import httpx

        self._client, self._connection, self._ahead = client, connection, b""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status_code = int(first.split(" ", 2)[1])
        self.headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
        self._body: bytes | None = None

    def read(self) -> bytes:
        if self._body is None:
            self._body = b"".join(self._pieces())
        return self._body

    def json(self) -> Any:
        import json

        return json.loads(self.read())

    def iter_text(self) -> Iterator[str]:
        """Each chunk is a text: the host sends one with each event."""
        for piece in self._pieces():
            yield piece.decode()

    def close(self) -> None:
        """Hangs up on an answer that has not been read to its end."""
        if self._client._idle is not self._connection:
            self._connection.close()

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                yield self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
        else:
            yield self._exactly(int(self.headers.get("content-length", 0)))
        if self.headers.get("connection") == "close":
            self._connection.close()
        else:
            self._client.keep(self._connection)

    def _until(self, end: bytes) -> bytes:
        import httpx

        while (at := self._ahead.find(end)) < 0:
            if len(self._ahead) > MAX_HEAD:
                raise httpx.RemoteProtocolError("the host's answer has no end")
            self._more()
        found, self._ahead = self._ahead[:at], self._ahead[at + len(end):]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._ahead) < size:
            self._more()
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found

    def _more(self) -> None:
        import httpx

        try:
            received = self._connection.recv(65536)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the host did not answer in time") from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        if not received:
            raise httpx.RemoteProtocolError("the host ended the connection before its answer")
        self._ahead += received
