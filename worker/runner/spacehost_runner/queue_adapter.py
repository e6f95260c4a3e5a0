"""Connects Gradio's queue to the host's: the host schedules events, Gradio's own process_events runs them.

Every attribute of Gradio used here is probed first (missing). A Gradio that lacks one keeps its own queue, unmodified.
Tested with 4.44, 5.49 and 6.31; no version number is compared.
"""
from __future__ import annotations

import _thread
import functools
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from . import fastpaths, files, frontend
from .frames import encode

if TYPE_CHECKING:
    import asyncio

    from .state import State

QUEUE_NEEDS = (
    "active_jobs blocks max_size max_thread_count live_updates update_intervals default_concurrency_limit "
    "event_queue_per_concurrency_id pending_event_ids_session pending_messages_per_session event_analytics "
    "process_time_per_fn server_app set_server_app create_event_queue_for_fn send_message push process_events "
    "start_progress_updates reset_iterators"
).split()


class UnsupportedGradio(Exception):
    """This Gradio lacks an attribute that the adapter needs."""


def missing(module: Any, queue: Any) -> list[str]:
    """Returns the names that the adapter needs and this Gradio lacks."""
    lacks = [f"Queue.{name}" for name in QUEUE_NEEDS if not hasattr(queue, name)]
    return lacks + [n for n in ("Event", "route_utils", "run_coro_in_background") if not hasattr(module, n)]


def version() -> str:
    return getattr(sys.modules.get("gradio"), "__version__", "")


def _is_transparent(middleware: Any) -> bool:
    """Reports whether a middleware class leaves requests and responses as they are, so that the host may bypass it.

    spaces 0.52 adds ZeroGPUMiddleware to every app (spaces/zero/gradio.py, setup_middleware). It only records the
    headers of a request for GPU calls of plain routes. A subclass of an app may do more.
    """
    if middleware is None:
        return False
    zerogpu = getattr(sys.modules.get("spaces.zero.middleware"), "ZeroGPUMiddleware", None)
    return middleware is zerogpu or getattr(middleware, "__module__", "").partition(".")[0] in ("gradio", "brotli_asgi")


