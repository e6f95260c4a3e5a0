"""The seam between the host's queue and Gradio's: admission reported, execution by Gradio's own process_events.

Every attribute of Gradio that is used here is probed first (missing): a Gradio that lacks one runs with its own
queue, untouched. Tried with 4.44, 5.49 and 6.31; no version number is compared.
"""
from __future__ import annotations

import _thread
import functools
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from . import files, shortcuts
from .frames import encode
from .pages import frontend

if TYPE_CHECKING:
    import asyncio

    from .state import State

QUEUE_NEEDS = (
    "active_jobs blocks max_size max_thread_count live_updates update_intervals default_concurrency_limit "
    "event_queue_per_concurrency_id pending_event_ids_session pending_messages_per_session event_analytics "
    "process_time_per_fn server_app set_server_app create_event_queue_for_fn send_message push process_events "
    "start_progress_updates reset_iterators"
).split()


class Unknown(Exception):
    """This Gradio lacks what the seam needs."""


def missing(module: Any, queue: Any) -> list[str]:
    lacks = [f"Queue.{name}" for name in QUEUE_NEEDS if not hasattr(queue, name)]
    return lacks + [n for n in ("Event", "route_utils", "run_coro_in_background") if not hasattr(module, n)]


def version() -> str:
    return getattr(sys.modules.get("gradio"), "__version__", "")


