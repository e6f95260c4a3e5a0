"""What happens in a forked child: it has no hold on sockets that are not its own.

It stays in its parent's process group, as it would without us: the leader of a group may not call setsid, and
daemons and Popen(preexec_fn=os.setsid) do. A GPU worker gets its group later (hooks.py, _patch_worker).
"""
from __future__ import annotations

import _socket  # not socket: see Channel
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import State


def install(state: State) -> None:
    """Registers the at-fork hook. Programs started by subprocess do not pass here; they close descriptors themselves."""
    os.register_at_fork(after_in_child=lambda: _after_fork(state))


def _after_fork(state: State) -> None:
    state.forked = True
    null = os.open(os.devnull, os.O_RDWR)
    try:
        # dup2 instead of close: the number must not be reused under an object that still owns it.
        os.dup2(null, state.channel.descriptor, inheritable=False)
        for descriptor in _held_open(state):
            os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def _held_open(state: State) -> list[int]:
    """TCP connections to the device API and of the Space's own server: inherited, they would hide a hang-up."""
    held = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:") and _is_ours(int(name), state):
                held.append(int(name))
    return held


def _is_ours(descriptor: int, state: State) -> bool:
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


def end_descendants() -> None:
    """Kills every process below this one, for the moment when the host is gone. Again, since they may fork meanwhile."""
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
    found, below = [], [root]
    while below:
        parent = below.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found += children
        below += children
    return found
