"""Tests which imports a standby executes, in processes of its own."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from unittest import mock

from spacehost_runner import standby
from spacehost_runner.frames import Channel

RUNNER = str(Path(__file__).parents[1])
# Waits as a standby, then prints which modules were imported before `go`.
PROGRAM = """
import sys
sys.path.insert(0, {runner!r})
sys.orig_argv = ["python", "app.py"]
from spacehost_runner import standby
from spacehost_runner.frames import Channel
known = set(sys.modules)
channel = Channel({fd})
class Watched:
    def receive(self):
        print(sorted(set(sys.modules) & {names!r} - known), flush=True)
        return channel.receive()
standby.wait(Watched(), {runner!r})
print("began", sys.path.count({runner!r}))
"""
NAMES = {"colorsys", "wave", "csv", "helpers", "cmd"}


def run(app: str, edited: str | None = None, files: dict[str, str] | None = None) -> tuple[int, str]:
    """Starts a standby of app, changes app.py to edited, and sends `go`. Returns the exit code and the output."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"app.py": app, **(files or {})}.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        ours, theirs = socket.socketpair()
        program = PROGRAM.format(runner=RUNNER, fd=theirs.fileno(), names=NAMES)
        with ours, subprocess.Popen(
            [sys.executable, "-B", "-c", program], cwd=folder, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([RUNNER, folder])},
        ) as process:
            theirs.close()
            assert process.stdout is not None
            first = process.stdout.readline()
            if first and edited is not None:
                Path(folder, "app.py").write_text(edited, encoding="utf-8")
            if first:
                Channel(ours.fileno()).send({"op": "go"})
            rest = process.stdout.read()
            return process.wait(), first + rest


class Standby(unittest.TestCase):
    def test_first_imports(self) -> None:
        for app, want in {
            '"""Doc."""\nfrom __future__ import annotations\nimport colorsys\nfrom csv import reader\nx = 1\nimport wave\n': ["colorsys", "csv"],
            "import colorsys\ntry:\n    import csv\nexcept ImportError:\n    pass\n": ["colorsys"],
            "import colorsys\nimport helpers\nimport csv\n": ["colorsys"],
            "from . import helpers\nimport csv\n": [],
            "import colorsys\nimport csv\n\ndef broken(:\n": ["colorsys", "csv"],
            "": [],
        }.items():
            with self.subTest(app):
                code, out = run(app, files={"helpers.py": "raise SystemExit(9)"})
                self.assertEqual((code, out), (0, f"{want}\nbegan 1\n"))

    def test_an_edit_below_the_imports(self) -> None:
        self.assertEqual(run("import colorsys\nx = 1\n", "import colorsys\nimport csv\nx = 2\n"), (0, "['colorsys']\nbegan 1\n"))

    def test_an_edit_of_the_imports(self) -> None:
        for edited in ("import csv\nimport colorsys\n", "\nimport colorsys\n", "x = 1\nimport colorsys\n"):
            with self.subTest(edited):
                self.assertEqual(run("import colorsys\n", edited), (75, "['colorsys']\n"))

    def test_a_failed_import(self) -> None:
        self.assertEqual(run("import no_such_module\n"), (75, ""))

    def test_a_module_of_the_space_below_a_package(self) -> None:
        """The standard library's pdb imports cmd, which this Space replaces: an edit of cmd.py must have an effect."""
        self.assertEqual(run("import pdb\n", files={"cmd.py": "class Cmd: pass\n"}), (75, ""))

    def test_modules_for_launch(self) -> None:
        for modules, want in (({"gradio": ModuleType("gradio")}, True), ({}, False)):
            with mock.patch.dict(sys.modules, modules), mock.patch.object(standby, "AT_LAUNCH", ("no_such_module", "colorsys")):
                sys.modules.pop("colorsys", None)
                standby._import_for_launch()
                self.assertEqual("colorsys" in sys.modules, want)
