"""Tests for spacehost_runner/data_folder.py, in a Python of its own with a temporary folder in the place of /data."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest

RUNNER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = """
import os, pathlib, shutil, sys
{before}
sys.path.insert(0, {runner!r})
from spacehost_runner import data_folder
data = os.path.join({folder!r}, "data")
data_folder.install({strict}, data)
source = {app!r}
exec(compile(source, "app.py", "exec"), {{"data": data, "os": os, "pathlib": pathlib, "shutil": shutil}})
print("written:", os.path.exists(data))
"""


class DataFolder(unittest.TestCase):
    def app(self, app: str, strict: bool = False, exists: bool = False, before: str = "") -> tuple[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            if exists:
                os.mkdir(os.path.join(folder, "data"))
            program = PROGRAM.format(runner=RUNNER, folder=folder, strict=strict, app=app, before=before)
            done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
        return done.stdout, done.stderr.replace(folder, "")

    def test_the_first_write_is_reported_with_its_line(self) -> None:
        for app in ("\nos.makedirs(data + '/a/b')", "\npathlib.Path(data, 'a').mkdir(parents=True)", "\nos.mkdir(data)\nos.mkdir(data + '/a')"):
            printed, error = self.app(app)
            self.assertEqual(printed, "written: True\n")
            self.assertIn("app.py:2 writes '/data", error)
            self.assertIn("PermissionError", error.replace("FileNotFoundError", "PermissionError"))
            self.assertEqual(error.count("spacehost:"), 1)
        for app in ("\nopen(data + '/a', 'w').close()", "\npathlib.Path(data, 'a').write_text('1')", "\nopen(data + '/a', mode='ab').close()"):
            printed, error = self.app(app, exists=True)
            self.assertIn("app.py:2 writes '/data/a'. A Space without storage has no /data: on ZeroGPU this raises FileNotFoundError.", error)

    def test_strict_raises_what_zerogpu_raises(self) -> None:
        _, error = self.app("os.makedirs(data + '/a')", strict=True)
        self.assertTrue(error.strip().endswith("PermissionError: [Errno 13] Permission denied: '/data'"), error)
        _, error = self.app("open(data + '/a', 'w')", strict=True)
        self.assertTrue(error.strip().endswith("FileNotFoundError: [Errno 2] No such file or directory: '/data/a'"), error)

    def test_other_uses_are_not_reported(self) -> None:
        for app in ("os.mkdir(data + 'base')", "os.path.exists(data)", "open(os.devnull, 'w').write('1')", "open(0)", "os.mkdir(os.fsencode(data + 'b'))"):
            self.assertEqual(self.app(app, strict=True)[1], "", app)
        printed, error = self.app("os.listdir(data); open(data + '/../data/x', 'r') if False else None", exists=True)
        self.assertEqual((printed, error), ("written: True\n", ""))

    def test_nothing_is_patched_where_the_system_refuses_the_write(self) -> None:
        """os.access is replaced, because root may write everywhere."""
        _, error = self.app("os.makedirs(data + '/a')", before="os.access = lambda *_: False", strict=True)
        self.assertEqual(error, "")


if __name__ == "__main__":
    unittest.main()
