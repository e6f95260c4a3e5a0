"""Host: one spacehost process with its Spaces."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from spacehost._answers import Account, Balance, Clock, Explanation, Gpu, Leases, LedgerLine
from spacehost._binary import find_binary
from spacehost._errors import CAUSES, SpacehostError

if TYPE_CHECKING:
    from gradio_client import Client

DEFAULT_GPUS = "mock:1xH200"
STOP_SECONDS = 30.0  # from SIGINT to the exit of the last process
COMMAND_SECONDS = 60.0  # per command; a command itself gives up after 30 s
ERROR_LINES = 30  # of the output, in an error
WRONG_USAGE = 2  # exit code: the log does not show the mistake


@dataclasses.dataclass(frozen=True)
class Space:
    """One running Space. isolation is the level in force: none, files, namespaces or users."""

    name: str
    url: str
    stage: str
    gradio: str
    isolation: str


class Host:
    """Runs one or several Spaces under spacehost, on simulated GPUs by default.

    Use it as a context manager, or call start() and close(). Each Host has ports and a state folder of its own. The state folder
    is temporary unless state names one. Environments of Spaces are shared and kept, in $SPACEHOST_ENVIRONMENTS or the folder that
    `spacehost run` uses.
    """

    def __init__(
        self,
        *spaces: str | os.PathLike[str],
        gpus: str = DEFAULT_GPUS,
        tier: str | None = None,
        quota: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        isolation: str | None = None,
        python: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        args: Iterable[str] = (),
        startup_timeout: float = 600.0,
    ) -> None:
        """Takes the folders of the Spaces, and the flags of `spacehost run`.

        quota is a preset such as "2026-08", a file with tiers, or the content of such a file as a mapping. args are further flags.
        startup_timeout is the number of seconds in which the Spaces must answer; a first start may install gradio.
        """
        if not spaces:
            raise SpacehostError("Host needs the folder of a Space; pass the folder that contains its README.md")
        self._spaces = [os.path.abspath(space) for space in spaces]
        self._flags: dict[str, Any] = {"gpus": gpus, "tier": tier, "quota": quota, "isolation": isolation, "python": python}
        self._given_state = None if state is None else os.path.abspath(state)
        self._args = list(args)
        self._startup_timeout = startup_timeout
        self._process: subprocess.Popen[str] | None = None
        self._keeper: threading.Thread | None = None
        self._ready: dict[str, Any] = {}
        self._folder = self._binary = ""

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the host has started and has not exited."""
        return self._keeper is not None and self._keeper.is_alive() and bool(self._ready)

    @property
    def url(self) -> str:
        """The address of the first Space."""
        return cast(str, self._need("url"))

    @property
    def console_url(self) -> str:
        """The address of the console and of the quota API."""
        return cast(str, self._need("console"))

    @property
    def state(self) -> str:
        """The state folder, for `spacehost COMMAND --state`."""
        return cast(str, self._need("state"))

    @property
    def pid(self) -> int:
        """The process of the host."""
        return cast(int, self._need("pid"))

    @property
    def spaces(self) -> list[Space]:
        """The Spaces as they were when the host became ready, in the order of the folders."""
        names = [field.name for field in dataclasses.fields(Space)]
        return [Space(**{name: one[name] for name in names}) for one in self._need("spaces")]

    def _need(self, key: str) -> Any:
        if not self._ready:
            raise SpacehostError("the host does not run; call start(), or use `with spacehost.Host(...) as host:`")
        return self._ready[key]

    def start(self) -> Host:
        """Starts the host, and returns it once every Space answers."""
        if self._folder:
            raise SpacehostError("the host was started before; make a new Host for another start, or call close() first")
        self._binary = find_binary()
        self._folder = tempfile.mkdtemp(prefix="spacehost-")
        try:
            self._launch()
            self._await_ready()
        except BaseException:
            self._stop()
            self._remove()
            raise
        return self

    def _launch(self) -> None:
        """Starts the process in a thread that lives as long as the process: the kernel signals it when that thread ends."""
        started: list[subprocess.Popen[str] | OSError] = []
        ready = threading.Event()

        def keep() -> None:
            process = None
            try:
                process = self._popen()
                started.append(process)
            except OSError as error:
                started.append(error)
            ready.set()
            if process is not None:
                process.wait()

        self._keeper = threading.Thread(target=keep, name="spacehost", daemon=True)
        self._keeper.start()
        ready.wait()
        if isinstance(started[0], OSError):
            raise SpacehostError(f"start {self._binary}: {started[0]}; reinstall the package, or set SPACEHOST to a binary") from started[0]
        self._process = started[0]

    def _popen(self) -> subprocess.Popen[str]:
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_start.py")), str(os.getpid())]
        environment = dict(os.environ)
        environment.setdefault("SPACEHOST_ENVIRONMENTS", _environments())
        with open(self._output, "wb") as output:
            return subprocess.Popen(
                launcher + self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the caller alone, which then closes the host
            )

    def _command(self) -> list[str]:
        state = self._given_state or os.path.join(self._folder, "state")
        command = [self._binary, "run", *self._spaces, "--addr", ":0", "--console-addr", ":0", "--ready-json", "--state", state]
        for name, value in self._flags.items():
            if isinstance(value, Mapping):
                path = os.path.join(self._folder, f"{name}.yaml")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(value, file)  # YAML contains JSON
                value = path
            if value is not None:
                command += [f"--{name}", os.fspath(value)]
        return command + self._args

    def _await_ready(self) -> None:
        process, keeper = self._process, self._keeper
        assert process is not None and process.stdout is not None and keeper is not None
        readable, _, _ = select.select([process.stdout], [], [], self._startup_timeout)
        if not readable:
            raise SpacehostError(
                f"{self._names()} did not answer within {self._startup_timeout:g} s; fix what the last lines show, or raise startup_timeout",
                log=self.log(ERROR_LINES),
            )
        line = process.stdout.readline()
        if not line:  # the host has closed its output: it exits
            keeper.join(STOP_SECONDS)
            code = process.returncode
            cause = CAUSES.get(code, "the host ended") if code is not None else "the host hangs at its exit"
            raise SpacehostError(
                f"{self._names()} did not start: {cause} (exit code {code}); fix the error in the last lines",
                exit_code=code,
                log=self.log(ERROR_LINES),
            )
        self._ready = json.loads(line)

    def _names(self) -> str:
        return ", ".join(f"Space {os.path.basename(space)}" for space in self._spaces)

    def close(self) -> None:
        """Stops the Spaces, their workers and the host, and removes a temporary state folder. It may be called twice."""
        self._ready = {}
        try:
            killed, log = self._stop(), self.log(ERROR_LINES)
        finally:
            self._remove()
        if killed:
            raise SpacehostError(f"spacehost did not exit within {STOP_SECONDS:g} s of SIGINT and was killed; report the last lines", log=log)

    def _stop(self) -> bool:
        """Ends the process, and reports whether it had to be killed. The runner of a killed host ends by itself."""
        process, keeper = self._process, self._keeper
        if process is None or keeper is None:
            return False
        killed = False
        process.send_signal(signal.SIGINT)
        keeper.join(STOP_SECONDS)
        if keeper.is_alive():
            killed = True
            process.kill()
            keeper.join()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return killed

    def _remove(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = ""

    @property
    def _output(self) -> str:
        return os.path.join(self._folder, "output.log")

    def log_size(self) -> int:
        """The size of the output in bytes, for log(since=...)."""
        return os.path.getsize(self._output) if self._folder and os.path.exists(self._output) else 0

    def log(self, lines: int | None = None, *, since: int = 0) -> str:
        """The output of the host and its Spaces after a size: all of it, or its last lines."""
        if not self._folder or not os.path.exists(self._output):
            return ""
        with open(self._output, "rb") as output:
            output.seek(since)
            text = output.read().decode("utf-8", "replace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def client(self, space: str | None = None, *, token: str | None = None, **options: Any) -> Client:
        """A new gradio_client.Client of the first Space, or of the Space of that name.

        token is that of a user (`spacehost token create`). options are those of Client.
        """
        try:
            from gradio_client import Client
        except ImportError as error:
            raise SpacehostError("gradio_client is not installed; run `pip install 'spacehost[client]'`") from error
        if token is not None:
            options["headers"] = {**(options.get("headers") or {}), "Authorization": f"Bearer {token}"}
        options.setdefault("verbose", False)
        return Client(self._space_url(space), **options)

    def _space_url(self, name: str | None) -> str:
        spaces = self.spaces
        for space in spaces:
            if name is None or space.name == name:
                return space.url
        raise SpacehostError(f"no Space is named {name!r}; use one of {', '.join(space.name for space in spaces)}")

    def command(self, *args: str) -> Any:
        """Runs `spacehost ARGS --json` on this host, and returns its answer: host.command("user", "add", "ada")."""
        state = self.state
        done = subprocess.run(
            [self._binary, *args, "--json", "--state", state],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            message = done.stderr.strip().removeprefix("spacehost: ")
            log = "" if done.returncode == WRONG_USAGE else self.log(ERROR_LINES)
            raise SpacehostError(message, exit_code=done.returncode, log=log)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def quota(self, account: str = "local") -> Account:
        """The quota of an account: local is the caller on this machine. Others are a user's name, an address, space:NAME."""
        return cast(Account, self.command("quota", account))

    def balances(self) -> list[Balance]:
        """The quota of every account, in short."""
        return cast("list[Balance]", self.command("quota"))

    def ledger(self, account: str = "local", *, limit: int = 1000) -> list[LedgerLine]:
        """The lines of an account's ledger, newest first."""
        return cast("list[LedgerLine]", self.command("ledger", account, "--limit", str(limit)))

    def leases(self, *, limit: int = 100) -> Leases:
        """The calls that wait for or hold a GPU, and the last that ended, newest first."""
        return cast(Leases, self.command("lease", "--limit", str(limit)))

    def explain(self, account: str = "local", *args: str) -> Explanation:
        """Why calls of an account were refused, and when they would fit. args are flags of `spacehost explain`."""
        return cast(Explanation, self.command("explain", account, *args))

    def clock(self) -> Clock:
        """The host's clock."""
        return cast(Clock, self.command("clock"))

    def advance_clock(self, time: str | float | timedelta) -> Clock:
        """Advances the host's clock: "24h", "90m", a number of seconds, or a timedelta."""
        if isinstance(time, timedelta):
            time = time.total_seconds()
        text = time if isinstance(time, str) else f"{time:f}s"
        return cast(Clock, self.command("clock", "advance", text))

    def gpus(self) -> list[Gpu]:
        """The GPUs, and what uses them."""
        return cast("list[Gpu]", self.command("gpu"))

    def fault(self, fault: str, gpu: str | int = 0) -> list[str]:
        """Injects a fault into a simulated GPU, given by index or UUID: lost, hang, memory-stuck, xid=79 ... or clear.

        The faults of the GPU are returned.
        """
        if isinstance(gpu, int):
            gpus = self.gpus()
            if not 0 <= gpu < len(gpus):
                raise SpacehostError(f"the host has no GPU {gpu}; use an index below {len(gpus)}, or a UUID")
            gpu = gpus[gpu]["uuid"]
        return cast("list[str]", self.command("gpu", "fault", gpu, fault)["faults"])


def _environments() -> str:
    """The folder in which `spacehost run` keeps environments (docs/cli.md: --state)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "spacehost", "environments")
