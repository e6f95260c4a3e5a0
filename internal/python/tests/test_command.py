"""The installed command `spacehost`, as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from conftest import HELLO, PATIENCE, processes_of
from gradio_client import Client

import spacehost


def test_the_command_runs_a_space_until_ctrl_c(tmp_path: Path, eventually: Callable[[str, Callable[[], bool]], None]) -> None:
    command, state = os.path.join(sysconfig.get_path("scripts"), "spacehost"), str(tmp_path / "state")
    assert spacehost.find_binary() == command
    run = [command, "run", str(HELLO), "--addr", ":0", "--console-addr", ":0", "--ready-json", "--state", state]
    with (tmp_path / "stderr.txt").open("w") as stderr, subprocess.Popen(run, stdout=subprocess.PIPE, stderr=stderr, text=True) as host:
        assert host.stdout is not None
        line = host.stdout.readline()
        assert line, (tmp_path / "stderr.txt").read_text()
        assert "world" in Client(json.loads(line)["url"], verbose=False).predict("world", api_name="/greet")
        host.send_signal(signal.SIGINT)
        assert host.wait(PATIENCE) == 0
    eventually("every process has exited", lambda: not processes_of(state))


def test_the_module_is_the_command() -> None:
    version = subprocess.run([sys.executable, "-m", "spacehost", "version", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(version.stdout)["sqlite"]
