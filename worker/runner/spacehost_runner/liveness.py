"""Answers the host's probes, and writes the stacks of all threads to memory that the host reads (worker/liveness.go).

A probe is answered twice: by the thread of the channel, and by the event loop of the server that visitors reach. Without the
first answer no Python code runs; without the second one no visitor is served. The stacks are those of faulthandler: its
handler of a signal needs no interpreter lock.
"""
from __future__ import annotations

import _thread
import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from .frames import Channel

HIGH = (1000, 240)  # below the usual limits of descriptors, and below FD_SETSIZE; the host knows the second (worker/stacks.go)
CLOSED_AT = 256 << 10  # offset of what is written after the descriptors were closed (worker/stacks.go)
SIZE = 512 << 10  # of the memory


def out_of_reach(descriptor: int) -> int:
    """Moves a descriptor to a high number. A closed low number is soon that of a file of the app, which a frame would damage."""
    import fcntl

    for least in HIGH:
        with contextlib.suppress(OSError):
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
            os.close(descriptor)
            return moved
    return descriptor


def _mapping(descriptor: int) -> Any:
    """Maps the memory without the second descriptor that mmap opens before Python 3.13: the app would see it."""
    import mmap

    try:
        return mmap.mmap(descriptor, SIZE, trackfd=False)  # type: ignore[call-overload]
    except TypeError:
        number = os.dup(descriptor)
        os.close(number)
        memory = mmap.mmap(descriptor, SIZE)  # it takes the same number
        if os.fstat(number).st_ino == os.fstat(descriptor).st_ino:
            os.close(number)
        return memory


class Liveness:
    """The answers of one process. Its methods are called by the thread of the channel, except attached, detached and _answer."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.descriptor = -1  # of the memory for stacks; -1: none
        self.loop: asyncio.AbstractEventLoop | None = None  # of the server that visitors reach
        self.thread = 0  # that runs the loop
        self.number = 0  # of the last probe
        self.asked: Any = None  # the loop whose answer is pending

    def install(self, descriptor: int, signal: int) -> None:
        """Prepares the stacks: faulthandler writes them to descriptor, at a signal that no program is known to use."""
        with contextlib.suppress(Exception):  # without stacks the Space works all the same
            import faulthandler

            self.descriptor = out_of_reach(descriptor)
            self.memory = _mapping(self.descriptor)  # it outlasts every descriptor
            faulthandler.register(signal, file=self.descriptor, all_threads=True, chain=False)

    def attached(self, loop: Any) -> None:
        """Names the loop of the server that visitors reach. It is called on that loop."""
        self.loop, self.thread, self.asked = loop, _thread.get_ident(), None

    def detached(self, loop: Any) -> None:
        """The app closes its server."""
        if loop is self.loop:
            self.loop = None

    def probe(self, number: int) -> None:
        self.number, loop = number, self.loop
        server = "none" if loop is None else "runs" if loop.is_running() else "ended"
        self.channel.send({"op": "alive", "number": number, "server": server, "thread": f"{self.thread:016x}"})
        if loop is None or self.asked is loop:  # the former answer is pending
            return
        self.asked = loop
        try:
            loop.call_soon_threadsafe(self._answer, loop)
        except RuntimeError:  # the loop is closed
            self.asked = None

    def _answer(self, loop: Any) -> None:
        if self.asked is loop:
            self.asked = None
        if self.loop is loop:
            self.channel.send({"op": "alive", "number": self.number, "loop": True})

    def write_stacks(self) -> None:
        """Writes the stacks at the host's request. Threads cannot run meanwhile, so this is better than the signal."""
        if self.descriptor >= 0:
            import faulthandler

            with contextlib.suppress(OSError):
                faulthandler.dump_traceback(self.descriptor, all_threads=True)

    def closed(self) -> None:
        """Writes the stacks after the app has closed the descriptors of this process. Only the memory leads to the host."""
        with contextlib.suppress(Exception):
            import faulthandler

            descriptor = os.memfd_create("stacks")
            faulthandler.dump_traceback(descriptor, all_threads=True)
            text = os.pread(descriptor, SIZE - CLOSED_AT, 0)
            self.memory[CLOSED_AT : CLOSED_AT + len(text)] = text
