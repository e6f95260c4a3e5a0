from __future__ import annotations

import os
import sys
import tempfile
import types
import unittest
from typing import Any

from spacehost_runner import observe, observe_calls, observe_hooks


class FakeState:
    def __init__(self) -> None:
        self.forked, self.adapters, self.sent = False, [], []

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.sent.append(header)


class SpaceTest(unittest.TestCase):
    """A Space with one file, and its Observer."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = os.path.realpath(folder.name)
        self.state = FakeState()
        self.observer = observe.Observer(self.state, self.root, 60, False)  # type: ignore[arg-type]

    def raises(self, source: str, **names: Any) -> BaseException:
        """Returns the exception of a source file of the Space."""
        path = os.path.join(self.root, "app.py")
        with open(path, "w") as file:
            file.write(source)
        try:
            exec(compile(source, path, "exec"), {"__name__": "__main__", **names})
        except BaseException as error:
            return error
        raise AssertionError("no exception")

    def facts(self) -> list[dict[str, Any]]:
        return [header["fact"] for header in self.state.sent]


class ObserverTest(SpaceTest):
    def test_equal_observations_are_sent_once(self) -> None:
        for _ in range(3):
            self.observer.report("B605", ("app.py", 3), path="/var/x")
        self.observer.report("B605", ("app.py", 4), path="x" * 10_000)
        first, second = self.facts()
        self.assertEqual(first, {"rule": "B605", "file": "app.py", "line": 3, "values": {"path": "/var/x"}})
        self.assertEqual(len(second["values"]["path"]), observe_calls.MAX_TEXT)

    def test_observations_are_bounded(self) -> None:
        for line in range(2 * observe.MAX_FACTS):
            self.observer.report("B605", ("app.py", line))
        self.assertEqual(len(self.facts()), observe.MAX_FACTS)

    def test_a_worker_writes_to_the_pipe(self) -> None:
        self.observer.pipe = os.pipe()
        self.addCleanup(lambda: [os.close(end) for end in self.observer.pipe or ()])
        os.set_blocking(self.observer.pipe[0], False)
        self.state.forked = True
        self.observer.report("G801", ("app.py", 3), message="x")
        self.observer.report("G801", ("app.py", 4), message="y" * 2 * observe.PIPE_BUF)  # cut
        self.observer.drain()  # only the Space's process reads
        self.assertEqual(self.facts(), [])
        self.state.forked = False
        os.write(self.observer.pipe[1], b"no JSON\n{")
        self.observer.drain()
        self.assertEqual([(fact["rule"], fact["line"]) for fact in self.facts()], [("G801", 3), ("G801", 4)])
        self.assertEqual(self.observer.rest, b"{")

    def test_only_sources_of_the_space_are_its_own(self) -> None:
        inside = os.path.join(self.root, "lib", "x.py")
        self.assertEqual(self.observer.own(inside), os.path.join("lib", "x.py"))
        for path in ("<string>", os.__file__, os.path.join(self.root, "venv", "site-packages", "x.py"), self.root + "x/app.py"):
            self.assertEqual(self.observer.own(path), "", path)

    def test_the_exception_that_ends_the_start(self) -> None:
        gradio = sys.modules["gradio"] = types.ModuleType("gradio")
        self.addCleanup(sys.modules.pop, "gradio")
        events = sys.modules["gradio.events"] = types.ModuleType("gradio.events")
        self.addCleanup(sys.modules.pop, "gradio.events")
        exec("class EventListener:\n    @staticmethod\n    def _setup():\n        def event_trigger(fn=None): ...\n        return event_trigger\n", events.__dict__)
        exec("class Textbox:\n    def __init__(self, label=None): ...\n", gradio.__dict__)
        for source, rule, line in (
            ("x = 1\nimport no_such_module.part\n", "A206", 2),
            ("import json.no_such_part\n", "B701", 1),  # of an installed package
            ("1 / 0\n", "A801", 1),
            ("def f():\n    raise ConnectionError('x')\nf()\n", "A803", 2),
            ("\ngradio.Textbox(show_copy_button=True)\n", "B801", 2),
            ("events.EventListener._setup()(api_description='x')\n", "B801", 1),
            ("def f(): ...\nf(x=1)\n", "A801", 2),  # of the app's own function
        ):
            with self.subTest(source):
                self.state.sent.clear()
                self.observer.seen.clear()
                self.observer.exception(self.raises(source, gradio=gradio, events=events), "start")
                self.assertEqual([(f["rule"], f["file"], f["line"]) for f in self.facts()], [(rule, "app.py", line)])

    def test_exits_and_reported_uses_of_cuda_are_no_news(self) -> None:
        for error in (SystemExit("x"), RuntimeError(observe.REFUSAL + " the package"), RuntimeError("x\n" + observe.FIRST_USE + " in app.py:1")):
            self.observer.exception(error, "start")
        self.assertEqual(self.facts(), [])

    def test_an_own_module_that_is_missing_is_no_missing_package(self) -> None:
        os.mkdir(os.path.join(self.root, "helpers"))
        self.observer.exception(self.raises("import helpers.nothing_like_it\n"), "start")
        self.assertEqual([fact["rule"] for fact in self.facts()], ["A801"])

    def test_the_exception_of_a_call(self) -> None:
        self.observer.exception(self.raises("def run():\n    raise ValueError('bad')\nrun()\n"), "gpu")
        self.observer.exception(self.raises("def show():\n    {}['x']\nshow()\n"), "call")
        self.observer.exception(self.raises("def show():\n    raise RuntimeError('Low-level CUDA init reached')\nshow()\n"), "call")
        self.assertEqual([(f["rule"], f["line"], f["values"]["function"]) for f in self.facts()], [("G801", 2, "run"), ("S801", 2, "show"), ("F308", 2, "show")])

    def test_device_map_as_written(self) -> None:
        library = types.ModuleType("transformers")
        exec("def from_pretrained(name, device_map=None):\n    device_map = {'': 0}\n    raise RuntimeError('Low-level CUDA init reached')\n", library.__dict__)
        self.observer.exception(self.raises("\nlibrary.from_pretrained('x', device_map='auto')\n", library=library), "start")
        self.assertEqual([(f["rule"], f["line"], f["values"]["device_map"]) for f in self.facts()], [("F310", 2, "'auto'")])

    def test_a_variable_that_the_app_misses(self) -> None:
        original = type(os.environ).__getitem__
        self.addCleanup(setattr, type(os.environ), "__getitem__", original)
        observe_hooks._watch_environment(self.observer)
        self.raises("import os\nos.environ.get('NO_SUCH_ONE')\nos.getenv('NO_SUCH_TWO')\nos.environ['NO_SUCH_THREE']\n")
        os.environ.get("NO_SUCH_FOUR")  # not the app
        self.assertEqual(self.observer.missing, {"NO_SUCH_ONE": ("app.py", 2), "NO_SUCH_TWO": ("app.py", 3), "NO_SUCH_THREE": ("app.py", 4)})

    def test_the_line_of_the_only_return(self) -> None:
        path = os.path.join(self.root, "app.py")
        source = "def one(x):\n    x = 1\n    return x\n\ndef two(x):\n    if x:\n        return 1\n    return 2\n"
        with open(path, "w") as file:
            file.write(source)
        names: dict[str, Any] = {}
        exec(compile(source, path, "exec"), names)
        self.assertEqual(observe.Task(self.observer, names["one"], None, "").returns(), ("app.py", 3))
        self.assertEqual(observe.Task(self.observer, names["two"], None, "").returns(), ("app.py", 5))

    def test_a_global_that_a_handler_reads(self) -> None:
        names: dict[str, Any] = {"history": []}
        exec("def show():\n    return history\ndef other():\n    return 1\n", names)
        self.observer.handlers = [names["other"], names["show"]]
        self.assertEqual(self.observer.reader("history", names), "show")
        self.assertEqual(self.observer.reader("model", names), "")
        before = observe_hooks.state(names["history"])
        names["history"].append(1)
        self.assertNotEqual(observe_hooks.state(names["history"]), before)


class CallListTest(unittest.TestCase):
    def test_combinations(self) -> None:
        found = list(observe_calls.combinations([[("1", 1), ("9", 9)], [], [("a", "a")]]))
        self.assertEqual(found[0], {})
        self.assertIn({0: ("9", 9)}, found)
        self.assertIn({0: ("9", 9), 2: ("a", "a")}, found)
        many = list(observe_calls.combinations([[(str(i), i) for i in range(16)]] * 6))
        self.assertLessEqual(len(many), 1 + 6 * 16 + 512)

    def test_variants(self) -> None:
        slider = type("Slider", (), {"minimum": 1, "maximum": 50})()
        radio = type("Radio", (), {"choices": [("Fast", "fast"), ("Fine", "fine")]})()
        self.assertEqual(list(observe_calls.variants(slider)), [("50", 50), ("1", 1)])
        self.assertEqual(list(observe_calls.variants(radio)), [("fast", "fast"), ("fine", "fine")])
        self.assertEqual(list(observe_calls.variants(type("Textbox", (), {})())), [])

    def test_the_list_of_an_app_without_functions_is_sent(self) -> None:
        state = FakeState()
        observer = observe.Observer(state, tempfile.gettempdir(), 0, True)  # type: ignore[arg-type]
        observe_calls.send_list(observer, types.SimpleNamespace(fns={}), "/gradio_api")
        self.assertEqual(state.sent, [{"op": "calls"}])

    def test_wrappers(self) -> None:
        import functools

        def run() -> None: ...

        @functools.wraps(run)
        def outer() -> None: ...

        self.assertTrue(observe_calls.is_wrapper(outer, run))
        self.assertFalse(observe_calls.is_wrapper(sys.exit, run))


if __name__ == "__main__":
    unittest.main()
