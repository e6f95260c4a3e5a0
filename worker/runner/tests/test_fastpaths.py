"""Tests the fast paths for signatures and for the summary of past events."""
from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import unittest
import weakref
from types import ModuleType
from typing import Any

from spacehost_runner.fastpaths import Inspect, add_sub_path, cache_root_urls, defer_summary


class Counting:
    """A fake inspect that counts the signatures it computes."""

    def __init__(self) -> None:
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    def signature(self, *args: Any, **options: Any) -> inspect.Signature:
        self.read += 1
        return inspect.signature(*args, **options)


class RootURLs(unittest.TestCase):
    def test_sub_path_is_added_once(self) -> None:
        for root, sub_path, root_path, want in (
            ("https://lab.example", None, None, "https://lab.example"),
            ("https://lab.example", "/demo", None, "https://lab.example/demo"),
            ("https://lab.example:8443/ui", "/demo", "/ui", "https://lab.example:8443/demo/ui"),
            ("https://lab.example/demo", "/demo", "/demo/", "https://lab.example/demo"),
            ("https://other.example/x", "/demo", "https://other.example/x", "https://other.example/x"),
        ):
            self.assertEqual(add_sub_path(root, sub_path, root_path), want)

    def test_roots_of_sub_paths_are_kept_apart(self) -> None:
        module = ModuleType("module")
        module.route_utils = ModuleType("route_utils")  # type: ignore[attr-defined]
        module.route_utils.get_root_url = lambda request, route_path, root_path: "http://lab.example"  # type: ignore[attr-defined]
        cache_root_urls(module)
        for headers, want in (
            ({"x-forwarded-host": "lab.example"}, "http://lab.example"),
            ({"x-forwarded-host": "lab.example", "x-forwarded-prefix": "/a"}, "http://lab.example/a"),
            ({"x-forwarded-host": "lab.example", "x-forwarded-prefix": "/b"}, "http://lab.example/b"),
            ({"x-forwarded-host": "lab.example", "x-forwarded-prefix": "/a"}, "http://lab.example/a"),
            ({"x-forwarded-prefix": "/c"}, "http://lab.example/c"),
        ):
            request = ModuleType("request")
            request.headers = headers  # type: ignore[attr-defined]
            self.assertEqual(module.route_utils.get_root_url(request, "/config", None), want)


class Signatures(unittest.TestCase):
    def setUp(self) -> None:
        self.counting = Counting()
        self.cached = Inspect(self.counting)

    def check(self, function: Any, reads: int) -> None:
        self.assertEqual(self.cached.signature(function), inspect.signature(function))
        self.assertEqual(self.counting.read, reads)

    def test_is_read_once(self) -> None:
        def plain(a: int, b: str = "x", *, c: float = 1.0) -> None: ...

        self.check(plain, 1)
        self.check(plain, 1)
        self.assertIs(self.cached.isfunction, inspect.isfunction)

    def test_is_read_again_when_a_wrapped_function_changes(self) -> None:
        def inner(a: int, b: str = "x") -> None: ...

        @functools.wraps(inner)
        def outer(*args: Any) -> None: ...

        self.check(outer, 1)
        inner.__defaults__ = ("y",)
        self.check(outer, 2)
        inner.__kwdefaults__ = {}
        self.check(outer, 3)
        inner.__annotations__ = {"a": float}
        self.check(outer, 4)
        inner.__code__ = (lambda q, b=1: None).__code__
        self.check(outer, 5)
        outer.__wrapped__ = lambda z: None  # type: ignore[attr-defined]
        self.check(outer, 6)
        self.check(outer, 6)

    def test_is_read_each_time_unless_the_function_is_plain(self) -> None:
        def signed() -> None: ...

        signed.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
        for reads, odd in enumerate((signed, Counting, self.check, functools.partial(self.check, reads=1), Signatures().check), 1):
            self.check(odd, reads)
        with self.assertRaises(ValueError):
            self.cached.signature(type)
        with self.assertRaises(TypeError):
            self.cached.signature(7)

    def test_keeps_no_function_alive(self) -> None:
        def short_lived(a: int) -> None: ...

        self.check(short_lived, 1)
        gone = weakref.ref(short_lived)
        del short_lived
        gc.collect()
        self.assertIsNone(gone())


class Summaries(unittest.TestCase):
    """A fake gradio.queueing. Its summary is the length of the history."""

    def setUp(self) -> None:
        module = ModuleType("queueing")
        self.computed = 0
        test = self

        class Queue:
            def __init__(self) -> None:
                self.cached_event_analytics_summary = 0

            def compute_analytics_summary(self, records: list[str]) -> int:
                test.computed += 1
                self.cached_event_analytics_summary = len(records)
                return self.cached_event_analytics_summary

        async def run_sync(function: Any, *args: Any) -> Any:
            return "in a thread", function(*args)

        self.queue = Queue()  # made before the first attach
        module.Queue, module.run_sync = Queue, run_sync
        defer_summary(module)
        self.run_sync = lambda function, *args: asyncio.run(module.run_sync(function, *args))

    def test_is_computed_when_it_is_read(self) -> None:
        for records in (["a"], ["a", "b"]):
            self.note(records)
        self.assertEqual(self.computed, 0)
        self.assertEqual(self.queue.cached_event_analytics_summary, 2)
        self.assertEqual((self.queue.cached_event_analytics_summary, self.computed), (2, 1))
        self.note(["a", "b", "c"])
        self.assertEqual((self.queue.cached_event_analytics_summary, self.computed), (3, 2))

    def note(self, records: list[str]) -> None:
        self.assertNotIn("thread", str(self.run_sync(self.queue.compute_analytics_summary, records)))

    def test_other_functions_keep_their_thread(self) -> None:
        self.assertEqual(self.run_sync(len, "abc"), ("in a thread", 3))


if __name__ == "__main__":
    unittest.main()
