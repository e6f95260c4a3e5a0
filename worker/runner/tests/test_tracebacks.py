"""Tests what is printed of a traceback, and which failures are recognized."""
from __future__ import annotations

import asyncio
import contextlib
import io
import json
import linecache
import logging
import os
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from spacehost_runner import failures, pickling, tracebacks
from spacehost_runner.printing import MARK, SEPARATOR, Printer


class Sample(unittest.TestCase):
    """A folder with an app, and packages beside it whose files are below site-packages."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(linecache.clearcache)
        self.root = os.path.realpath(folder.name)
        self.app = f"{self.root}/app.py"

    def package(self, *path: str) -> str:
        return "/".join([self.root, ".venv/lib/site-packages", *path])

    def run_code(self, file: str, text: str, **names: Any) -> dict[str, Any]:
        """Runs text as the module in file, so that its frames look like those of a Space or of a package."""
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text)
        linecache.checkcache(file)
        space = {"__name__": "__main__", **names}
        exec(compile(text, file, "exec"), space)
        return space

    def raised(self, call: Any, *args: Any) -> BaseException:
        try:
            call(*args)
        except BaseException as error:
            return error
        self.fail("it raises nothing")

    def called_by_gradio(self, app: str, **names: Any) -> BaseException:
        """Returns what a function `handler` of the app raises when a package calls it as Gradio does."""
        handler = self.run_code(self.app, app, **names)["handler"]
        deep = "def run(f, n=9):\n    return run(f, n - 1) if n else anyio(f)\n"
        anyio = self.run_code(self.package("anyio", "to_thread.py"), "def call(f):\n    return f()\n")["call"]
        return self.raised(self.run_code(self.package("gradio", "queueing.py"), deep, anyio=anyio)["run"], handler)

    def recognized(self, error: BaseException) -> dict[str, Any]:
        return failures.recognize(self.root, error)


class Folding(Sample):
    def test_frames_of_packages_are_one_line(self) -> None:
        error = self.called_by_gradio("def handler():\n    return inner()\n\ndef inner():\n    raise ValueError('no')\n")
        text, full = tracebacks.text_of(error), tracebacks.text_of(error, full=True)
        own = text[text.index(f'  File "{self.app}", line 2, in handler') :]
        self.assertIn(f'  File "{self.app}", line 5, in inner\n    raise ValueError(\'no\')\n', own)
        self.assertTrue(own.endswith("\nValueError: no\n"), own)
        folded = [line for line in text.splitlines() if line.startswith("  ... ")]
        self.assertRegex(folded[0], r"^  \.\.\. \d+ lines of gradio and anyio$")
        shown = len(text.splitlines()) - 1 + int(folded[0].split()[1])
        self.assertEqual(shown, len(full.splitlines()), "the folded lines and the others are all lines")
        self.assertNotIn("site-packages", text)

    def test_the_whole_traceback_by_a_variable(self) -> None:
        error = self.called_by_gradio("def handler():\n    raise ValueError('no')\n")
        with mock.patch.dict(os.environ, {tracebacks.FULL: "full"}):
            self.assertEqual(tracebacks.text_of(error), tracebacks.text_of(error, full=True))

    def test_causes_are_folded_too(self) -> None:
        error = self.called_by_gradio("def handler():\n    raise ValueError('no')\n")
        outer = self.raised(self.run_code(self.app, "def outer():\n    raise KeyError('k') from error\n", error=error)["outer"])
        text = tracebacks.text_of(outer)
        self.assertNotIn("site-packages", text)
        self.assertIn("ValueError: no\n\nThe above exception was the direct cause of the following exception:\n", text)

    def test_recursion_of_the_app_is_cut(self) -> None:
        app = "def a(n):\n    return b(n)\n\ndef b(n):\n    return a(n - 1) if n else 1 / 0\n"
        text = tracebacks.text_of(self.raised(self.run_code(self.app, app)["a"], 300))
        self.assertLess(len(text.splitlines()), tracebacks.MAX_LINES)
        self.assertIn(" lines\n", text)

    def test_python_between_frames_of_packages_is_folded(self) -> None:
        submit = "from concurrent.futures import ThreadPoolExecutor\n\ndef run(f):\n    with ThreadPoolExecutor(1) as pool:\n        return pool.submit(f).result()\n"
        call = self.run_code(self.app, "def handler():\n    1 / 0\n")["handler"]
        run = self.run_code(self.package("spaces", "zero", "wrappers.py"), submit)["run"]
        text = tracebacks.text_of(self.raised(run, call))
        self.assertNotIn("concurrent", text)
        self.assertIn(" lines of spaces\n", text)

    def test_a_folder_of_the_app_with_the_name_of_a_package_is_shown(self) -> None:
        own = self.run_code(f"{self.root}/gradio/own.py", "def handler():\n    1 / 0\n")["handler"]
        self.assertIn("gradio/own.py", tracebacks.text_of(self.raised(own)))


class Printing(Sample):
    def setUp(self) -> None:
        super().setUp()
        self.sent: list[dict[str, Any]] = []
        self.state = SimpleNamespace(forked=False, adapters=[], send=self.sent.append)
        with mock.patch("os.getcwd", return_value=self.root):
            self.printer = Printer(self.state)  # type: ignore[arg-type]
        self.secret = self.called_by_gradio("import os\n\ndef handler():\n    return os.environ['NO_SUCH_SECRET']\n")

    def printed(self, call: Any, *args: Any, stream: str = "stderr") -> str:
        """Returns what call prints. The mark goes to the stream that the process began with."""
        text = io.StringIO()
        with mock.patch.object(sys, stream, text), mock.patch.object(sys, f"__{stream}__", text):
            call(*args)
        return text.getvalue()

    def test_a_known_failure_is_reported_and_marked(self) -> None:
        text = self.printed(self.printer.print, self.secret)
        self.assertTrue(text.endswith(f"\nKeyError: 'NO_SUCH_SECRET'\n{MARK}1\n"), text)
        self.assertEqual(
            self.sent,
            [{"op": "failure", "number": 1, "events": [], "rule": "B601", "file": "app.py", "line": 4, "values": {"name": "NO_SUCH_SECRET"}}],
        )

    def test_the_running_event_is_named(self) -> None:
        async def handle() -> None:
            self.state.adapters.append(SimpleNamespace(tasks={"event-1": asyncio.current_task(), "event-2": None}))
            try:
                raise self.secret
            except KeyError:
                self.printer.print_exc()

        self.printed(lambda: asyncio.run(handle()))
        self.assertEqual([one["events"] for one in self.sent], [["event-1"]])

    def test_an_unknown_failure_is_only_printed(self) -> None:
        error = self.called_by_gradio("def handler():\n    raise ValueError('no')\n")
        self.assertNotIn(MARK, self.printed(self.printer.print, error))
        self.assertEqual(self.sent, [])

    def test_a_text_of_a_worker(self) -> None:
        text = self.printer.worker_text(self.secret)
        self.assertEqual(json.loads(text.partition(SEPARATOR)[2])["rule"], "B601")
        printed = self.printed(self.printer.print_worker_text, text, stream="stdout")
        self.assertTrue(printed.endswith(f"KeyError: 'NO_SUCH_SECRET'\n{MARK}1\n"), printed)
        self.assertNotIn("{", printed)
        self.assertEqual(self.printed(self.printer.print_worker_text, "as", "always", stream="stdout"), "as always\n")

    def test_a_child_of_the_space_sends_no_frame(self) -> None:
        self.state.forked = True
        self.assertNotIn(MARK, self.printed(self.printer.print, self.secret))
        self.assertEqual(self.sent, [])

    def test_an_app_that_replaces_its_stream_gets_no_mark(self) -> None:
        own, kept = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stderr", own), mock.patch.object(sys, "__stderr__", kept):
            self.printer.print(self.secret)
        self.assertNotIn(MARK, own.getvalue())
        self.assertEqual(kept.getvalue(), f"{MARK}1\n")

    def test_an_error_that_spaces_has_printed_is_not_printed_again(self) -> None:
        class Error(Exception):
            """gr.Error of Gradio 4."""

        Error.__module__ = "gradio.exceptions"
        fail = self.run_code(self.package("spaces", "zero", "wrappers.py"), "def fail():\n    raise Error('RuntimeError')\n", Error=Error)["fail"]

        def handle() -> None:
            try:
                fail()
            except Error:
                self.printer.print_exc()

        self.assertEqual(self.printed(handle), "")

    def test_the_hook_of_the_process(self) -> None:
        with mock.patch.object(sys, "excepthook", mock.Mock()) as original, mock.patch.object(sys, "__excepthook__", original):
            self.printer.install()
            self.assertIs(sys.excepthook, sys.__excepthook__)
            text = self.printed(sys.excepthook, KeyError, self.secret, self.secret.__traceback__)
            self.assertIn("lines of gradio", text)
            original.assert_not_called()
            sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
            original.assert_called_once()

    def test_errors_of_routes_that_uvicorn_logs(self) -> None:
        self.printer.patch_server_log()
        self.printer.patch_server_log()
        log, text = logging.getLogger("uvicorn.error"), io.StringIO()
        self.assertEqual(len(log.filters), 1)
        handler = logging.StreamHandler(text)
        log.addHandler(handler)
        self.addCleanup(log.removeHandler, handler)
        self.addCleanup(log.filters.clear)
        log.error("Exception in ASGI application\n", exc_info=self.secret)
        self.assertNotIn("site-packages", text.getvalue())
        self.assertIn("lines of gradio", text.getvalue())


class Holder:
    """An argument with an attribute that cannot be pickled."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Slotted:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Refusing:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot pickle this")