class QueueAdapter:
    """One attached app: the Queue of one Blocks on one event loop.

    All methods run on that loop, except post, send_message, enqueue and flush, which any thread may call.
    """

    def __init__(self, state: State, module: Any, queue: Any) -> None:
        """Only reads, so an exception raised here leaves the app unmodified."""
        import asyncio
        import inspect

        if lacks := missing(module, queue):
            raise UnsupportedGradio("it has no " + ", ".join(lacks))
        self.state, self.module, self.queue = state, module, queue
        self.blocks, self.loop, self.thread = queue.blocks, asyncio.get_running_loop(), _thread.get_ident()
        self.number = len(state.adapters)  # the `app` of the frames
        earlier = next((adapter for adapter in state.adapters if adapter.queue is queue), None)  # of an earlier launch
        self.max_size = earlier.max_size if earlier else queue.max_size
        self.first = next((adapter.number for adapter in state.adapters if adapter.blocks is self.blocks), self.number)
        self.app = queue.server_app or state.apps.get(id(self.blocks))  # launch sets server_app, a mount does not
        self.takes_fn = "fn" in inspect.signature(module.Queue.process_events).parameters
        self.events: dict[str, Any] = {}  # admitted or running, by id
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.busy = asyncio.Event()  # set while there are tasks, and up to a second longer
        self.lock = _thread.allocate_lock()  # guards running_ids and early_messages
        self.running_ids: set[str] = set()  # events that run and have not sent process_completed
        self.early_messages: dict[str, list[tuple[dict[str, Any], bytes]]] = {}  # of events during their push
        self.send_lock = _thread.allocate_lock()  # guards unsent, and is held while it is written
        self.unsent: list[bytes] = []
        self.report = self.manifest()
        encode(self.report)  # raises if the host could not read it

    def attach(self) -> None:
        """Redirects the queue to the host and sends the manifest. A relaunch attaches the same queue on a new loop."""
        queue = self.queue
        if queue.server_app is None and self.app is not None:
            queue.set_server_app(self.app)
        queue.max_size = None  # the host applies the limit before it calls push
        queue.send_message, queue.push = self.send_message, self.push
        fastpaths.install(self.module)
        files.guard_cache(self.blocks)
        if not hasattr(queue, "event_ids_to_events"):  # 4.44
            queue.event_ids_to_events = {}
        self.state.adapters.append(self)
        if not self.report["further"]:
            self.state.liveness.attached(self.loop)
        if self.state.observer is not None:  # before the manifest, after which the host may end the start
            self.state.observer.attached(self.blocks, self.report["mount"] + self.report["prefix"])
        self.state.send(self.report)

    # The manifest, sent at attach

    def manifest(self) -> dict[str, Any]:
        queue, blocks = self.queue, self.blocks
        return {
            "op": "manifest",
            "app": self.number,
            "first": self.first,
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
            return frontend.report(self.app, self.blocks, self.module.route_utils.API_PREFIX)
        except Exception as error:
            self.state.printer.print(error)
            return None

    def changed(self) -> None:
        """Reports that Gradio has rebuilt the app's config, so that the host drops its cached pages."""
        self.state.send({"op": "changed", "app": self.number})

    def is_native(self) -> bool:
        """Reports whether the host may admit events itself: the app has neither a login nor middleware of its own."""
        app = self.app
        if app is None or id(self.blocks) in self.state.mounts or getattr(self.blocks, "expects_oauth", False):
            return False
        if getattr(app, "auth", None) is not None or getattr(app, "auth_dependency", None) is not None:
            return False
        if getattr(getattr(app, "router", None), "dependencies", None):
            return False
        layers = [getattr(layer, "cls", None) for layer in getattr(app, "user_middleware", [])]
        return all(_is_transparent(cls) for cls in layers)

    def servers(self) -> dict[str, list[str]]:
        """Returns the server functions that a frontend may call, by component id (gradio/components/base.py, server)."""
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
            "generator": bool(getattr(fn, "types_generator", False)),
            "time_limit": getattr(fn, "time_limit", None),
            "inputs": len(fn.inputs),
            "free": [i for i, block in enumerate(fn.inputs) if files.is_free(block)],
            "explores": [i for i, block in enumerate(fn.inputs) if files.is_explorer(block)],
            "native": getattr(fn, "validator", None) is None and not hasattr(fn.fn, "cache"),
        }

    # Frames from the host

    def post(self, header: dict[str, Any], payload: bytes) -> None:
        """Passes a frame from the listening thread to the loop. If the loop is closed, the frame's events fail."""
        try:
            self.loop.call_soon_threadsafe(self.handle, header, payload)
        except RuntimeError:  # the loop of an app that was closed or launched again
            for entry in header["events"] if header["op"] == "start" else ():
                self.done(entry["id"], None, "the app was closed")

    def handle(self, header: dict[str, Any], payload: bytes) -> None:
        match header["op"]:
            case "start":
                self.start(header["events"], payload)
            case "cancel":
                self.cancel(header["event"])
            case "gone":
                for event in header["events"]:
                    self.leave(event)

    def start(self, entries: list[dict[str, Any]], payload: bytes) -> None:
        """Starts one Job. Each entry describes one Event; payload holds their bodies one after the other."""
        events, offset = [], 0
        for entry in entries:
            body = payload[offset : offset + entry["size"]]
            offset += entry["size"]
            try:
                events.append(self.admitted(entry) if entry["admitted"] else self.make(entry, body))
            except Exception as error:
                self.state.printer.print(error)
                self.done(entry["id"], None, f"{type(error).__name__}: {error}")
        if events:
            task = self.loop.create_task(self.run(events))
            self.tasks.update({event._id: task for event in events})
            task.add_done_callback(functools.partial(self.finish, events))
            self.busy.set()

    async def poll_progress(self) -> None:
        """Runs Gradio's progress polling (100 times a second) only while there are Jobs, so that an idle Space sleeps.

        Polling continues for up to a second after the last Job. A restart for each of many quick Jobs would cost more.
        """
        import asyncio

        while not self.queue.stopped:
            await self.busy.wait()
            polling = asyncio.ensure_future(self.queue.start_progress_updates())
            try:
                while self.busy.is_set():
                    await asyncio.sleep(1)
                    if not self.tasks:
                        self.busy.clear()
            finally:
                polling.cancel()

    def make(self, entry: dict[str, Any], body: bytes) -> Any:
        """Builds an Event as Gradio's join route and push would (gradio/routes.py queue_join, queueing.py push)."""
        import fastapi
        from gradio.data_classes import PredictBody, PredictBodyInternal

        queue, request = self.queue, fastapi.Request(self.scope(entry))
        given = json.loads(body)
        internal = PredictBodyInternal(**{n: given[n] for n in PredictBody.model_fields if n in given}, request=request)
        fn = self.module.route_utils.get_fn(self.blocks, None, internal)
        event = self.module.Event(internal.session_hash, fn, request, None)
        event._id, event.data = entry["id"], internal
        queue.create_event_queue_for_fn(fn)
        queue.pending_event_ids_session.setdefault(event.session_hash, set()).add(event._id)
        queue.event_ids_to_events[event._id] = event
        self.events[event._id] = event
        self.record(event)
        return event

    def record(self, event: Any) -> None:
        """Records an Event for /monitoring, as push does. Gradio 5 keeps all records; here the limit of Gradio 6 applies."""
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

    def scope(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Returns the ASGI scope that uvicorn would have made of the visitor's request."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": entry["scheme"],
            "path": entry["path"],
            "raw_path": entry["path"].encode(),
            "query_string": entry["query"].encode(),
            "root_path": self.report["mount"],
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in entry["headers"]],
            "client": (entry["client"], 0),
            "server": ("127.0.0.1", self.report["port"]),
            "state": dict(self.state.lifespans.get(self.report["port"], {})),
            "app": self.queue.server_app,
        }

    def admitted(self, entry: dict[str, Any]) -> Any:
        """Returns an Event that came through push, with its token. The host signs the token when the Job starts."""
        event = self.events.get(entry["id"])
        if event is None:
            raise LookupError("the app no longer has this call")
        request = event.request
        pairs = [pair for pair in request.scope["headers"] if pair[0] != b"x-ip-token"]
        request.scope["headers"] = pairs + [(b"x-ip-token", entry["token"].encode())]
        request.__dict__.pop("_headers", None)  # starlette caches the parsed headers
        return event

    def cancel(self, event_id: str) -> None:
        """Cancels an Event. alive is cleared first: a thread that waits for a GPU checks only alive."""
        self.leave(event_id)
        task = self.tasks.get(event_id)
        if task is not None and not self.events[event_id].fn.batch:  # other events of a batch continue
            task.cancel()

    def leave(self, event_id: str) -> None:
        event = self.events.get(event_id)
        if event is None:
            return
        event.alive = False
        if event_id not in self.tasks:  # admitted but not started
            self.forget(event)

    # Execution

    async def run(self, events: list[Any]) -> None:
        queue, fn, begin = self.queue, events[0].fn, time.time()
        group = queue.event_queue_per_concurrency_id[fn.concurrency_id]
        group.current_concurrency += 1  # process_events decrements it
        group.start_times_per_fn[fn].add(begin)
        self.occupy(events)
        self.running_ids.update(event._id for event in events)
        await queue.process_events(events, fn.batch, begin, *((fn,) if self.takes_fn else ()))

    def finish(self, events: list[Any], task: asyncio.Task[None]) -> None:
        """The done callback of run, also called if run was cancelled before its first step."""
        error = ""
        if task.cancelled():
            error = "cancelled"
        elif raised := task.exception():
            self.state.printer.print(raised)
            error = f"{type(raised).__name__}: {raised}"
        self.vacate(events)
        for event in events:
            self.forget(event)
            self.done(event._id, event.fn, error)

    def occupy(self, events: list[Any]) -> None:
        """Enters a Job in active_jobs, where spaces, Progress and gr.Info look up the event of a call."""
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
        self.enqueue({"op": "done", "event": event_id, "error": error, "average": average})

    def enqueue(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Sends a frame of this app, in order.

        Frames from the loop are written together after two iterations of the loop. Each write wakes the host, and the
        end of an event directly follows its last message.
        """
        parts = encode(header, payload)
        with self.send_lock:
            first = not self.unsent
            self.unsent += parts
        if _thread.get_ident() != self.thread:
            self.flush()
        elif first:
            self.loop.call_soon(self.loop.call_soon, self.flush)

    def flush(self) -> None:
        with self.send_lock:
            parts, self.unsent = self.unsent, []
            if parts and not self.state.forked:
                self.state.channel.write(parts)

    def forget(self, event: Any) -> None:
        queue, event_id, session = self.queue, event._id, event.session_hash
        with self.lock:
            self.running_ids.discard(event_id)
            self.early_messages.pop(event_id, None)
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

    # Calls from Gradio

    def send_message(self, event: Any, message: Any) -> None:
        """Replaces Queue.send_message. Gradio calls it on the loop, gr.Info and gr.Progress from other threads.

        Messages after process_completed are dropped: the host would treat them as a protocol violation. They occur
        because progress updates of a failed event continue for a moment, and threads of the app may call gr.Info.
        """
        kind = getattr(message.msg, "value", message.msg)
        if not event.alive or kind == "estimation" or self.state.forked:  # the host sends the queue ranks
            return
        import orjson

        message.event_id = event._id
        payload = orjson.dumps(message.model_dump(), default=str)
        header = {"op": "message", "event": event._id, "msg": kind, "success": getattr(message, "success", None)}
        with self.lock:
            if event._id in self.running_ids:
                if kind == "process_completed":
                    self.running_ids.discard(event._id)
                self.enqueue(header, payload)
            elif event._id not in self.events and event._id in self.queue.event_ids_to_events:
                # A cache hit sends its messages before push returns, and before the host knows the id.
                self.early_messages.setdefault(event._id, []).append((header, payload))

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Wraps Queue.push. Gradio validates, reads its cache and makes the Event, which then waits in the host's queue."""
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
        for header, payload in self.early_messages.pop(event_id, []):
            self.enqueue(header, payload)
        await queue.reset_iterators(event_id)
        self.forget(queue.event_ids_to_events[event_id])
        self.done(event_id, None, "")
        return result
