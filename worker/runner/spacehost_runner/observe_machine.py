"""Tells what this machine lacks from what is wrong with the Space: connections, and variables that the owner would set.

A check runs without the Secrets of the Space, and often without a network. An exception that follows from that is no
fault of the Space.
"""
from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from .tracebacks import package_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .observe import Observer

# Classes of errors of connections: huggingface_hub, httpx, requests, urllib, socket.
CONNECTIONS = (
    "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError", "ConnectionRefusedError", "ProxyError",
    "SSLError", "MaxRetryError", "HfHubHTTPError", "URLError", "gaierror",
)
OFFLINE = ("We couldn't connect to", "Failed to resolve", "Max retries exceeded", "Temporary failure in name resolution", "Could not resolve host")
HERE = ("localhost", "127.0.0.1", "0.0.0.0", "::1")
LOCAL, REMOTE = "no program of this machine listens there", "this machine cannot reach it"  # causes
MAX_CHAIN = 8
REPOSITORY = ("repo_id", "pretrained_model_name_or_path", "pretrained_model_name", "model_name_or_path")  # locals of Hugging Face's libraries
LIBRARIES = ("huggingface_hub", "transformers", "diffusers", "sentence_transformers", "datasets", "timm")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields error and what it was raised from."""
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def is_connection(error: BaseException | None) -> bool:
    """Reports whether error, or what it was raised from, is a failed connection."""
    return any(type(one).__name__ in CONNECTIONS or any(words in str(one) for words in OFFLINE) for one in chain(error))


def destination(error: BaseException) -> tuple[str, bool]:
    """Returns what a failed connection was for, and whether that is a program on this machine."""
    repository = host = ""
    for one in chain(error):
        with contextlib.suppress(Exception):
            host = host or host_of(one)
        entry = one.__traceback__
        while entry is not None:
            frame, entry = entry.tb_frame, entry.tb_next
            names = frame.f_locals
            if package_of(frame.f_code.co_filename) in LIBRARIES:
                for name in REPOSITORY:
                    if not repository and isinstance(value := names.get(name), str) and value.count("/") <= 1:
                        repository = value
            elif not host and frame.f_globals.get("__name__") in ("socket", "http.client", "urllib3.connection"):
                found = names.get("host") or getattr(names.get("self"), "host", None)
                host = found if isinstance(found, str) else ""
    if repository:
        return f"{repository} of the Hub", False
    return host or "another machine", host in HERE


def cause(error: BaseException, here: bool) -> str:
    """Returns why a connection failed."""
    for one in chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return f"the server answers {status}"
    return LOCAL if here else REMOTE


def host_of(error: BaseException) -> str:
    """Returns the host that an exception of httpx or requests names, "" without one."""
    from urllib.parse import urlsplit

    request: Any = getattr(error, "request", None)
    return urlsplit(str(request.url)).hostname or "" if request is not None else ""


def unset_variable(observer: Observer, error: BaseException, place: tuple[str, int]) -> str:
    """Returns the variable of the environment for want of which the app has raised error, "" without one.

    The app has read it in vain, and either the exception names it, or the failing statement uses a name that got its
    value from there and is empty.
    """
    if isinstance(error, KeyError) and error.args and str(error.args[0]) in observer.missing:
        return str(error.args[0])
    words = set(re.findall(r"\w+", str(error)))
    for name in sorted(observer.missing, key=len, reverse=True):
        if len(name) > 3 and name in words:
            return name
    frame = innermost(observer, error)
    if frame is None or not place[0]:
        return ""
    used = statement(os.path.join(observer.root, place[0]), place[1])[1]
    for name, (file, line) in list(observer.missing.items()):  # other threads add to it
        assigned = statement(os.path.join(observer.root, file), line)[0]
        for one in assigned & used:
            if not {**frame.f_globals, **frame.f_locals}.get(one, name):
                return name
    return ""


def innermost(observer: Observer, error: BaseException) -> Any:
    """Returns the frame of the innermost own line of a traceback, or None."""
    frame, entry = None, error.__traceback__
    while entry is not None:
        if observer.own(entry.tb_frame.f_code.co_filename):
            frame = entry.tb_frame
        entry = entry.tb_next
    return frame


def statement(path: str, line: int) -> tuple[set[str], set[str]]:
    """Returns the names that the smallest statement at a line assigns, and those that it reads."""
    import ast

    found: Any = None
    with contextlib.suppress(OSError, SyntaxError, ValueError), open(path, encoding="utf-8", errors="replace") as source:
        for node in ast.walk(ast.parse(source.read(1 << 20))):
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
                found = node  # ast.walk visits the outer statements first
    if found is None or hasattr(found, "body"):  # the head of a compound statement
        return set(), set()
    names = [node for node in ast.walk(found) if isinstance(node, ast.Name)]
    return {n.id for n in names if isinstance(n.ctx, ast.Store)}, {n.id for n in names if isinstance(n.ctx, ast.Load)}


def watch_names(observer: Observer) -> None:
    """Reports hosts that cannot be resolved, where the app's own code waits for them: it may swallow the exception."""
    import socket

    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(host, *args, **options)
        except OSError as error:
            with contextlib.suppress(Exception):
                frame: Any = sys._getframe(1)
                place = observer.innermost(frame)
                if place[0]:
                    observer.offline(place, error, os.fsdecode(host) if host else "another machine", False)
            raise

    socket.getaddrinfo = getaddrinfo
