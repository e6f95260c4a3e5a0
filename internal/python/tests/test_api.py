"""spacehost.Host on the example Space, with the real gradio_client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import HELLO, PATIENCE, SPACE, processes_of
from gradio_client.exceptions import AppError

import spacehost

Eventually = Callable[[str, Callable[[], bool]], None]


@pytest.fixture(scope="module")
def host() -> Iterator[spacehost.Host]:
    with spacehost.Host(SPACE, tier="free") as host:
        yield host
    assert not host.running
    assert host.log() == ""
    host.close()  # a second close does nothing


def test_quota_and_ledger_show_a_call(host: spacehost.Host) -> None:
    used = host.quota()["chargedSeconds"]
    assert host.client().predict(21, api_name="/double") == 42
    account = host.quota()
    assert account["tier"] == "free"
    assert used < account["chargedSeconds"] < used + 10
    settle, hold = host.ledger(limit=2)
    assert (settle["kind"], settle["reason"], settle["function"]) == ("settle", "released", "double")
    assert (hold["kind"], hold["heldSeconds"], hold["lease"]) == ("hold", 10, settle["lease"])
    assert [balance["identity"] for balance in host.balances()] == ["local"]


def test_the_advanced_clock_ends_a_call_and_returns_the_quota(host: spacehost.Host, eventually: Eventually) -> None:
    job = host.client().submit(api_name="/overstay")
    eventually("the call holds a GPU", lambda: any(lease["state"] == "active" for lease in host.leases()["open"]))
    host.advance_clock(timedelta(seconds=5))
    with pytest.raises(AppError, match="GPU task aborted"):
        job.result(timeout=PATIENCE)
    assert host.leases()["ended"][0]["reason"] == "deadline"
    assert host.quota()["leftSeconds"] < 300
    before = host.clock()["advancedSeconds"]
    assert host.advance_clock("24h")["advancedSeconds"] == pytest.approx(before + 24 * 3600, abs=1)
    assert host.quota()["leftSeconds"] == 300


def test_a_fault_shows_until_it_is_cleared(host: spacehost.Host) -> None:
    assert host.fault("lost") == ["lost"]
    assert "lost" in host.gpus()[0]["error"]
    assert host.fault("clear", gpu=host.gpus()[0]["uuid"]) == []
    assert "error" not in host.gpus()[0]


def test_the_call_of_a_user_is_charged_to_the_user(host: spacehost.Host) -> None:
    host.command("user", "add", "ada", "--tier", "pro")
    token = host.command("token", "create", "ada")["token"]
    assert host.client(token=token).predict(2, api_name="/double") == 4
    assert host.ledger("ada")[0]["identity"] == "user:ada"
    assert [call["fits"] for call in host.explain("ada")["calls"]] == [True, True, True]


def test_a_refused_command_names_the_next_step(host: spacehost.Host) -> None:
    with pytest.raises(spacehost.SpacehostError, match="unknown fault \"melted\"; use lost, hang") as wrong:
        host.fault("melted")
    assert wrong.value.exit_code == 2
    with pytest.raises(spacehost.SpacehostError, match="no GPU 7; use an index below 1"):
        host.fault("lost", gpu=7)
    with pytest.raises(spacehost.SpacehostError, match="no Space is named 'other'; use one of space"):
        host.client("other")


def test_hosts_started_in_a_short_thread_keep_running() -> None:
    """The kernel signals the host when the thread that started it ends, which must not be the caller's thread."""
    host = spacehost.Host(HELLO)
    thread = threading.Thread(target=host.start)
    thread.start()
    thread.join()
    try:
        assert host.client().predict("world", api_name="/greet")
        assert host.running
    finally:
        host.close()


def test_a_failed_start_shows_the_cause(tmp_path: Path) -> None:
    with pytest.raises(spacehost.SpacehostError, match="(?s)CONFIG_ERROR.*NO_APP_FILE.*create it") as failed:
        spacehost.Host(tmp_path).start()
    assert failed.value.exit_code == 3
    assert "NO_APP_FILE" in failed.value.log


def test_an_unknown_flag_shows_the_usage(tmp_path: Path) -> None:
    with pytest.raises(spacehost.SpacehostError, match="the command line is wrong.*(?s:.*)--help"):
        spacehost.Host(tmp_path, args=["--no-such-flag"]).start()


def test_a_missing_binary_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEHOST", "/nonexistent/spacehost")
    with pytest.raises(spacehost.SpacehostError, match="not an executable file; correct the variable"):
        spacehost.find_binary()


# Its end leaves a temporary folder, which the test puts below its own.
SCRIPT = """
import json, signal, sys, spacehost
host = spacehost.Host(sys.argv[1], state=sys.argv[2]).start()
print(json.dumps({"host": host.pid}), flush=True)
signal.pause()
"""


def test_a_killed_process_leaves_no_process(tmp_path: Path, eventually: Eventually) -> None:
    state = str(tmp_path / "state")
    command = [sys.executable, "-c", SCRIPT, str(HELLO), state]
    caller = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    with caller, caller.stdout:
        host = json.loads(caller.stdout.readline())["host"]
        assert os.path.exists(f"/proc/{host}")
        assert len(processes_of(state)) >= 2, "the caller and the host name the state folder"
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    eventually("every process has exited", lambda: not processes_of(state))
