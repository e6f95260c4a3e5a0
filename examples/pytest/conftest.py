"""One fixture: a client of the Space in space/, which runs under spacehost."""

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

# With gradio and spaces installed beside pytest, the Space uses these packages; otherwise spacehost creates an environment.
PYTHON = ["--python", sys.executable] if all(map(importlib.util.find_spec, ("gradio", "spaces"))) else []


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    spacehost = os.environ.get("SPACEHOST") or shutil.which("spacehost")
    if not spacehost:
        pytest.fail("spacehost not found: add it to PATH, or set the environment variable SPACEHOST to its path")
    state = tmp_path_factory.mktemp("state")
    command = [spacehost, "run", SPACE, "--addr", ":0", "--console-addr", ":0", "--gpus", "mock:1xH200"]
    command += ["--tier", "unlimited", "--ready-json", "--state", state, *PYTHON]
    log = state / "stderr.txt"
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as host:
        try:
            readable, _, _ = select.select([host.stdout], [], [], STARTUP)
            line = host.stdout.readline() if readable else ""  # also empty if the host has exited
            if not line:
                pytest.fail(f"the Space does not answer:\n{log.read_text()}", pytrace=False)
            yield Client(json.loads(line)["url"], verbose=False)
        finally:
            host.send_signal(signal.SIGINT)  # stops the Space and its workers, then the host
            try:
                host.wait(timeout=30)
            except subprocess.TimeoutExpired:
                host.kill()
                raise