class Pickling(unittest.TestCase):
    def test_the_path_to_what_cannot_be_pickled(self) -> None:
        def method(self: Any, prompt: str, options: Any = None) -> None: ...

        def inner() -> None: ...

        class Local:
            pass

        lock = threading.Lock()
        for name, args, kwargs, want in [
            ("an attribute", (Holder(a=1, lock=lock), "x"), {}, ("1", "self", "self.lock", "_thread.lock")),
            ("deeper", (1, {"a": [0, Holder(inside=Holder(lock=lock))]}), {}, ("2", "prompt", "prompt['a'][1].inside.lock", "_thread.lock")),
            ("a lambda", (1, "x"), {"options": lambda: 1}, ("options=", "options", "options", "a lambda")),
            ("an inner function", (1, inner), {}, ("2", "prompt", "prompt", "the inner function inner")),
            ("a generator", (1, (i for i in "ab")), {}, ("2", "prompt", "prompt", "generator")),
            ("slots", (Slotted(), 2), {}, ("1", "self", "self.lock", "_thread.lock")),
            ("a class of a function", (Local(), 2), {}, ("1", "self", "self (part 0 of its construction)", f"the class {Local.__qualname__}")),
            ("one that refuses", (Refusing(), 2), {}, ("1", "self", "self", f"{__name__}.Refusing")),
        ]:
            with self.subTest(name):
                got = pickling.argument(method, args, kwargs)
                self.assertEqual(tuple(got[key] for key in ("position", "argument", "path", "kind")), want)
        self.assertEqual(pickling.argument(method, (1, "x"), {}), {})

    def test_the_search_is_bounded(self) -> None:
        wide: list[Any] = list(range(10 * pickling.MAX_TRIALS))
        wide.append(threading.Lock())
        search = pickling.Search()
        self.assertEqual(search.locate("wide", wide), ("wide", "list"))
        self.assertLessEqual(search.trials, 2 + len(wide))
        cyclic = Holder(lock=threading.Lock())
        cyclic.itself = cyclic  # type: ignore[attr-defined]
        self.assertEqual(pickling.Search().locate("x", cyclic)[1], "_thread.lock")


