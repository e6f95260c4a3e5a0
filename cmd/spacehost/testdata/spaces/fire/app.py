"""GPU functions with a duration of one second that overrun it, each in a different way."""
import ctypes
import gc
import os
import signal
import threading
import time

import gradio as gr
import spaces

TAG = os.environ.get("FIRE_TAG", "1")  # part of the command line of processes that clear their environment
FOREVER = 600

kinds = []


def bad(function):
    kinds.append(spaces.GPU(duration=1)(function))
    return kinds[-1]


def daemon(action):
    """Forks twice and leaves the session, the group and the parent."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    action()
    os._exit(0)


@bad
def sleeps():
    time.sleep(FOREVER)


@bad
def ignores():
    ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN; signal.signal works only in the main thread
    time.sleep(FOREVER)


@bad
def stops():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(FOREVER)  # another thread may receive the signal


@bad
def daemonises():
    daemon(lambda: time.sleep(FOREVER))
    time.sleep(FOREVER)


@bad
def sheds():
    """Starts a daemon without its parent, its process group and the environment that identifies it."""
    daemon(lambda: os.execve("/bin/sleep", ["sleep", f"8640{TAG}"], {}))
    time.sleep(FOREVER)


@spaces.GPU(duration=30)
def flees():
    """Exits by itself and leaves a daemon. It waits between the two: without cgroups the host finds daemons by polling."""
    daemon(lambda: os.execve("/bin/sleep", ["sleep", f"8640{TAG}"], {}))
    time.sleep(5)
    os._exit(0)


@bad
def storms():
    """Starts 40 processes at once, and one that keeps forking itself."""
    for _ in range(3):
        if os.fork() == 0:
            for _ in range(3):
                if os.fork() == 0:
                    for _ in range(3):
                        if os.fork() == 0:
                            break
                    break
            time.sleep(FOREVER)
    if os.fork() == 0:
        while os.fork() == 0:
            time.sleep(0.01)
        os._exit(0)
    time.sleep(FOREVER)


@bad
def crashes():
    os.kill(os.getpid(), signal.SIGKILL)


@bad
def raises():
    raise RuntimeError("as asked for")


@bad
def waits_at_exit():
    """Requests its exit, which a thread delays."""
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    raise SystemExit


exiting = threading.local()
os.register_at_fork(after_in_child=lambda: getattr(exiting, "now", False) and os._exit(1))


@spaces.GPU(duration=1)
def never_allowed():
    return "never"


def dies_before_allow():
    exiting.now = True
    try:
        return never_allowed()
    finally:
        exiting.now = False


@spaces.GPU(duration=1)
def good():
    return os.getpid()


def collect():
    """Closes the connections of clients that `spaces` no longer references (spaces/zero/client.py, api_client)."""
    gc.collect()


with gr.Blocks() as demo:
    out = gr.Textbox()
    for kind in [*kinds, flees, dies_before_allow, good, collect]:
        gr.Button().click(kind, None, out, concurrency_limit=None)

demo.queue(max_size=1000).launch()
