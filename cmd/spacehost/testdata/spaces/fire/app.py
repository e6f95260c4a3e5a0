"""GPU functions of one second that do not end in time, each in its own way."""
import ctypes
import gc
import os
import signal
import threading
import time

import gradio as gr
import spaces

TAG = os.environ.get("FIRE_TAG", "1")  # in the command line of those that shed their environment
FOREVER = 600

kinds = []


def bad(function):
    kinds.append(spaces.GPU(duration=1)(function))
    return kinds[-1]


def daemon(deed):
    """Forks twice and leaves the session, the group and the parent."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    deed()
    os._exit(0)


@bad
def sleeps():
    time.sleep(FOREVER)


@bad
def ignores():
    ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN; signal.signal is for the main thread
    time.sleep(FOREVER)


@bad
def stops():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(FOREVER)  # another thread may have taken the signal


@bad
def daemonises():
    daemon(lambda: time.sleep(FOREVER))
    time.sleep(FOREVER)


@bad
def sheds():
    """Its daemon has neither its parent, nor its group, nor the environment by which it was known."""
    daemon(lambda: os.execve("/bin/sleep", ["sleep", f"8640{TAG}"], {}))
    time.sleep(FOREVER)


@spaces.GPU(duration=30)
def flees():
    """Dies by itself and leaves a daemon; not in the same breath, since without cgroups somebody has to look."""
    daemon(lambda: os.execve("/bin/sleep", ["sleep", f"8640{TAG}"], {}))
    time.sleep(5)
    os._exit(0)


@bad
def storms():
    """40 processes at once, and one that forks itself on and on."""
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
    """Its end was asked for and is put off."""
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    raise SystemExit


doomed = threading.local()
os.register_at_fork(after_in_child=lambda: getattr(doomed, "now", False) and os._exit(1))


@spaces.GPU(duration=1)
def never_allowed():
    return "never"


def dies_before_allow():
    doomed.now = True
    try:
        return never_allowed()
    finally:
        doomed.now = False


@spaces.GPU(duration=1)
def good():
    return os.getpid()


def collect():
    """Shuts the connections of clients that `spaces` has let go of (spaces/zero/client.py, api_client)."""
    gc.collect()


with gr.Blocks() as demo:
    out = gr.Textbox()
    for kind in [*kinds, flees, dies_before_allow, good, collect]:
        gr.Button().click(kind, None, out, concurrency_limit=None)

demo.queue(max_size=1000).launch()
