from __future__ import annotations

import ast
import os
import socket
import sys
import types
from typing import Any

from spacehost_runner import observe_hooks, observe_imports, observe_machine
from test_observe import SpaceTest


class MachineTest(SpaceTest):
    def hooks(self) -> None:
        original = type(os.environ).__getitem__
        self.addCleanup(setattr, type(os.environ), "__getitem__", original)
        observe_hooks._watch_environment(self.observer)

    def test_a_connection_names_the_repository(self) -> None:
        source = "def model_info(repo_id):\n    raise ConnectionError('refused')\n"
        names: dict[str, Any] = {}
        exec(compile(source, os.path.join("/x", "site-packages", "huggingface_hub", "hf_api.py"), "exec"), names)
        app = "def load():\n    try:\n        model_info('owner/model')\n    except ConnectionError:\n        raise RuntimeError('The model is not there')\nload()\n"
        error = self.raises(app, **names)
        self.observer.exception(error, "call")
        self.observer.exception(error, "start")
        offline, start = self.facts()
        wanted = {"name": "owner/model of the Hub", "cause": observe_machine.REMOTE, "exception": "RuntimeError"}
        self.assertEqual(offline, {"rule": "offline", "file": "app.py", "line": 3, "values": {**wanted, "function": "load"}})
        self.assertEqual(start, {"rule": "A803", "file": "app.py", "line": 3, "values": {**wanted, "message": "The model is not there"}})

    def test_a_server_that_answers(self) -> None:
        error = type("HfHubHTTPError", (Exception,), {})("Forbidden")
        error.response = types.SimpleNamespace(status_code=403)
        error.request = types.SimpleNamespace(url="https://huggingface.co/api/models/x")
        self.assertEqual(observe_machine.destination(error), ("huggingface.co", False))
        self.assertEqual(observe_machine.cause(error, False), "the server answers 403")
        error.request.url = "http://localhost:11434/api"
        self.assertEqual(observe_machine.destination(error), ("localhost", True))

    def test_a_variable_that_is_not_set(self) -> None:
        self.hooks()
        for source, name in (
            ("import os\ndef f():\n    os.environ['NO_SUCH_KEY']\nf()\n", "NO_SUCH_KEY"),
            ("import os\nif not os.getenv('NO_SUCH_KEY'):\n    raise ValueError('NO_SUCH_KEY is missing')\n", "NO_SUCH_KEY"),
            ("import os\nMODEL = (\n    os.getenv('NO_SUCH_KEY'))\nlen(\n    MODEL)\n", "NO_SUCH_KEY"),
            ("import os\nMODEL = os.getenv('NO_SUCH_KEY', 'small')\nlen(MODEL) + 'x'\n", ""),  # the default is used
            ("import os\nMODEL = os.getenv('NO_SUCH_KEY')\n1 / 0\n", ""),
            ("import os\nos.getenv('NO_SUCH_KEY')\n{}['other']\n", ""),
            ("import os\nos.getenv('NO_SUCH')\nraise ValueError('NO_SUCH_KEY')\n", ""),
        ):
            with self.subTest(source):
                self.observer.missing.clear()
                error = self.raises(source)
                place = self.observer.raised(error)[0]
                self.assertEqual(observe_machine.unset_variable(self.observer, error, place), name)

    def test_hosts_that_the_app_itself_wants(self) -> None:
        original = socket.getaddrinfo
        self.addCleanup(setattr, socket, "getaddrinfo", original)

        def fails(*args: Any) -> Any:
            raise socket.gaierror("no network")

        setattr(socket, "getaddrinfo", fails)
        observe_machine.watch_names(self.observer)
        self.raises("import socket\ntry:\n    socket.getaddrinfo('hub.invalid', 80)\nexcept OSError:\n    1 / 0\n")
        with self.assertRaises(OSError):
            socket.getaddrinfo("hub.invalid", 80)  # not the app
        self.assertEqual([(f["rule"], f["line"], f["values"]["name"]) for f in self.facts()], [("offline", 3, "hub.invalid")])


class ImportsTest(SpaceTest):
    def lazy(self, source: str) -> list[tuple[str, int, str]]:
        return sorted(observe_imports.lazy(ast.parse(source)))

    def test_imports_of_functions(self) -> None:
        for source, found in (
            ("import a\n", []),
            ("def f():\n    import a.b, c\n", [("a", 2, "f"), ("c", 2, "f")]),
            ("class K:\n    def f(self):\n        if self.model is None:\n            from a.b import c\n", [("a", 4, "f")]),
            ("def f():\n    if MODEL is None:\n        import a\n", [("a", 3, "f")]),
            ("def f(x):\n    with x:\n        def g():\n            import a\n", [("a", 4, "f")]),
            ("def f():\n    try:\n        import a\n    except ImportError:\n        import b\n    else:\n        import c\n", [("c", 7, "f")]),
            ("def f():\n    try:\n        import a\n    except (KeyError, ModuleNotFoundError):\n        pass\n", []),
            ("def f():\n    try:\n        import a\n    except ValueError:\n        pass\n", [("a", 3, "f")]),
            ("def f():\n    if IN_COLAB:\n        import a\n", []),
            ("def f():\n    if sys.platform == 'darwin':\n        import a\n", []),
            ("def f():\n    if has_a():\n        import a\n", []),
            ("def f():\n    from . import a\n    from .b import c\n", []),
        ):
            with self.subTest(source):
                self.assertEqual(self.lazy(source), found)

    def load(self, name: str, source: str) -> None:
        path = os.path.join(self.root, name + ".py")
        with open(path, "w") as file:
            file.write(source)
        module = sys.modules[name] = types.ModuleType(name)
        self.addCleanup(sys.modules.pop, name, None)
        module.__file__ = path

    def test_absent_modules_are_reported_once(self) -> None:
        self.load("own_module", "def f():\n    import json, own_module, no_such_one, helper\ndef g():\n    import no_such_one\n")
        with open(os.path.join(self.root, "helper.py"), "w"):
            pass
        self.observer.look_at_imports()
        self.assertEqual(
            self.facts(),
            [{
                "rule": "A206", "file": "own_module.py", "line": 2, "severity": "warning",
                "values": {
                    "module": "no_such_one", "because": "no requirement brings it", "outcome": "f fails with ModuleNotFoundError", "target": "requirements.txt",
                },
            }],
        )

    def test_an_app_that_fetches_code(self) -> None:
        for command in ("os.system('pip install x')", "subprocess.run(['pip', 'install', 'x'])", "os.system('git clone x')", "sys.path.append('x')"):
            with self.subTest(command):
                self.load("own_module", f"\n{command}\ndef f():\n    import no_such_one\n")
                self.assertEqual(observe_imports.fetches(self.observer), "own_module.py:2")
                self.observer.look_at_imports()
                self.assertEqual(self.facts(), [])
        self.load("own_module", "# pip install x\n")
        self.assertEqual(observe_imports.fetches(self.observer), "")
