"""Guards the Space's own port: only the host may send requests to it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import State

OURS = b"x-spacehost-"  # the beginning of the host's own headers
KEY = b"x-spacehost-key"
PREFIX = b"x-forwarded-prefix"  # the sub-path of the Space in browsers
CALL = b"x-spacehost-call"  # the id of the direct call that the host forwards for a visitor
REFUSAL = b'{"detail":"This port belongs to spacehost. Use the address that it printed."}'


class Guard:
    """ASGI middleware around the whole application. It answers 403 to requests without the key of this start.

    It removes the host's own headers, so that no code of the app sees them. An app that copies the headers of its visitor's
    request to another Space would otherwise send x-spacehost-hop, by which a host recognizes a loop.

    During a launch it lets Gradio's self-checks pass: GET startup-events and HEAD /
    (gradio/blocks.py, launch; gradio/networking.py, url_ok).
    """

    def __init__(self, app: Any, state: State, port: int) -> None:
        self.app, self.state, self.port = app, state, port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            # The lifespan fills this dict, and uvicorn gives each request a copy (uvicorn/lifespan/on.py).
            self.state.lifespans[self.port] = scope.get("state", {})
        if scope["type"] not in ("http", "websocket"):  # lifespan comes from the server itself
            return await self.app(scope, receive, send)
        from hmac import compare_digest

        keys = [value for name, value in scope["headers"] if name == KEY]
        if len(keys) == 1 and compare_digest(keys[0], self.state.key):
            calls = [value for name, value in scope["headers"] if name == CALL]
            headers = [pair for pair in scope["headers"] if not pair[0].startswith(OURS)]
            scope = {**scope, "headers": headers, "spacehost.call": b"".join(calls).decode("latin-1")}
            prefixes = [value for name, value in headers if name == PREFIX]
            if prefixes:  # request.url_for and base_url, not routing (starlette/requests.py, HTTPConnection.base_url)
                scope["app_root_path"] = prefixes[0].decode("latin-1")
            return await self.app(scope, receive, send)
        if self.state.launching and self._is_self_check(scope):
            return await self.app(scope, receive, send)
        await self._refuse(scope, send)

    @staticmethod
    def _is_self_check(scope: Any) -> bool:
        method, path = scope.get("method"), scope["path"]
        return (method == "GET" and path.endswith("/startup-events")) or (method == "HEAD" and path == "/")

    @staticmethod
    async def _refuse(scope: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": head})
        await send({"type": "http.response.body", "body": REFUSAL})
