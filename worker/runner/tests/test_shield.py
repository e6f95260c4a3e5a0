"""Tests the handler of SIGTERM, in processes of its own: a handler stays."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from typing import IO

RUNNER = str(Path(__file__).parents[1])
PATIENCE = 120  # seconds
BEGIN = """
import multiprocessing, os, signal, subprocess, sys, threading, time
sys.path.insert(0, {runner!r})
from spacehost_runner.shield import Shield
"""
# Answers each line of stdin, so the test knows that the process has outlived a signal. "end" is the order of the agent.
ANSWER = """
print("ready", flush=True)
def answer():
    for line in sys.stdin:
        if line == "end\\n":
            shield.end()
        else:
            print(line, end="", flush=True)
threading.Thread(target=answer, daemon=True).start()
while True:
    time.sleep(0.05)
"""


class ShieldTest(unittest.TestCase):
    def start(self, code: str) -> subprocess.Popen[str]:
        child = subprocess.Popen([sys.executable, "-c", BEGIN.format(runner=RUNNER) + code + ANSWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.close, child)
        self.assertEqual(self.read(child), "ready")
        return child

    def close(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.communicate(timeout=PATIENCE)

    def read(self, child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None
        return child.stdout.readline().strip()

    def send(self, child: subprocess.Popen[str], line: str) -> None:
        pipe: IO[str] | None = child.stdin
        assert pipe is not None
        pipe.write(line + "\n")
        pipe.flush()

    def test_only_the_order_ends_it(self) -> None:
        child = self.start("shield = Shield()")
        for number in range(5):
            child.terminate()
            self.send(child, str(number))
            self.assertEqual(self.read(child), str(number))
        self.send(child, "end")
        self.assertEqual(child.wait(PATIENCE), -signal.SIGTERM)

    def test_a_handler_of_the_app(self) -> None:
        """It replaces the shield."""
        child = self.start("shield = Shield()\nsignal.signal(signal.SIGTERM, lambda *_: (print('handled', flush=True), os._exit(4)))")
        child.terminate()
        self.assertEqual(self.read(child), "handled")
        self.assertEqual(child.wait(PATIENCE), 4)

    def test_an_ignored_signal(self) -> None:
        child = self.start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nshield = Shield()\nassert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN")
        self.send(child, "end")
        self.send(child, "ignored")
        self.assertEqual(self.read(child), "ignored")

    def test_children(self) -> None:
        """A child that is forked by any thread, and a program, end by terminate(). A server in a child has no shield."""
        child = self.start("""
shield = Shield()
def end_children():
    forked = multiprocessing.get_context("fork").Process(target=sum, args=(range(10**12),))
    forked.start()
    program = subprocess.Popen(["sleep", "600"])
    for one in (forked, program):
        one.terminate()
    forked.join()
    assert (forked.exitcode, program.wait()) == (-15, -15), (forked.exitcode, program.returncode)
    asked = multiprocessing.get_context("fork").Process(target=lambda: os._exit(shield.ignores(signal.SIGTERM)))
    asked.start()
    asked.join()
    assert shield.ignores(signal.SIGTERM) and asked.exitcode == 0, asked.exitcode
end_children()
done = []
other = threading.Thread(target=lambda: (end_children(), done.append(1)))
other.start()
other.join()
assert done
""")
        child.terminate()
        self.send(child, "alive")
        self.assertEqual(self.read(child), "alive")
