"""Has every kind of function in one app, for runner_test.go: each start of an interpreter with Gradio is slow.

Functions put deeds into a queue of the main thread, since some work only there. It runs them and prints the results.
"""
import inspect
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlparse

import gradio as gr
import spaces
from fastapi import Depends
from starlette.middleware import Middleware

DEEDS = queue.Queue()
RELEASE = threading.Event()


def known(function, **kwargs):
    """Returns the kwargs that this release of Gradio accepts."""
    return {name: value for name, value in kwargs.items() if name in inspect.signature(function).parameters}


def log(what, **facts):
    os.write(1, f"{what} {json.dumps(facts)}\n".encode())  # one write per line


# Functions of the main app


def quick(text):
    return f"you said {text}"


def gen(count):
    for number in range(int(count)):
        yield number


def endless(mark):
    try:
        while True:
            yield time.time()
            time.sleep(0.01)
    finally:
        log("closed", mark=mark)


async def hang(mark):
    import asyncio

    try:
        await asyncio.Event().wait()
    finally:
        log("cancelled", mark=mark)


def stuck(mark):
    RELEASE.wait()
    return mark


def boom(text):
    raise ValueError(text)


def refuse(text):
    raise gr.Error(text, **known(gr.Error, title="No"))


def progress(text, bar=gr.Progress()):
    for number in range(3):
        bar(number / 3, desc=text)
        time.sleep(0.05)
    return text


def late_progress(text, bar=gr.Progress()):
    """Fails right after a progress update: Gradio sends that progress while it reports the failure."""
    bar(0.9, desc=text)
    raise ValueError(text)


def toasts(text):
    gr.Info(text)
    gr.Warning(text)
    return text


def late_toast(text):
    """Leaves a thread that continues to call gr.Info."""
    from contextvars import copy_context

    def keep_toasting():
        for _ in range(200):
            gr.Info("too late")
            time.sleep(0.001)

    threading.Thread(target=copy_context().run, args=(keep_toasting,)).start()
    return text


def batch(texts):
    return [[f"{len(texts)} {text}" for text in texts]]


def positive(number):
    return gr.validate(number > 0, "not positive")


def validated(number):
    return number * 2


CALLS = []
cache = getattr(gr, "cache", lambda fn: fn)  # Gradio 4 and 5 have none


@cache
def cached(number):
    CALLS.append(number)
    return number * 3


@cache
def cached_gen(number):
    yield number
    yield number * 4


def whoami(request: gr.Request):
    return {
        "headers": sorted(request.headers.items()),
        "query": dict(request.query_params),
        "client": [request.client.host, request.client.port],
        "session": request.session_hash,
        "path": request.url.path,
        "scheme": request.url.scheme,
    }


