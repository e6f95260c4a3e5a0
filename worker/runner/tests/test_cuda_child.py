"""Tests for spacehost_runner/cuda_child.py, with real child processes and a fake torch."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest

RUNNER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TORCH = """
import types
cuda = types.SimpleNamespace(is_available=lambda: {available})
def _lazy_init():
    if not {available}:
        raise AssertionError("Torch not compiled with CUDA enabled")
cuda._lazy_init = _lazy_init
"""
WORKER = """
import os, subprocess, sys
sys.path.insert(0, {runner!r})
from spacehost_runner import cuda_child
cuda_child.announce()
child = subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, text=True, cwd={folder!r})
print("child:", child.stdout.strip(), child.stderr.strip().splitlines()[-1:])
"""
REPORT = "uses torch.cuda in a child process of a GPU function, and finds no GPU"


class CudaChild(unittest.TestCase):
    def worker(self, child: str, available: bool = False) -> tuple[str, str]:
        """Returns what a worker prints whose child runs this program, and what its log contains."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "torch.py"), "w") as torch:
                torch.write(TORCH.format(available=available))
            program = WORKER.format(runner=RUNNER, child=child, folder=folder)
            done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    def test_a_child_that_looks_for_a_gpu_is_reported_once_in_the_log(self) -> None:
        printed, log = self.worker("import torch; torch.cuda.is_available(); print(torch.cuda.is_available())")
        self.assertIn("child: False []", printed)
        self.assertEqual(log.count(REPORT), 1, log)

    def test_a_child_that_uses_cuda_fails_with_the_report(self) -> None:
        printed, log = self.worker("import torch; torch.cuda._lazy_init()")
        self.assertIn(REPORT, printed)
        self.assertIn(REPORT, log)

    def test_a_child_of_the_child_is_reported(self) -> None:
        inner = "import torch; torch.cuda.is_available()"
        _, log = self.worker(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])")
        self.assertEqual(log.count(REPORT), 1, log)

    def test_other_children_are_not_reported(self) -> None:
        for child in ("print(1)", "import torch; print(1)"):
            printed, log = self.worker(child)
            self.assertEqual((printed.strip(), log), ("child: 1 []", ""))
        printed, log = self.worker("import torch; torch.cuda._lazy_init(); print(torch.cuda.is_available())", available=True)
        self.assertEqual((printed.strip(), log), ("child: True []", ""))

    def test_the_child_does_not_see_the_runner(self) -> None:
        printed, _ = self.worker(f"import sys; print([m for m in sys.modules if 'spacehost' in m], {RUNNER!r} in sys.path)")
        self.assertIn("child: [] False []", printed)


if __name__ == "__main__":
    unittest.main()
