"""Becomes another program, which gets SIGINT when the thread that started it ends.

Host runs this file with the pid of its own process and a command. A test process that is killed thus stops its host, which
stops the Spaces. A preexec_fn would do the same, but Python may deadlock in it if the process has other threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>; execve keeps the setting


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGINT)) != 0:
        sys.exit(f"spacehost: prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}; start spacehost in a shell instead")
    if os.getppid() != parent:
        sys.exit("spacehost: the process that started it has ended; start it again")
    os.execv(command[0], command)


main()