class Recognition(Sample):
    """The failures of which the words are those of Python, or of a library. Those of gradio and spaces are tested with the real
    packages (worker/failures_test.go)."""

    def check(self, error: BaseException, rule: str, file: str = "", line: int = 0, **values: str) -> None:
        got = self.recognized(error)
        self.assertEqual((got.get("rule"), got.get("file"), got.get("line")), (rule, file, line), got)
        self.assertEqual(got["values"], {**got["values"], **values})

    def module_error(self, app: str, **names: Any) -> BaseException:
        return self.raised(lambda: self.run_code(self.app, app, **names))

    def test_a_missing_secret(self) -> None:
        self.check(self.module_error("import os\nKEY = os.environ['NO_SUCH']\n"), "B601", "app.py", 2, name="NO_SUCH")
        self.assertEqual(self.recognized(self.module_error("{}['NO_SUCH']")), {})

    def test_a_missing_module(self) -> None:
        self.check(self.module_error("\nimport no_such_module.inside\n"), "A206", "app.py", 2, module="no_such_module")

    def test_a_name_that_a_package_lacks(self) -> None:
        hub = ModuleType("huggingface_hub")
        hub.__dict__.update(__file__=self.package("huggingface_hub", "__init__.py"), __version__="2.4.0")
        with mock.patch.dict(sys.modules, huggingface_hub=hub):
            error = self.module_error("from huggingface_hub import HfFolder\n")
            self.check(error, "B701", "app.py", 1, name="HfFolder", package="huggingface_hub", version="2.4.0")
        with mock.patch.dict(sys.modules, huggingface_hub=hub):
            error = self.module_error("import huggingface_hub.removed\n")
            self.check(error, "B701", "app.py", 1, name="removed", package="huggingface_hub", version="2.4.0")
        own = ModuleType("helpers")
        own.__dict__.update(__file__=f"{self.root}/helpers.py")
        with mock.patch.dict(sys.modules, helpers=own):
            self.check(self.module_error("from helpers import check_token\n"), "S605", "app.py", 1, name="check_token", module="helpers.py")

    def test_a_removed_argument_of_gradio(self) -> None:
        error = self.module_error("def f(): pass\ntry:\n    f(css=1)\nexcept TypeError as e:\n    e.args = ('Blocks.__init__() ' + str(e)[4:],)\n    raise\n")
        with mock.patch.dict(sys.modules, gradio=SimpleNamespace(Blocks=object, __version__="6.31.0")):
            self.check(error, "B801", "app.py", 3, name="Blocks", argument="css", version="6.31.0")
        self.assertEqual(self.recognized(error), {}, "a function of another package")

    def test_no_network(self) -> None:
        class LocalEntryNotFoundError(Exception):
            pass

        download = "def snapshot(repo_id):\n    raise error\n"
        hub = self.run_code(self.package("huggingface_hub", "file_download.py"), download, error=LocalEntryNotFoundError("offline"))
        self.check(self.module_error("snapshot('owner/model')\n", snapshot=hub["snapshot"]), "A803", "app.py", 1, name="owner/model")
        self.assertEqual(self.recognized(self.module_error("raise ConnectionError('of a database')\n")), {})

    def test_the_cause_of_the_printed_exception(self) -> None:
        error = self.module_error("import os\ntry:\n    os.environ['NO_SUCH']\nexcept KeyError as e:\n    raise RuntimeError('no key') from e\n")
        self.check(error, "B601", "app.py", 3, name="NO_SUCH")

    def test_cuda(self) -> None:
        named = "CUDA has been initialized before importing the `spaces` package\nCUDA was first used in "
        by = " (torch.cuda.is_available){}. `spaces` is imported in app.py:9."
        self.check(
            self.module_error(f"raise RuntimeError({named + 'helpers.py:4' + by.format('')!r})"), "E301", "helpers.py", 4,
            call="torch.cuda.is_available", imported="app.py:1",
        )
        library = named + "diffusers/utils.py:245" + by.format(", reached from app.py:2")
        self.check(self.module_error(f"raise RuntimeError({library!r})"), "E302", "app.py", 2, library="diffusers/utils.py:245")
        refused = "raise RuntimeError('Low-level CUDA init (`torch._C._cuda_init`) reached. This means')"
        self.check(self.called_by_gradio(f"def handler():\n    {refused}\n"), "F308", "app.py", 2, function="handler")
        self.check(self.module_error(refused), "F309", "app.py", 1, call="this line")
        device = self.run_code(self.package("torch", "cuda", "__init__.py"), f"def set_device():\n    {refused}\n")
        device["__name__"] = "torch.cuda"
        self.check(self.module_error("\nset_device()", set_device=device["set_device"]), "F309", "app.py", 2, call="torch.cuda.set_device")
        load = self.run_code(self.package("transformers", "modeling_utils.py"), f"def load():\n    {refused}\n")["load"]
        self.check(self.module_error("load()", load=load), "F310", "app.py", 1)
        no_gpu = "raise RuntimeError('No CUDA GPUs are available')\n"
        self.check(self.module_error(no_gpu), "E304", "app.py", 1)
        self.check(self.module_error(no_gpu + "import spaces\n"), "E301", "app.py", 1, imported="app.py:2")

    def test_children_of_a_worker(self) -> None:
        torch = "raise RuntimeError('Cannot re-initialize CUDA in forked subprocess. To use CUDA with')\n"
        self.check(self.called_by_gradio(f"def handler():\n    {torch}"), "G321", "app.py", 2, function="handler", outcome="such a child cannot use CUDA")
        start = (
            "import multiprocessing\ndef handler():\n    config = multiprocessing.current_process()._config\n    config['daemon'] = True\n"
            "    try:\n        multiprocessing.Process(target=print).start()\n    finally:\n        config.pop('daemon')\n"
        )
        self.check(self.called_by_gradio(start), "G321", "app.py", 6, function="handler", outcome="a worker must not have children")

    def test_a_rule_that_fails_is_passed_over(self) -> None:
        class Odd(KeyError):
            def __str__(self) -> str:
                raise ValueError

        self.assertEqual(self.recognized(self.module_error("raise Odd()", Odd=Odd)), {})

    def test_values_are_bounded(self) -> None:
        self.check(self.module_error("import os\nos.environ['X' * 1000]\n"), "B601", "app.py", 2, name="X" * failures.MAX_VALUE)


if __name__ == "__main__":
    unittest.main()
