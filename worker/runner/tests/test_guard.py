"""Tests the guard of the Space's own port with the calls of an ASGI server."""
from __future__ import annotations

import asyncio
import unittest
from types import SimpleNamespace
from typing import Any

from spacehost_runner.guard import Guard
from spacehost_runner.servers import SELF_CHECKS, patch_networking

KEY = b"0123456789abcdef"


class Guarded(unittest.TestCase):
    def call(self, headers: list[tuple[bytes, bytes]], launching: bool = False, **scope: Any) -> Any:
        """Returns the scope that the app received, or the status of the refusal."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)

        async def send(message: dict[str, Any]) -> None:
            seen.append(message.get("status") or message.get("code") or message.get("body"))

        guard = Guard(app, SimpleNamespace(key=KEY, launching={1} if launching else set(), lifespans={}), 7860)
        scope = {"type": "http", "method": "GET", "path": "/", **scope, "headers": headers}
        asyncio.run(guard(scope, None, send))
        return seen[0]

    def test_the_key_is_accepted_and_removed(self) -> None:
        scope = self.call([(b"a", b"1"), (b"x-spacehost-key", KEY), (b"x-spacehost-call", b"42"), (b"a", b"2")])
        self.assertEqual(scope["headers"], [(b"a", b"1"), (b"a", b"2")])
        self.assertEqual(scope["spacehost.call"], "42")
        self.assertEqual(self.call([(b"x-spacehost-key", KEY)])["spacehost.call"], "")

    def test_no_header_of_the_host_reaches_the_app(self) -> None:
        for kind in ("http", "websocket"):
            scope = self.call([(b"x-spacehost-hop", b"1"), (b"x-spacehost-key", KEY), (b"x-kept", b"1"), (b"x-spacehost-new", b"")], type=kind)
            self.assertEqual(scope["headers"], [(b"x-kept", b"1")])

    def test_the_sub_path_is_the_root_of_urls_and_not_of_routes(self) -> None:
        scope = self.call([(b"x-spacehost-key", KEY), (b"x-forwarded-prefix", b"/survey")], path="/config", root_path="")
        self.assertEqual((scope["app_root_path"], scope["root_path"], scope["path"]), ("/survey", "", "/config"))
        self.assertNotIn("app_root_path", self.call([(b"x-spacehost-key", KEY)]))

    def test_refused(self) -> None:
        key = b"x-spacehost-key"
        for name, headers in {
            "none": [],
            "empty": [(key, b"")],
            "wrong": [(key, KEY[:-1] + b"x")],
            "a part": [(key, KEY[:-1])],
            "two": [(key, KEY), (key, KEY)],
            "two, one wrong": [(key, b"x"), (key, KEY)],
            "not ASCII": [(key, b"\xff" * 16)],
            "only a call": [(b"x-spacehost-call", KEY)],
        }.items():
            with self.subTest(name):
                self.assertEqual(self.call(headers), 403)
                self.assertEqual(self.call(headers, type="websocket"), 1008)

    def test_self_checks_pass_only_during_a_launch(self) -> None:
        for method, path, passes in (
            ("GET", "/gradio_api/startup-events", True),
            ("GET", "/startup-events", True),
            ("HEAD", "/", True),
            ("GET", "/", False),
            ("HEAD", "/config", False),
            ("POST", "/gradio_api/startup-events", False),
            ("GET", "/gradio_api/startup-events/x", False),
        ):
            with self.subTest(method=method, path=path):
                during = self.call([], launching=True, method=method, path=path)
                self.assertEqual(isinstance(during, dict), passes, during)
                self.assertEqual(self.call([], method=method, path=path), 403)
        self.assertEqual(self.call([], launching=True, type="websocket", path="/"), 1008)

    def test_lifespan_comes_from_the_server_itself(self) -> None:
        self.assertEqual(self.call([], type="lifespan")["type"], "lifespan")


class SelfChecks(unittest.TestCase):
    def checks(self, launching: bool, *answers: bool) -> tuple[bool, int]:
        """Returns the result of Gradio's check, and how often it was made."""
        urls: list[str] = []

        def url_ok(url: str) -> bool:
            urls.append(url)
            return answers[min(len(urls), len(answers)) - 1]

        module = SimpleNamespace(url_ok=url_ok)
        patch_networking(SimpleNamespace(launching={1} if launching else set()), module)  # type: ignore[arg-type]
        return module.url_ok("http://127.0.0.1:7860/"), len(urls)

    def test_a_launch_repeats_its_check(self) -> None:
        self.assertEqual(self.checks(True, True), (True, 1))
        self.assertEqual(self.checks(True, False, False, True), (True, 3))
        self.assertEqual(self.checks(True, False), (False, SELF_CHECKS))
        self.assertEqual(self.checks(False, False), (False, 1))


if __name__ == "__main__":
    unittest.main()
