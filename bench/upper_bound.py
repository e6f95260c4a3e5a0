"""Upper bound: no-op events per second of Gradio's own process_events in the Space's process, without a host.

usage: python upper_bound.py APP_FOLDER RUNNER_FOLDER plain|short SECONDS IN_FLIGHT...

Prints one JSON line. For each number of events in flight it contains events per second, and CPU time per event in
microseconds. Both are measured for process_events alone (its Events are created beforehand), and for the whole runner
(frame in, Event, process_events, frames out; without the socket). "plain" disables the runner's fast paths, and
measures only process_events. Gradio's summary of past events is short here, since no event is remembered: in plain
Gradio it costs more with each event.
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
    """Replaces spacehost_runner.state.State; frames are encoded, and not sent."""

    forked = False

    def __init__(self) -> None:
        self.adapters: list[QueueAdapter] = []
        self.apps: dict[int, Any] = {}
        self.mounts: dict[int, str] = {}
        self.tasks: dict[str, Any] = {}
        self.lifespans: dict[int, dict[str, Any]] = {}
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.right = 0
        self.observer = None
        self.liveness = self  # attached is called: there is no host that probes
        self.printer = self  # print is not called: no event fails

    def port_of(self, blocks: Any) -> int:
        return 0

    def attached(self, loop: Any) -> None: ...

    def is_further(self, port: int) -> bool:
        return False

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.write(encode(header, payload))

    @property
    def channel(self) -> Host:
        return self

    def write(self, parts: list[bytes]) -> None:
        frames = b"".join(parts)
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


def join_request(number: int) -> tuple[dict[str, Any], bytes]:
    session = f"s{number % max(counts)}"  # as many sessions as in the table
    data = {"data": ["x"], "event_data": None, "fn_index": ENDPOINT, "session_hash": session, "trigger_id": None}
    body = json.dumps(data).encode()
    request = {"scheme": "http", "path": "/gradio_api/queue/join", "query": "", "headers": HEADERS, "client": "127.0.0.1"}
    return {"id": f"{number:032x}", "admitted": False, "size": len(body), **request}, body


async def measure(host: Host, in_flight: int, prepare: Any, begin: Any) -> dict[str, float]:
    """Keeps that many events in flight. Wall-clock and CPU time of prepare are not counted."""
    began, cpu_began, prepare_wall, prepare_cpu, ended, host.right = time.perf_counter(), time.process_time(), 0.0, 0.0, 0, 0
    prepared: list[Any] = []
    number = 0

    def start_next() -> None:
        nonlocal prepare_wall, prepare_cpu, number
        if not prepared:
            before, cpu_before = time.perf_counter(), time.process_time()
            for _ in range(200):
                prepared.append(prepare(number))
                number += 1
            prepare_wall += time.perf_counter() - before
            prepare_cpu += time.process_time() - cpu_before
        begin(prepared.pop())

    for _ in range(in_flight):
        start_next()
    while time.perf_counter() - began - prepare_wall < seconds:
        await host.ended.get()
        ended += 1
        start_next()
    rate = ended / (time.perf_counter() - began - prepare_wall)
    cpu = (time.process_time() - cpu_began - prepare_cpu) / ended
    for _ in range(in_flight):
        await host.ended.get()
        ended += 1
    if host.right != ended:
        raise SystemExit(f"{ended} events, but {host.right} correct answers")
    for rest in prepared:
        if isinstance(rest, queueing.Event):
            host.adapters[0].forget(rest)
    return {"per_s": rate, "us": cpu * 1e6}


async def whole(host: Host, adapter: QueueAdapter, in_flight: int) -> dict[str, float]:
    def begin(made: tuple[dict[str, Any], bytes]) -> None:
        frame = b"".join(encode({"op": "start", "app": 0, "events": [made[0]]}, made[1]))
        header = json.loads(frame[8 : len(frame) - len(made[1])])
        adapter.loop.call_soon(adapter.start, header["events"], made[1])

    return await measure(host, in_flight, join_request, begin)


async def alone(host: Host, adapter: QueueAdapter, in_flight: int) -> dict[str, float]:
    def begin(event: Any) -> None:
        task = adapter.loop.create_task(adapter.run([event]))
        task.add_done_callback(lambda done: adapter.finish([event], done))

    return await measure(host, in_flight, lambda number: adapter.make(*join_request(number)), begin)


async def main(host: Host, adapter: QueueAdapter) -> dict[str, Any]:
    await whole(host, adapter, 4)  # warm
    if plain:
        return {str(n): {"plain": await alone(host, adapter, n)} for n in counts}
    return {str(n): {"alone": await alone(host, adapter, n), "whole": await whole(host, adapter, n)} for n in counts}


host = Host()
found: list[QueueAdapter] = []


def start(queue: Any) -> None:
    """Replaces Queue.start, as the runner does (worker/runner/spacehost_runner/hooks.py)."""
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
