"""Starts descendants in all ways, prints their pids, and keeps running."""
import multiprocessing
import os
import signal
import subprocess
import sys
import time


def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name.endswith("group"):
        os.setpgid(0, 0)
    if name.endswith("session"):
        os.setsid()
    os.write(1, f"pid {name} {os.getpid()}\n".encode())  # one write per line
    time.sleep(600)


def fork(name, beyond=None):
    if os.fork() == 0:
        if beyond:
            beyond()
        stay(name)


if __name__ == "__main__":
    fork("forked")
    fork("own-group")
    fork("own-session", beyond=lambda: fork("grandchild"))
    multiprocessing.get_context("fork").Process(target=stay, args=("multiprocessing",)).start()
    multiprocessing.get_context("spawn").Process(target=stay, args=("spawned",)).start()
    subprocess.Popen([sys.executable, "-c", "import os, time; os.write(1, b'pid program %d\\n' % os.getpid()); time.sleep(600)"])
    time.sleep(600)