def _print(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


class Seam:
    """One attached app: the Queue of one Blocks on one event loop. Its methods run on that loop, but for
    post and send_message."""

    def __init__(self, state: State, module: Any, queue: Any) -> None:
        """Only reads: whatever raises here leaves the app as it is."""
        import asyncio
        import inspect

        if lacks := missing(module, queue):
            raise Unknown("it has no " + ", ".join(lacks))
        self.state, self.module, self.queue = state, module, queue
        self.blocks, self.loop, self.thread = queue.blocks, asyncio.get_running_loop(), _thread.get_ident()
        self.number = len(state.seams)  # the `app` of the frames
        before = next((seam for seam in state.seams if seam.queue is queue), None)  # it was launched before
        self.max_size = before.max_size if before else queue.max_size
        self.app = queue.server_app or state.apps.get(id(self.blocks))  # a mount does not set it, launch does
        self.takes_fn = "fn" in inspect.signature(module.Queue.process_events).parameters
        self.events: dict[str, Any] = {}  # admitted or running, by id
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.busy = asyncio.Event()  # there were tasks a second ago
        self.lock = _thread.allocate_lock()  # over the two below
        self.speaking: set[str] = set()  # running, and not yet completed
        self.held: dict[str, list[tuple[dict[str, Any], bytes]]] = {}  # messages of events whose push has not returned
        self.mouth = _thread.allocate_lock()  # over unsent, and the writing of it
        self.unsent: list[bytes] = []
        self.report = self.manifest()
        encode(self.report)  # raises if the host could not read it

    def attach(self) -> None:
        """Takes the queue over and tells the host. A relaunch attaches the same queue again, on a new loop."""
        queue = self.queue
        if queue.server_app is None and self.app is not None:
            queue.set_server_app(self.app)
        queue.max_size = None  # the host refuses, before push is called
        queue.send_message, queue.push = self.send_message, self.push
        shortcuts.take(self.module)
        files.guard_cache(self.blocks)
        if not hasattr(queue, "event_ids_to_events"):  # 4.44
            queue.event_ids_to_events = {}
        self.state.seams.append(self)
        self.state.send(self.report)

    # What the host is told at attach

    def manifest(self) -> dict[str, Any]:
        queue, blocks = self.queue, self.blocks
        return {
            "op": "manifest",
            "app": self.number,
            "gradio": version(),
            "prefix": getattr(self.module.route_utils, "API_PREFIX", ""),
            "mount": self.state.mounts.get(id(blocks), ""),
            "port": self.state.port_of(blocks),
            "further": self.state.is_further(self.state.port_of(blocks)),
            "max_size": self.max_size,
            "live_updates": bool(queue.live_updates),
            "update_seconds": queue.update_intervals,
            "max_threads": queue.max_thread_count,
            "native": self.is_native(),
            "files": files.report(blocks, self.app, self.module.route_utils),
            "renders": bool(getattr(blocks, "renderables", True)),
            "servers": self.servers(),
            "explorers": [i for i, block in blocks.blocks.items() if files.is_explorer(block)],
            "endpoints": [self.endpoint(i, fn) for i, fn in blocks.fns.items()],
            "frontend": self.frontend(),
            "tasks": self.state.tasks,
        }

    def frontend(self) -> dict[str, Any] | None:
        if not self.is_native() or not hasattr(self.module.route_utils, "API_PREFIX"):  # 4.44 serves files without ranges
            return None
        try:
            return frontend(self.app, self.blocks, self.module.route_utils.API_PREFIX)
        except Exception as error:
            _print(error)
            return None

    def changed(self) -> None:
        """Gradio has made the app's config anew: what the host has kept of it is old."""
        self.state.send({"op": "changed", "app": self.number})

    def is_native(self) -> bool:
        """Whether the host may admit by itself: nobody signs in, no middleware of the app sees the request."""
        app = self.app
        if app is None or id(self.blocks) in self.state.mounts or getattr(self.blocks, "expects_oauth", False):
            return False
        if getattr(app, "auth", None) is not None or getattr(app, "auth_dependency", None) is not None:
            return False
        if getattr(getattr(app, "router", None), "dependencies", None):
            return False
        layers = [getattr(layer, "cls", None) for layer in getattr(app, "user_middleware", [])]
        return all(getattr(cls, "__module__", "").partition(".")[0] in ("gradio", "brotli_asgi") for cls in layers)

    def servers(self) -> dict[str, list[str]]:
        """What a component lets its frontend call, by the component's id (gradio/components/base.py, server)."""
        found = {i: [fn.__name__ for fn in getattr(block, "server_fns", [])] for i, block in self.blocks.blocks.items()}
        return {str(i): names for i, names in found.items() if names}

    def endpoint(self, number: int, fn: Any) -> dict[str, Any]:
        group = self.queue.default_concurrency_limit if fn.concurrency_limit == "default" else fn.concurrency_limit
        return {
            "id": number,
            "api_name": fn.api_name if isinstance(fn.api_name, str) else "",
            "group": str(fn.concurrency_id),
            "limit": group,
            "batch": fn.max_batch_size if fn.batch else 0,
            "stream": getattr(fn, "connection", "sse") == "stream",
            "time_limit": getattr(fn, "time_limit", None),
            "inputs": len(fn.inputs),
            "free": [i for i, block in enumerate(fn.inputs) if files.is_free(block)],
            "explores": [i for i, block in enumerate(fn.inputs) if files.is_explorer(block)],
            "native": getattr(fn, "validator", None) is None and not hasattr(fn.fn, "cache"),
        }

    # The host's frames

    def post(self, header: dict[str, Any], payload: bytes) -> None:
        """Called by the listening thread: hands the frame to the loop, or says that the app has been closed."""
        try:
            self.loop.call_soon_threadsafe(self.handle, header, payload)
        except RuntimeError:  # the loop of an app that was closed or launched again
            for order in header["events"] if header["op"] == "start" else ():
                self.done(order["id"], None, "the app was closed")

    def handle(self, header: dict[str, Any], payload: bytes) -> None:
        match header["op"]:
            case "start":
                self.start(header["events"], payload)
            case "cancel":
                self.cancel(header["event"])
            case "gone":
                for event in header["events"]:
                    self.leave(event)

    def start(self, orders: list[dict[str, Any]], payload: bytes) -> None:
        events, offset = [], 0
        for order in orders:
            body = payload[offset : offset + order["size"]]
            offset += order["size"]
            try:
                events.append(self.admitted(order) if order["admitted"] else self.make(order, body))
            except Exception as error:
                _print(error)
                self.done(order["id"], None, f"{type(error).__name__}: {error}")
        if events:
            task = self.loop.create_task(self.run(events))
            self.tasks.update({event._id: task for event in events})
            task.add_done_callback(functools.partial(self.finish, events))
            self.busy.set()

    async def look_for_progress(self) -> None:
        """Lets Gradio look a hundred times a second for the progress of Jobs, but only while there are any.

        It goes on for a second after the last one: to begin anew for each of many quick ones would cost more.
        """
        import asyncio

        while not self.queue.stopped:
            await self.busy.wait()
            looks = asyncio.ensure_future(self.queue.start_progress_updates())
            try:
                while self.busy.is_set():
                    await asyncio.sleep(1)
                    if not self.tasks:
                        self.busy.clear()
            finally:
                looks.cancel()

    def make(self, order: dict[str, Any], body: bytes) -> Any:
        """Builds what Gradio's own join route and push would have built (gradio/routes.py queue_join, queueing.py push)."""
        import fastapi
        from gradio.data_classes import PredictBody, PredictBodyInternal

        queue, request = self.queue, fastapi.Request(self.scope(order))
        given = json.loads(body)
        internal = PredictBodyInternal(**{n: given[n] for n in PredictBody.model_fields if n in given}, request=request)
        fn = self.module.route_utils.get_fn(self.blocks, None, internal)
        event = self.module.Event(internal.session_hash, fn, request, None)
        event._id, event.data = order["id"], internal
        queue.create_event_queue_for_fn(fn)
        queue.pending_event_ids_session.setdefault(event.session_hash, set()).add(event._id)
        queue.event_ids_to_events[event._id] = event
        self.events[event._id] = event
        self.record(event)
        return event

    def record(self, event: Any) -> None:
        """Notes an Event for /monitoring, as push does. The history of Gradio 5 has no end; here it has that of Gradio 6."""
        queue, name = self.queue, event.fn.api_name
        queue.event_analytics[event._id] = {
            "time": time.time(),
            "status": "queued",
            "process_time": None,
            "function": name,
            "session_hash": event.session_hash,
        }
        if hasattr(queue, "events_recorded"):
            queue.events_recorded += 1
            queue.events_recorded_per_fn[name] += 1
        if len(queue.event_analytics) > getattr(queue, "ANALYTICS_MAX_EVENTS", 10_000):
            oldest = next((known for known in queue.event_analytics if known not in self.events), None)
            queue.event_analytics.pop(oldest, None)

    def scope(self, order: dict[str, Any]) -> dict[str, Any]:
        """The ASGI scope that uvicorn would have made of the visitor's request."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": order["scheme"],
            "path": order["path"],
            "raw_path": order["path"].encode(),
            "query_string": order["query"].encode(),
            "root_path": self.report["mount"],
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in order["headers"]],
            "client": (order["client"], 0),
            "server": ("127.0.0.1", self.report["port"]),
            "state": {},
            "app": self.queue.server_app,
        }

    def admitted(self, order: dict[str, Any]) -> Any:
        """An event that came through push; its token is signed only now, when the Job starts."""
        event = self.events.get(order["id"])
        if event is None:
            raise LookupError("the app no longer has this call")
        request = event.request
        pairs = [pair for pair in request.scope["headers"] if pair[0] != b"x-ip-token"]
        request.scope["headers"] = pairs + [(b"x-ip-token", order["token"].encode())]
        request.__dict__.pop("_headers", None)  # starlette caches what it parsed
        return event

    def cancel(self, event_id: str) -> None:
        """First not alive, then cancelled: a thread that waits for a GPU looks only at alive."""
        self.leave(event_id)
        task = self.tasks.get(event_id)
        if task is not None and not self.events[event_id].fn.batch:  # the others of a batch go on
            task.cancel()

    def leave(self, event_id: str) -> None:
        event = self.events.get(event_id)
        if event is None:
            return
        event.alive = False
        if event_id not in self.tasks:  # admitted, never started
            self.forget(event)

    # Execution

    async def run(self, events: list[Any]) -> None:
        queue, fn, begin = self.queue, events[0].fn, time.time()
        group = queue.event_queue_per_concurrency_id[fn.concurrency_id]
        group.current_concurrency += 1  # process_events counts it down
        group.start_times_per_fn[fn].add(begin)
        self.occupy(events)
        self.speaking.update(event._id for event in events)
        await queue.process_events(events, fn.batch, begin, *((fn,) if self.takes_fn else ()))

    def finish(self, events: list[Any], task: asyncio.Task[None]) -> None:
        """Called when run has ended, and also when it was cancelled before its first step."""
        error = ""
        if task.cancelled():
            error = "cancelled"
        elif raised := task.exception():
            _print(raised)
            error = f"{type(raised).__name__}: {raised}"
        self.vacate(events)
        for event in events:
            self.forget(event)
            self.done(event._id, event.fn, error)

    def occupy(self, events: list[Any]) -> None:
        """active_jobs is where spaces, Progress and gr.Info look an event up."""
        jobs = self.queue.active_jobs
        if None in jobs:
            jobs[jobs.index(None)] = events
        else:
            jobs.append(events)

    def vacate(self, events: list[Any]) -> None:
        jobs = self.queue.active_jobs
        for index, job in enumerate(jobs):
            if job is events:
                jobs[index] = None

    def done(self, event_id: str, fn: Any, error: str) -> None:
        times = self.queue.process_time_per_fn
        average = times[fn].avg_time if fn in times else None
        self.say({"op": "done", "event": event_id, "error": error, "average": average})

    def say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Sends a frame of this app after those before it. What is said on the loop goes out together when the loop
        has gone around twice: each write wakes the host, and the end of an event follows its last message at once."""
        frame = encode(header, payload)
        with self.mouth:
            self.unsent.append(frame)
            first = len(self.unsent) == 1
        if _thread.get_ident() != self.thread:
            self.flush()
        elif first:
            self.loop.call_soon(self.loop.call_soon, self.flush)

    def flush(self) -> None:
        with self.mouth:
            frames, self.unsent = b"".join(self.unsent), []
            if frames and not self.state.forked:
                self.state.channel.write(frames)

    def forget(self, event: Any) -> None:
        queue, event_id, session = self.queue, event._id, event.session_hash
        with self.lock:
            self.speaking.discard(event_id)
            self.held.pop(event_id, None)
            self.events.pop(event_id, None)
            queue.event_ids_to_events.pop(event_id, None)
        self.tasks.pop(event_id, None)
        getattr(queue.server_app, "iterators_to_reset", set()).discard(event_id)
        pending = queue.pending_event_ids_session.get(session)
        if pending is not None:
            pending.discard(event_id)
            if not pending:
                del queue.pending_event_ids_session[session]
                if session in queue.pending_messages_per_session:
                    del queue.pending_messages_per_session[session]

    # What Gradio calls

    def send_message(self, event: Any, message: Any) -> None:
        """Replaces Queue.send_message; called on the loop and, by gr.Info and gr.Progress, from worker threads.

        Nothing follows process_completed, which the host would take for a breach: in an event that has failed
        Gradio's progress updates go on for a moment, and threads that the app has started may call gr.Info.
        """
        kind = getattr(message.msg, "value", message.msg)
        if not event.alive or kind == "estimation" or self.state.forked:  # ranks are the host's
            return
        import orjson

        message.event_id = event._id
        payload = orjson.dumps(message.model_dump(), default=str)
        header = {"op": "message", "event": event._id, "msg": kind, "success": getattr(message, "success", None)}
        with self.lock:
            if event._id in self.speaking:
                if kind == "process_completed":
                    self.speaking.discard(event._id)
                self.say(header, payload)
            elif event._id not in self.events and event._id in self.queue.event_ids_to_events:
                # A cache hit speaks before push returns, and before the host knows the id.
                self.held.setdefault(event._id, []).append((header, payload))

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Wraps Queue.push: validators, cache and Event stay Gradio's; the event then waits in the host's queue."""
        queue = self.queue
        result = await type(queue).push(queue, body, request, username)
        if not result[0]:
            return result
        event_id = result[1]
        fn = self.module.route_utils.get_fn(self.blocks, None, body)
        waiting = queue.event_queue_per_concurrency_id[fn.concurrency_id]
        event = next((e for e in waiting.queue if e._id == event_id), None)
        self.flush()
        self.state.send({
            "op": "admitted",
            "app": self.number,
            "event": event_id,
            "session": body.session_hash,
            "endpoint": {**self.endpoint(fn._id, fn), "limit": waiting.concurrency_limit},
            "call": request.scope.get("spacehost.call", ""),
            "cached": event is None,
        })
        if event is not None:
            waiting.queue.remove(event)
            self.events[event_id] = event
            return result
        for header, payload in self.held.pop(event_id, []):
            self.say(header, payload)
        await queue.reset_iterators(event_id)
        self.forget(queue.event_ids_to_events[event_id])
        self.done(event_id, None, "")
        return result
