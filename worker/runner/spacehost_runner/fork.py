"""Closes the host's sockets in every forked child, so that a child never hides the end of a connection.

A child stays in the process group of its parent, as it would without the runner. A group leader may not call setsid,
which daemons and Popen(preexec_fn=os.setsid) do. A GPU worker gets its own group later (hooks.py, _patch_worker).
"""
from __future__ import annotations

import _socket  # not socket: see frames.Channel
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import State


def install(state: State) -> None:
    """Registers the at-fork hook. subprocess does not run it: it closes inherited descriptors itself."""
    os.register_at_fork(after_in_child=lambda: _after_fork(state))


def _after_fork(state: State) -> None:
    state.forked = True
    null = os.open(os.devnull, os.O_RDWR)
    try:
        # dup2 instead of close: the number must not be reused under an object that still owns it.
        os.dup2(null, state.channel.descriptor, inheritable=False)
        if state.liveness.descriptor >= 0:
            os.dup2(null, state.liveness.descriptor, inheritable=False)
        for descriptor in _inherited_connections(state):
            os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def _inherited_connections(state: State) -> list[int]:
    """Returns the TCP sockets of the Space's own servers and to the device API.

    While a child holds a copy, the peer does not see the parent close the connection.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:") and _is_parents(int(name), state):
                found.append(int(name))
    return found


def _is_parents(descriptor: int, state: State) -> bool:
    copy = _socket.socket(fileno=os.dup(descriptor))
    try:
        if copy.family not in (_socket.AF_INET, _socket.AF_INET6) or copy.type != _socket.SOCK_STREAM:
            return False
        if copy.getsockname()[1] in state.ports:
            return True
        try:
            return copy.getpeername()[1] == state.device_port
        except OSError:  # listening, or no longer connected
            return False
    finally:
        copy.close()


def kill_descendants() -> None:
    """Kills every descendant of this process after the host has exited. Three rounds: descendants may fork meanwhile."""
    for _ in range(3):
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, 9)


def _descendants(root: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{int(name)}/stat") as stat:
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
    found, unvisited = [], [root]
    while unvisited:
        parent = unvisited.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        found += children
        unvisited += children
    return found