@spaces.GPU(duration=5)
def gpu(text):
    subprocess.run(["true"], check=True)
    return {
        "text": text,
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "parent's group": os.getpgid(os.getppid()),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def tables():
    """Returns the sizes of Gradio's tables of events. The entries of this call are included."""
    q, app = main._queue, main._queue.server_app
    return {
        "event_ids_to_events": len(q.event_ids_to_events),  # Gradio 4 has none of its own
        "pending_event_ids_session": len(q.pending_event_ids_session),
        "pending_messages_per_session": len(q.pending_messages_per_session),
        "active_jobs": len([job for job in q.active_jobs if job is not None]),
        "event_analytics": len(q.event_analytics),
        "waiting": len(q),
        "current_concurrency": sum(group.current_concurrency for group in q.event_queue_per_concurrency_id.values()),
        "start_times": sum(len(times) for group in q.event_queue_per_concurrency_id.values() for times in group.start_times_per_fn.values()),
        "iterators": len(app.iterators),
        "iterators_to_reset": len(app.iterators_to_reset),
    }


def fork():
    """Returns which sockets of the parent a forked child has inherited."""
    device = urlparse(os.environ["SPACES_ZERO_DEVICE_API_URL"]).port
    other = socket.create_server(("127.0.0.1", 0))
    sockets = {
        "to the device API": socket.create_connection(("127.0.0.1", device)),
        "to another server": socket.create_connection(other.getsockname()),
        "other server": other,
        "to the Space's own port": socket.create_connection(("127.0.0.1", main.server_port)),
        "pair": socket.socketpair()[0],
    }
    high = sorted(number for number in map(int, os.listdir("/proc/self/fd")) if number >= 1000)  # of the runner
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        links = {name: os.readlink(f"/proc/self/fd/{one.fileno()}") for name, one in sockets.items()}
        links["pipe"] = os.readlink(f"/proc/self/fd/{writing}")
        gr.Info("a child's toast")
        listening = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        inodes = {line.split()[9] for line in listening if line.split()[1].endswith(f":{main.server_port:04X}")}
        held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
        facts = {
            "sockets": {name: link.partition(":")[0] for name, link in links.items()},
            "sockets of the Space's port": [link for link in held if link.partition("[")[2].rstrip("]") in inodes],
            "channel and stacks": [os.readlink(f"/proc/self/fd/{number}") for number in high],
            "group is the parent's": os.getpgid(0) == os.getpgid(os.getppid()),
        }
        os.setsid()
        os.write(writing, json.dumps(facts).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        facts = json.load(pipe)
    os.waitpid(child, 0)
    for one in sockets.values():
        one.close()
    return facts | {"channel and stacks of the parent": [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in high]}


def hot_reload():
    return "spaces.reloading.server" in sys.modules


def deed(name):
    DEEDS.put(name)


# Deeds of the main thread


def echo(text: str) -> str:
    return text


def echoing():
    with gr.Blocks() as demo:
        gr.Textbox().submit(echo, gr.Textbox(), gr.Textbox(), api_name="echo")
    return demo


def small(**launch):
    demo = echoing()
    return demo, demo.launch(prevent_thread_lock=True, **launch)


def do_auth():
    small(auth=("ada", "lovelace"))


def do_dependency():
    small(app_kwargs={"dependencies": [Depends(lambda: None)]})


class Layer:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def do_middleware():
    small(app_kwargs={"middleware": [Middleware(Layer)]})


def do_unknown():
    with gr.Blocks() as demo:
        gr.Textbox().submit(lambda text: f"my own queue says {text}", gr.Textbox(), gr.Textbox(), api_name="echo")
    del demo._queue.update_intervals
    demo.launch(prevent_thread_lock=True)
    log("its own queue", push=type(demo._queue.push).__name__, own="push" not in vars(demo._queue))


def do_strange():
    """Gradio has the attributes that the queue adapter needs, with values of the wrong types."""
    demo = echoing()
    demo._queue.update_intervals = object()
    demo._queue.live_updates = True
    demo.launch(prevent_thread_lock=True)


def do_bad_launch():
    try:
        main.launch(no_such_argument=1)
    except TypeError as error:
        log("refused", error=str(error))


def do_read_app():
    """Counts the constructions of an App: Gradio makes three before launch(), which are not needed unless they are read."""
    from gradio.routes import App

    made, init = [], App.__init__

    def count(self, *args, **options):
        made.append(self)
        init(self, *args, **options)

    App.__init__ = count
    try:
        demo = echoing().queue()
        before = len(made)
        first, paths = demo.app, {getattr(route, "path", "") for route in demo.app.routes}
        config, direct = demo.config == demo.get_config_file(), App.create_app(demo)
        log(
            "read", before=before, same=demo.app is first is made[0], after=len(made), blocks=first.get_blocks() is demo, config=config,
            routes=any(path.endswith("/config") for path in paths), direct=type(direct) is App,
        )
        demo.app = direct
        log("written", same=demo.app is direct)
    finally:
        App.__init__ = init


def do_relaunch():
    main.close(verbose=False)
    result = main.launch(prevent_thread_lock=True, server_name="0.0.0.0", server_port=7860, share=True, ssl_keyfile="/no/key", ssl_certfile="/no/cert")
    log("relaunched", url=result[1], local_url=main.local_url, api_url=getattr(main, "local_api_url", None), port=main.server_port)


def do_end():
    raise SystemExit(4)


with gr.Blocks() as main:
    box, out, number, answer = gr.Textbox(), gr.Textbox(), gr.Number(), gr.Number()
    state, thing = gr.State(0), gr.JSON()
    button = gr.Button()
    button.click(quick, box, out, api_name="quick")
    button.click(gen, number, out, api_name="gen", concurrency_limit=None)
    button.click(endless, box, out, api_name="endless", concurrency_limit=3)
    button.click(hang, box, out, api_name="hang", concurrency_limit=3, concurrency_id="shared")
    button.click(stuck, box, out, api_name="stuck", concurrency_id="shared")
    button.click(boom, box, out, api_name="boom")
    button.click(refuse, box, out, api_name="refuse")
    button.click(progress, box, out, api_name="progress")
    button.click(late_progress, box, out, api_name="late_progress")
    button.click(toasts, box, out, api_name="toasts")
    button.click(late_toast, box, out, api_name="late_toast")
    button.click(batch, box, out, api_name="batch", batch=True, max_batch_size=4)
    button.click(validated, number, answer, api_name="validated", **known(button.click, validator=positive))
    button.click(cached, number, answer, api_name="cached")
    button.click(cached_gen, number, answer, api_name="cached_gen")
    button.click(lambda: CALLS, None, thing, api_name="calls")
    button.click(whoami, None, thing, api_name="whoami")
    button.click(lambda n: (n + 1, n + 1), state, [state, answer], api_name="count")
    button.click(gpu, box, thing, api_name="gpu")
    button.click(tables, None, thing, api_name="tables")
    button.click(fork, None, thing, api_name="fork")
    button.click(hot_reload, None, thing, api_name="hot_reload")
    button.click(deed, box, None, api_name="deed")
    button.click(lambda: RELEASE.set(), None, None, api_name="release")
main.queue(max_size=30, status_update_rate=2.5, default_concurrency_limit=5)


if __name__ == "__main__":
    launched = main.launch(prevent_thread_lock=True, server_name="0.0.0.0", inbrowser=True, max_threads=17, show_error=True)
    log("launched", url=launched[1], local_url=main.local_url, api_url=getattr(main, "local_api_url", None), share=launched[2], port=main.server_port, name=main.server_name)
    while True:
        name = DEEDS.get()
        globals()["do_" + name]()
        log("did", name=name)
