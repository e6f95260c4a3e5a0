"""How many no-op events a second Gradio's own process_events does in the Space's process, without a host: the ceiling.

usage: python ceiling.py APP_FOLDER RUNNER_FOLDER plain|short SECONDS IN_FLIGHT...

Prints one JSON line: for each number of events in flight, events a second, and processor time for each in
microseconds, by process_events alone (its Events made beforehand) and by the whole runner (frame in, Event, process_events, frames out, but for the socket). "plain" leaves
the runner's shortcuts out, and measures process_events alone. There Gradio's summary of past events is short, since
none is remembered: in a process of its own it costs more with each.
"""
from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any

folder, runner, plain, seconds = sys.argv[1], sys.argv[2], sys.argv[3] == "plain", float(sys.argv[4])
counts = [int(n) for n in sys.argv[5:]]
sys.path[:0] = [folder, runner]

from app import demo  # noqa: E402
from gradio import queueing  # noqa: E402
from spacehost_runner import fastpaths  # noqa: E402
from spacehost_runner.frames import encode  # noqa: E402
from spacehost_runner.queue_adapter import QueueAdapter  # noqa: E402

ENDPOINT = next(i for i, fn in demo.fns.items() if fn.api_name == "noop")


class Host:
    """What the adapter wants of spacehost_runner.state.State; frames are encoded, and end here."""

    forked = False

    def __init__(self) -> None:
        self.adapters: list[QueueAdapter] = []
        self.apps: dict[int, Any] = {}
        self.mounts: dict[int, str] = {}
        self.tasks: dict[str, Any] = {}
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.right = 0

    def port_of(self, blocks: Any) -> int:
        return 0

    def is_further(self, port: int) -> bool:
        return False

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.write(encode(header, payload))

    @property
    def channel(self) -> Host:
        return self

    def write(self, frames: bytes) -> None:
        while frames:
            head, body = struct.unpack(">II", frames[:8])
            header, payload, frames = json.loads(frames[8 : 8 + head]), frames[8 + head : 8 + head + body], frames[8 + head + body :]
            self.right += header["op"] == "message" and b'"data":["x"]' in payload
            if header["op"] == "done":
                self.ended.put_nowait(header["event"])


HEADERS = [
    ["host", "127.0.0.1:7860"], ["accept-encoding", "gzip"], ["content-type", "application/json"],
    ["user-agent", "Go-http-client/1.1"], ["x-forwarded-for", "127.0.0.1"], ["x-forwarded-host", "127.0.0.1:7860"],
    ["x-forwarded-proto", "http"], ["x-gradio-user", "api"], ["x-ip-token", "x" * 300],
]


def order(number: int) -> tuple[dict[str, Any], bytes]:
    session = f"s{number % max(counts)}"  # as many as the table's
    data = {"data": ["x"], "event_data": None, "fn_index": ENDPOINT, "session_hash": session, "trigger_id": None}
    body = json.dumps(data).encode()
    request = {"scheme": "http", "path": "/gradio_api/queue/join", "query": "", "headers": HEADERS, "client": "127.0.0.1"}
    return {"id": f"{number:032x}", "admitted": False, "size": len(body), **request}, body


async def measure(host: Host, in_flight: int, prepare: Any, begin: Any) -> dict[str, float]:
    """Keeps that many events going; the time that prepare takes is not counted, on the clock or on the processors."""
    began, used, lost, spent, ended, host.right = time.perf_counter(), time.process_time(), 0.0, 0.0, 0, 0
    made: list[Any] = []
    number = 0

    def another() -> None:
        nonlocal lost, spent, number
        if not made:
            before, busy = time.perf_counter(), time.process_time()
            for _ in range(200):
                made.append(prepare(number))
                number += 1
            lost += time.perf_counter() - before
            spent += time.process_time() - busy
        begin(made.pop())

    for _ in range(in_flight):
        another()
    while time.perf_counter() - began - lost < seconds:
        await host.ended.get()
        ended += 1
        another()
    rate = ended / (time.perf_counter() - began - lost)
    cpu = (time.process_time() - used - spent) / ended
    for _ in range(in_flight):
        await host.ended.get()
        ended += 1
    if host.right != ended:
        raise SystemExit(f"{ended} events, {host.right} right answers")
    for rest in made:
        if isinstance(rest, queueing.Event):
            host.seams[0].forget(rest)
    return {"per_s": rate, "us": cpu * 1e6}


async def whole(host: Host, adapter: QueueAdapter, in_flight: int) -> dict[str, float]:
    def begin(made: tuple[dict[str, Any], bytes]) -> None:
        frame = encode({"op": "start", "app": 0, "events": [made[0]]}, made[1])
        header = json.loads(frame[8 : len(frame) - len(made[1])])
        adapter.loop.call_soon(adapter.start, header["events"], made[1])

    return await measure(host, in_flight, order, begin)


async def alone(host: Host, adapter: QueueAdapter, in_flight: int) -> dict[str, float]:
    def begin(event: Any) -> None:
        task = adapter.loop.create_task(adapter.run([event]))
        task.add_done_callback(lambda done: adapter.finish([event], done))

    return await measure(host, in_flight, lambda number: adapter.make(*order(number)), begin)


async def main(host: Host, adapter: QueueAdapter) -> dict[str, Any]:
    await whole(host, adapter, 4)  # warm
    if plain:
        return {str(n): {"plain": await alone(host, adapter, n)} for n in counts}
    return {str(n): {"alone": await alone(host, adapter, n), "whole": await whole(host, adapter, n)} for n in counts}


host = Host()
found: list[QueueAdapter] = []


def start(queue: Any) -> None:
    """In place of Queue.start, as the runner does it (worker/runner/spacehost_runner/hooks.py)."""
    queue.active_jobs = [None] * queue.max_thread_count
    queueing.run_coro_in_background(queue.start_progress_updates)
    adapter = QueueAdapter(host, queueing, queue)
    adapter.attach()
    found.append(adapter)


if plain:
    fastpaths.install = lambda module: None
queueing.Queue.start = start
demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
adapter = found[0]
if adapter.app is None and demo.app is not None:
    adapter.queue.set_server_app(demo.app)
print(json.dumps(asyncio.run_coroutine_threadsafe(main(host, adapter), adapter.loop).result()), flush=True)
demo.close()
