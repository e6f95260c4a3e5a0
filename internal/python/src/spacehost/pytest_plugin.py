"""The pytest plugin: fixtures with a Space under spacehost, options, a marker, and the reason of a failure.

Tests share one Host per process, so pytest-xdist starts one for each of its workers. A test with the marker `spacehost` has a Host
of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spacehost._errors import SpacehostError
from spacehost._failure import FailureReport
from spacehost._host import DEFAULT_GPUS, Host, Space

if TYPE_CHECKING:
    from gradio_client import Client

MARKER = "spacehost(space, gpus, tier, quota, isolation, python, args): start a Host of the test's own, with these settings of spacehost.Host"

# Options, with their counterparts in the configuration file: --spacehost-gpus and spacehost_gpus.
OPTIONS = {
    "space": "folder of the Space under test (default: the root folder of the tests)",
    "gpus": f"GPUs, as for `spacehost run --gpus` (default: {DEFAULT_GPUS}, simulated)",
    "tier": "tier of the tests' calls (default: unlimited, so that no test uses up another's quota)",
    "isolation": "isolation of the Space, as for `spacehost run --isolation` (default: auto)",
    "python": "interpreter with gradio and spaces, or `this` for pytest's own (default: build what README.md requires)",
}
PATHS = ("space", "python")  # relative to the working folder on the command line, to the root folder in the configuration file

_report = pytest.StashKey[FailureReport]()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one Host, as keyword arguments of spacehost.Host."""

    space: str
    gpus: str = DEFAULT_GPUS
    tier: str | None = "unlimited"
    quota: Any = None
    isolation: str | None = None
    python: str | None = None
    args: tuple[str, ...] = ()

    def host(self) -> Host:
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "space"}
        return Host(self.space, **settings)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("spacehost", "Gradio Spaces under spacehost")
    for name, text in OPTIONS.items():
        group.addoption(f"--spacehost-{name}", default=None, metavar="PATH" if name in PATHS else name.upper(), help=text)
        parser.addini(f"spacehost_{name}", text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def settings_of(config: pytest.Config) -> Settings:
    """The settings of the options, and of the configuration file for options that are not given."""
    given: dict[str, Any] = {"space": str(config.rootpath)}
    for name in OPTIONS:
        option, ini = config.getoption(f"--spacehost-{name}"), config.getini(f"spacehost_{name}")
        text, folder = (option, config.invocation_params.dir) if option else (ini, config.rootpath)
        if text:
            given[name] = os.path.join(folder, text) if name in PATHS and text != "this" else text
    if given.get("python") == "this":
        given["python"] = sys.executable
    return Settings(**given)


def settings_of_test(request: pytest.FixtureRequest, marker: pytest.Mark) -> Settings:
    """The settings of a test with a marker. Paths are relative to the test's file."""
    allowed = [field.name for field in dataclasses.fields(Settings)]
    unknown = [name for name in marker.kwargs if name not in allowed]
    if marker.args or unknown:
        wrong = unknown[0] if unknown else repr(marker.args[0])
        raise SpacehostError(f"@pytest.mark.spacehost does not know {wrong}; use keyword arguments out of {', '.join(allowed)}")
    given = dict(marker.kwargs)
    folder = Path(request.path).parent
    for name in ("space", "python", "quota"):
        if isinstance(given.get(name), str) and (folder / given[name]).exists():
            given[name] = str(folder / given[name])
    given["args"] = tuple(given.get("args", ()))
    return dataclasses.replace(settings_of(request.config), **given)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Turns an error of this package into a failure that shows its text alone, without frames of this package."""
    try:
        yield
    except SpacehostError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None  # pytest would show a context too


@pytest.fixture(scope="session")
def spacehost_shared_host(pytestconfig: pytest.Config) -> Iterator[Host]:
    """The Host that tests without a marker share, for fixtures of a wider scope."""
    with _failing():
        host = settings_of(pytestconfig).host().start()
    yield host
    host.close()


@pytest.fixture
def spacehost_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The Host of the Space under test: a spacehost.Host. It is shared, or the test's own if the test has the marker."""
    marker = request.node.get_closest_marker("spacehost")
    with contextlib.ExitStack() as stack:
        if marker is None:
            host = request.getfixturevalue("spacehost_shared_host")
        else:
            with _failing():
                host = stack.enter_context(settings_of_test(request, marker).host())
        with _failing():
            request.node.stash[_report] = FailureReport(host)
        yield host


@pytest.fixture
def spacehost_space(spacehost_host: Host) -> Space:
    """The Space under test: its name, URL, stage, Gradio version and level of isolation."""
    return spacehost_host.spaces[0]


@pytest.fixture
def spacehost_client(spacehost_host: Host) -> Iterator[Client]:
    """A new gradio_client.Client of the Space under test."""
    with _failing():
        client = spacehost_host.client()
    yield client
    client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the Space printed during a failed test, and which of its calls exceeded a limit."""
    report = yield
    if report.failed and report.when != "teardown" and _report in item.stash:
        report.sections.extend(item.stash[_report].sections())
    return report
