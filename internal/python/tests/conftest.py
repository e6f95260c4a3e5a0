"""What the tests of the package share: the example Space, and waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spacehost import _host

# pytester gives each suite a home of its own, in which Spaces would build their environments again.
os.environ.setdefault("SPACEHOST_ENVIRONMENTS", _host._environments())
pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "examples" / "pytest" / "space"
HELLO = ROOT / "examples" / "hello-zerogpu"
PATIENCE = 90.0  # seconds; long enough for a loaded machine with two cores


@pytest.fixture
def eventually() -> Callable[[str, Callable[[], bool]], None]:
    """Waits until a condition holds, with a limit."""

    def wait(what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"not reached within {PATIENCE:g} s: {what}"
            time.sleep(0.02)

    return wait


def processes_of(state: str) -> list[str]:
    """The running processes that name a state folder in their command line or environment."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command, environment = (Path("/proc", entry, name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has exited, or belongs to another user
            continue
        if state.encode() in command + environment:
            found.append(f"{entry} {command.decode(errors='replace')}")
    return found
