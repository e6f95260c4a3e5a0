"""Lets a Space on a node outlive the SIGTERM with which a batch scheduler ends a job.

Slurm sends SIGTERM to every process of a job (docs/design/0053-shield.md). The agent drains its node then, and ends the Space after its
running calls. A busy GPU worker ignores SIGTERM anyway (spaces/zero/wrappers.py). So the Space's own process ignores it, too, until the
agent sends the frame `end`.

Forked children get the default action back, and programs have it, so Process.terminate() ends both. The signal is blocked in the
thread that forks until then: Python forgets what a child has received before its hooks (PyOS_AfterFork_Child).
"""
from __future__ import annotations

import _thread
import os
import signal
from typing import Any


class Shield:
    """The handler of SIGTERM, created in the main thread. An app that sets a handler afterwards receives every SIGTERM.

    Its methods may be called in any thread.
    """

    def __init__(self) -> None:
        self._ending = False
        self._handler = self._handle  # a bound method is a new object each time
        self._forking = _thread._local()  # has the signals that the thread blocked before its fork
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handler)
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._lower)

    def ignores(self, number: int) -> bool:
        """Reports whether a signal is to have no effect now. The servers of the app ask it, because uvicorn has its own handler."""
        return number == signal.SIGTERM and not self._ending

    def end(self) -> None:
        """Ends the process as SIGTERM would without the shield."""
        self._ending = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _handle(self, number: int, frame: Any) -> None:
        if self._ending:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _block(self) -> None:
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _lower(self) -> None:
        """Ends the shield in a forked child."""
        self._ending = True
        try:
            if signal.getsignal(signal.SIGTERM) is self._handler:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        finally:
            self._unblock()
