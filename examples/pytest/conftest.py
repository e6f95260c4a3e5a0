"""One fixture: the Space in space/ under spacehost, and a client of it."""

import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client

SPACE = Path(__file__).parent / "space"
STARTUP = 600  # seconds: the first start may install gradio

# With gradio and spaces beside pytest, the Space runs on the same packages; else spacehost makes it an environment.
PYTHON = ["--python", sys.executable] if all(map(importlib.util.find_spec, ("gradio", "spaces"))) else []


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    spacehost = os.environ.get("SPACEHOST") or shutil.which("spacehost")
    if not spacehost:
        pytest.fail("no spacehost: put it on PATH, or its path into the environment variable SPACEHOST")
    state = tmp_path_factory.mktemp("state")
    command = [spacehost, "run", SPACE, "--addr", ":0", "--console-addr", ":0", "--gpus", "mock:1xH200"]
    command += ["--tier", "unlimited", "--ready-json", "--state", state, *PYTHON]
    said = state / "said.txt"
    with said.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as host:
        try:
            readable, _, _ = select.select([host.stdout], [], [], STARTUP)
            line = host.stdout.readline() if readable else ""  # empty, too, when it has ended
            if not line:
                pytest.fail(f"the Space does not answer:\n{said.read_text()}", pytrace=False)
            yield Client(json.loads(line)["url"], verbose=False)
        finally:
            host.send_signal(signal.SIGINT)  # ends the Space and its workers, then itself
            try:
                host.wait(timeout=30)
            except subprocess.TimeoutExpired:
                host.kill()
                raise
