"""Tests the import hooks with sample modules in place of Gradio's."""
from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import io
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from spacehost_runner.hooks import Finder, _gc_paused, _kill_stuck_workers, _patch_docs, _patch_stubs, _patch_worker, _wait_for_server

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "spacehost_sample"


class Hooks(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        sys.path.insert(0, folder.name)
        self.addCleanup(sys.path.remove, folder.name)
        self.patched: list[tuple[ModuleType, int]] = []
        finder = Finder({NAME: lambda module: self.patched.append((module, module.value))}, {})
        sys.meta_path.insert(0, finder)
        self.addCleanup(sys.meta_path.remove, finder)
        self.addCleanup(sys.modules.pop, NAME, None)
        self.write("value = 1")

    def write(self, text: str) -> None:
        (self.folder / f"{NAME}.py").write_text(text + "\n" + "#" * len(self.patched))  # a different size invalidates the .pyc
        importlib.invalidate_caches()

    def test_patched_once_after_the_module_has_run(self) -> None:
        module = importlib.import_module(NAME)
        self.assertIs(importlib.import_module(NAME), module)
        self.assertEqual(self.patched, [(module, 1)])
        self.assertNotIn("exec_module", vars(module.__spec__.loader), "the loader still has the replaced exec_module")

    def test_no_garbage_is_collected_while_gradio_is_imported(self) -> None:
        name = "spacehost_gradio"
        finder = Finder({}, {name: _gc_paused})
        sys.meta_path.insert(0, finder)
        self.addCleanup(sys.meta_path.remove, finder)
        self.addCleanup(sys.modules.pop, name, None)
        for failing in (True, False):
            (self.folder / f"{name}.py").write_text("import gc\nseen = gc.isenabled()\n" + "assert seen, 'collection is disabled'\n" * failing)
            importlib.invalidate_caches()
            with self.assertRaises(AssertionError) if failing else contextlib.nullcontext():
                self.assertFalse(importlib.import_module(name).seen)
            self.assertTrue(gc.isenabled(), "collection was not enabled again")
        gc.disable()  # by the app
        self.addCleanup(gc.enable)
        importlib.reload(sys.modules[name])
        self.assertFalse(gc.isenabled(), "collection was enabled, although the app had disabled it")

    def test_an_import_that_failed_is_tried_again(self) -> None:
        self.write("raise ImportError('half an installation')")
        with self.assertRaisesRegex(ImportError, "half an installation"):
            importlib.import_module(NAME)
        self.assertEqual((self.patched, sys.modules.get(NAME)), ([], None))
        self.write("value = 22")
        module = importlib.import_module(NAME)
        self.assertEqual(self.patched, [(module, 22)])

    def test_a_second_import_and_a_reload_are_patched_too(self) -> None:
        first = importlib.import_module(NAME)
        del sys.modules[NAME]
        second = importlib.import_module(NAME)
        self.assertIs(importlib.reload(second), second)
        self.assertEqual([module for module, _ in self.patched], [first, second, second])

    def test_find_spec_does_not_patch(self) -> None:
        self.assertIsNotNone(importlib.util.find_spec(NAME))
        self.assertEqual(self.patched, [])
        module = importlib.import_module(NAME)
        self.assertEqual(self.patched, [(module, 1)])

    def test_a_missing_module_raises(self) -> None:
        (self.folder / f"{NAME}.py").unlink()
        importlib.invalidate_caches()
        with self.assertRaises(ModuleNotFoundError):
            importlib.import_module(NAME)


class Stubs(unittest.TestCase):
    """A fake gradio.component_meta that records the stubs it would write."""

    def test_are_written_only_for_an_apps_own_components(self) -> None:
        module, written = ModuleType("component_meta"), []
        module.create_or_modify_pyi = lambda component, name, events: written.append((component.__module__, name, events))
        _patch_stubs(None, module)
        for name in ("gradio.components.textbox", "gradio", "gradio_pdf.pdf", "__main__"):
            module.create_or_modify_pyi(type("C", (), {"__module__": name}), name, ["change"])
        self.assertEqual(written, [(name, name, ["change"]) for name in ("gradio_pdf.pdf", "__main__")])

    def test_docstring_templates_are_cached(self) -> None:
        module, made = ModuleType("events"), []
        module.Template = lambda text: made.append(text) or text.upper()
        _patch_docs(None, module)
        self.assertEqual([module.Template(text) for text in ("a", "b", "a")], ["A", "B", "A"])
        self.assertEqual(made, ["a", "b"])

    def test_a_gradio_without_them(self) -> None:
        _patch_docs(None, ModuleType("events"))
        module = ModuleType("component_meta")
        _patch_stubs(None, module)
        self.assertFalse(hasattr(module, "create_or_modify_pyi"))


class SlowServer(unittest.TestCase):
    """A fake gradio.http_server that times out before its server is up."""

    def run_in_thread(self, comes_up: bool) -> None:
        module = ModuleType("http_server")
        module.ServerFailedToStartError = timed_out = type("ServerFailedToStartError", (Exception,), {})
        slow = threading.Event()

        class Server:
            started = False

            def run(self) -> None:
                slow.wait()
                self.started = comes_up

            def run_in_thread(self) -> None:
                self.thread = threading.Thread(target=self.run)
                self.thread.start()
                slow.set()
                raise timed_out

        module.Server = Server
        _wait_for_server(module)
        server = Server()
        self.addCleanup(lambda: server.thread.join())
        if comes_up:
            server.run_in_thread()
            self.assertTrue(server.started)
        else:
            self.assertRaises(timed_out, server.run_in_thread)

    def test_is_awaited(self) -> None:
        self.run_in_thread(comes_up=True)

    def test_that_exits_raises(self) -> None:
        self.run_in_thread(comes_up=False)


class Workers(unittest.TestCase):
    """A fake spaces.zero.wrappers. Its workers are forked, then call allow."""

    def run_worker(self, timeout: float, delay: float) -> tuple[int, str]:
        """Runs a worker that calls allow after delay. Returns its exit code and what was printed."""
        module = ModuleType("wrappers")
        module.client = ModuleType("client")
        module.client.allow = lambda token: None
        fork = multiprocessing.get_context("fork")

        def work() -> None:
            time.sleep(delay)
            module.client.allow("token")
            time.sleep(1.5)  # longer than the timeout

        class Worker:
            def __init__(self) -> None:
                self.process = fork.Process(target=work)
                self.process.start()

        module.Worker = Worker
        _kill_stuck_workers(module, timeout)
        before = set(os.listdir("/proc/self/fd"))
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            worker = module.Worker()
            worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        for _ in range(500):  # the thread that waits for allow closes its descriptor later
            if set(os.listdir("/proc/self/fd")) <= before:
                return code, printed.getvalue()
            time.sleep(0.01)
        self.fail("a descriptor is still open 5 s after the exit of the worker")

    def test_that_starts_in_time_is_not_killed(self) -> None:
        self.assertEqual(self.run_worker(timeout=1, delay=0), (0, ""))

    def test_that_never_starts_is_killed(self) -> None:
        code, printed = self.run_worker(timeout=0.1, delay=60)
        self.assertEqual(code, -9)
        self.assertIn("did not start within 0.1 s after its fork and was killed", printed)


class WorkerInit(unittest.TestCase):
    """The worker_init of two releases of spaces, as their wrappers call it."""

    def call(self, worker_init: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, bool, Any]:
        """Calls the patched worker_init in a forked process. Returns its Device, whether it leads a group, and the result."""
        module, state = ModuleType("wrappers"), SimpleNamespace(subreaper=False, printer=mock.Mock())
        module.worker_init = worker_init
        _patch_worker(state, module)
        answers: Any = multiprocessing.get_context("fork").SimpleQueue()

        def work() -> None:
            result = module.worker_init(*args, **kwargs)
            answers.put((os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpgid(0) == os.getpid(), result))

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        self.assertEqual(process.exitcode, 0)
        return answers.get()

    def test_of_spaces_0_51(self) -> None:
        def worker_init(res_queue: Any, allow_token: str, nvidia_uuid: str, fds: list[int]) -> Any:
            return res_queue, allow_token, nvidia_uuid, fds

        self.assertEqual(self.call(worker_init, "queue", "token", "GPU-1", [3]), ("GPU-1", True, ("queue", "token", "GPU-1", [3])))

    def test_of_spaces_0_52(self) -> None:
        def worker_init(allow_token: str, nvidia_uuid: str, fds: list[int]) -> Any:
            return allow_token, nvidia_uuid, fds

        self.assertEqual(self.call(worker_init, allow_token="token", nvidia_uuid="GPU-1", fds=[3]), ("GPU-1", True, ("token", "GPU-1", [3])))


if __name__ == "__main__":
    unittest.main()
