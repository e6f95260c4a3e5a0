"""Patches modules of gradio, uvicorn and spaces right after the app has imported them.

The runner never imports these packages first, so the app's own import order is preserved.
"""
from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from . import cuda_order, data_folder, deferred_app, fake_cuda, frontend
from .files import static_paths
from .http_client import Client
from .hub import patch_external
from .importing import Finder
from .programs import add_path
from .queue_adapter import QueueAdapter, UnsupportedGradio, version
from .servers import PUBLIC_PORT, patch_config, patch_networking, patch_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .state import State


def install(state: State) -> None:
    patches = {
        "gradio.component_meta": _patch_stubs,
        "gradio.events": _patch_docs,
        "gradio.queueing": _patch_queue,
        "gradio.blocks": _patch_blocks,
        "gradio.mcp": lambda state, module: frontend.patch_mcp(module),
        "gradio.external": patch_external,
        "gradio.routes": _patch_routes,
        "gradio.utils": _patch_utils,
        "gradio.http_server": _patch_http_server,
        "gradio.networking": patch_networking,
        "subprocess": add_path,
        "uvicorn.config": patch_config,
        "uvicorn.server": patch_server,
        "spaces.zero.client": _patch_client,
        "spaces.zero.config": _patch_hardware,
        "spaces.zero.decorator": _patch_decorator,
        "spaces.zero.gradio": lambda state, module: state.printer.patch_errors(module),
        "spaces.zero.wrappers": _patch_worker,
    }
    finder = Finder({name: functools.partial(patch, state) for name, patch in patches.items()}, {"gradio": _gc_paused})
    if state.simulated:
        order = cuda_order.Trace(os.getcwd())
        if state.observer is not None:
            order.observe = state.observer.cuda
        finder.patches["torch"] = order.begin
        finder.contexts["spaces.zero"] = order.named
        finder.contexts["spaces.zero.torch"] = functools.partial(fake_cuda.import_context, order)
        finder.patches["spaces.zero.torch"] = functools.partial(fake_cuda.install, finder.patches, order)
    if state.observer is not None:
        from . import observe_hooks

        observe_hooks.install(state.observer, finder.patches)
    sys.meta_path.insert(0, finder)
    if os.environ.get("SPACES_ZERO_GPU") and not state.storage:  # set by the host
        data_folder.install(state.strict)


@contextlib.contextmanager
def _gc_paused() -> Iterator[None]:
    """Pauses garbage collection. An import makes a million objects that stay; collection takes a sixth of its time."""
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _patch_stubs(state: State, module: Any) -> None:
    """Skips the editor stubs of Gradio's own components. Comparing them takes a third of each `import gradio`.

    They are part of the package, and Spaces that share an environment would write them at the same time. An app's own
    components still get stubs: the app may rely on the error that Gradio raises for a class that it cannot find.
    """
    original = getattr(module, "create_or_modify_pyi", None)
    if original is None:
        return

    @functools.wraps(original)
    def create_or_modify_pyi(component_class: type, *args: Any, **options: Any) -> None:
        if component_class.__module__.partition(".")[0] != "gradio":
            original(component_class, *args, **options)

    module.create_or_modify_pyi = create_or_modify_pyi


def _patch_docs(state: State, module: Any) -> None:
    """Caches docstring templates. The 216 events of Gradio's components share the same 36 texts."""
    if hasattr(module, "Template"):
        module.Template = functools.cache(module.Template)


def _patch_queue(state: State, module: Any) -> None:
    """Attaches a queue adapter in Queue.start, which runs on the server's own loop for launches, mounts and relaunches.

    The patch is on the class. spaces replaces only set_progress and log_message there, in its workers.
    """
    original = module.Queue.start
    state.printer.patch(module)

    @functools.wraps(original)
    def start(queue: Any) -> None:
        try:
            adapter = QueueAdapter(state, module, queue)
        except Exception as error:  # an unsupported Gradio keeps its own queue
            reason = str(error) if isinstance(error, UnsupportedGradio) else f"{type(error).__name__}: {error}"
            port = state.port_of(getattr(queue, "blocks", None))
            state.send({"op": "unknown", "gradio": version(), "port": port, "further": state.is_further(port), "reason": reason, "tasks": state.tasks})
            return original(queue)
        queue.active_jobs = [None] * queue.max_thread_count
        module.run_coro_in_background(adapter.poll_progress)
        adapter.attach()

    module.Queue.start = start


def _patch_blocks(state: State, module: Any) -> None:
    import inspect

    Blocks = module.Blocks
    original, block_thread = Blocks.launch, Blocks.block_thread
    signature = inspect.signature(original)

    @functools.wraps(original)
    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            arguments = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return original(self, *args, **kwargs)  # raises the error that the app would see without the runner
        arguments.update(arguments.pop("kwargs", {}))
        arguments.pop("self")
        for argument, value, note in _ignored_addresses(arguments.get("server_port"), arguments.get("server_name")):
            print("spacehost: " + note, file=sys.stderr, flush=True)
            if state.observer is not None:
                state.observer.address(argument, value)
        arguments.update(_overrides(state, signature, arguments.get("server_port")))
        state.launching.add(id(self))
        try:
            result = original(self, **arguments)
        finally:
            _launched(self)
        return _with_public_url(result, state)

    def _launched(blocks: Any) -> None:
        """Sets the visitors' address: the launch has returned, or is about to block the main thread for good."""
        if id(blocks) in state.launching:
            state.launching.discard(id(blocks))
            _publish(blocks, state)

    @functools.wraps(block_thread)
    def block(self: Any, *args: Any, **kwargs: Any) -> Any:
        _launched(self)
        return block_thread(self, *args, **kwargs)

    close = Blocks.close

    @functools.wraps(close)
    def close_and_report(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Sends `closed` before the server ends: the host then starts no Events, and keeps those that wait."""
        attached = [adapter for adapter in state.adapters if adapter.blocks is self]
        if attached and getattr(self, "is_running", False):
            attached[-1].flush()
            state.liveness.detached(attached[-1].loop)
            state.send({"op": "closed", "app": attached[-1].number})
        return close(self, *args, **kwargs)

    Blocks.launch, Blocks.block_thread, Blocks.close = launch, block, close_and_report
    _watch_config(state, Blocks)
    frontend.hide_space_id(Blocks)


def _watch_config(state: State, Blocks: Any) -> None:
    """Notifies the host when Gradio rebuilds a config while the app runs (workflow_api.py, _refresh_app)."""
    original = getattr(Blocks, "get_config_file", None)
    if original is None:
        return

    @functools.wraps(original)
    def get_config_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(self, *args, **kwargs)
        for adapter in state.adapters:
            if adapter.blocks is self:
                adapter.changed()
        return config

    Blocks.get_config_file = get_config_file


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _ignored_addresses(port: Any, name: Any) -> Iterator[tuple[str, Any, str]]:
    """Returns name, value and a sentence for each argument of launch with which the Hub would not find the app (hub-docs, spaces-config-reference, app_port)."""
    if port not in (None, PUBLIC_PORT):
        yield "server_port", port, (
            f"launch(server_port={port!r}): the Hub expects a Gradio Space on port {PUBLIC_PORT} and ends this one with \"Launch timed out, "
            "workload was not healthy after 30 min\". The argument is ignored here; remove it."
        )
    if name in LOOPBACK:
        yield "server_name", name, (
            f"launch(server_name={name!r}): the Hub reaches a Space from outside of its container, so this one would not be healthy "
            "there. The argument is ignored here; remove it."
        )


def _overrides(state: State, signature: Any, requested: Any) -> dict[str, Any]:
    """Returns the arguments of launch that the host determines. requested is the app's server_port."""
    port = state.take_port(public=requested in (None, PUBLIC_PORT))
    forced = {"server_name": "127.0.0.1", "server_port": port, "share": False, "inbrowser": False, "quiet": True}
    # ssr_mode puts Node in front of Python, num_workers adds servers beside it. The host is the front, and serves TLS.
    off = {"ssr_mode": False, "num_workers": 0, "ssl_keyfile": None, "ssl_certfile": None}
    return forced | {name: value for name, value in off.items() if name in signature.parameters}


def _publish(blocks: Any, state: State) -> None:
    """Sets the visitors' address as the app's own. MCP tools call their app at the address that this machine reaches."""
    local = getattr(blocks, "local_url", None)
    if local:
        blocks.local_url = state.public_url
        api = getattr(blocks, "local_api_url", None)  # Gradio 4 has none
        if api and api.startswith(local):
            blocks.local_api_url = state.public_url.rstrip("/") + "/" + api[len(local) :].lstrip("/")
    mcp = getattr(blocks, "mcp_server_obj", None)
    if mcp is not None:
        mcp._local_url, mcp._client_instance = state.local_url, None


def _with_public_url(result: Any, state: State) -> Any:
    if isinstance(result, tuple) and len(result) == 3 and result[1]:
        return type(result)((result[0], state.public_url, result[2]))
    return result


def _patch_routes(state: State, module: Any) -> None:
    import inspect

    state.printer.patch(module)
    deferred_app.patch(state, module)
    mount = module.mount_gradio_app
    signature = inspect.signature(mount)

    @functools.wraps(mount)
    def mount_gradio_app(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        state.mounts[id(arguments["blocks"])] = arguments["path"].rstrip("/")
        return mount(*args, **kwargs)

    module.mount_gradio_app = mount_gradio_app


def _patch_utils(state: State, module: Any) -> None:
    """Reports static paths set while the app runs. The host serves files, and checks incoming paths, by this list."""
    original = module.set_static_paths

    @functools.wraps(original)
    def set_static_paths(paths: Any) -> None:
        original(paths)
        if state.adapters:  # else the manifest contains them
            state.send({"op": "static", "paths": static_paths()})

    module.set_static_paths = set_static_paths


def _patch_http_server(state: State, module: Any) -> None:
    """Disables the hot-reload server. With SYSTEM=spaces it listens on 0.0.0.0:7887 and runs code without authentication.

    See gradio/utils.py watchfn_spaces and spaces/reloading/server.py. On the Hub a firewall protects it.
    """
    if hasattr(module, "watchfn_spaces"):
        module.watchfn_spaces = lambda reloader: None
    _wait_for_server(module)


def _wait_for_server(module: Any) -> None:
    """Waits for a slow server. After five seconds Gradio would start another at the next port, beside the first.

    On a busy machine the app would then run at a port unknown to the host. The host limits the duration of the start.
    """
    import time

    original = module.Server.run_in_thread

    @functools.wraps(original)
    def run_in_thread(self: Any) -> None:
        try:
            original(self)
        except module.ServerFailedToStartError:
            while not self.started and self.thread.is_alive():
                time.sleep(0.01)
            if not self.started:
                raise

    module.Server.run_in_thread = run_in_thread


def _patch_client(state: State, module: Any) -> None:
    """Patches the client of the device API: its HTTP client, and the text of one error."""
    _separate_hint(module)
    _cache_client(module)


def _separate_hint(module: Any) -> None:
    """Adds the separator that spaces 0.51.3 lacks before its hint for API and MCP clients. spaces 0.52 has it."""
    original = getattr(module, "error", None)
    if original is None:
        return

    @functools.wraps(original)
    def error(title: str, message: str, *args: Any, **options: Any) -> Any:
        return original(title, message.replace("maximum allowedSubscribe", "maximum allowed. Subscribe"), *args, **options)

    module.error = error


def _cache_client(module: Any) -> None:
    """Makes one HTTP client per process. spaces makes one per request, which takes longer than the request itself.

    A forked worker makes its own.
    """
    original, cached = getattr(module, "api_client", None), (0, None)
    if original is None:
        return

    @functools.wraps(original)
    def api_client() -> Any:
        nonlocal cached
        pid, client = cached
        if pid != os.getpid():
            client = original()
            whole = getattr(client, "client", None)
            if not isinstance(whole, module.httpx.Client) or whole.base_url.scheme != "http":
                return client  # an unknown release of spaces: no cache
            client.client = Client(whole)
            cached = os.getpid(), client
        return client

    module.api_client = api_client


def _patch_hardware(state: State, module: Any) -> None:
    """Replaces the hardware detection of spaces by the hardware that the host names.

    spaces reads the first card below /proc/driver/nvidia, and ignores its own ZEROGPU_CUDA_* variables (spaces 0.51.3,
    zero/config.py). For a card that it knows it still determines the rest itself, such as the factor of durations.
    """
    name = os.environ.get("ZEROGPU_CUDA_DEVICE_NAME")
    if not (name and hasattr(module, "get_config") and hasattr(module, "_read_gpu_information")):
        return  # an unknown release of spaces: the variables must suffice
    module._read_gpu_information = lambda: f"Model: {name}"
    original, numbers = module.get_config, {
        "memory": "TOTAL_MEMORY", "sm_major": "CAPABILITY_MAJOR", "sm_minor": "CAPABILITY_MINOR", "sm_count": "MULTI_PROCESSOR_COUNT",
    }

    @functools.cache
    @functools.wraps(original)
    def get_config() -> dict[str, Any]:
        seen = {key: int(value) for key, word in numbers.items() if (value := os.environ.get(f"ZEROGPU_CUDA_{word}"))}
        return {**original(), "model": name, **seen}

    module.get_config = get_config


MAX_TASKS = 500  # reported to the host


def _patch_decorator(state: State, module: Any) -> None:
    """Records the name and duration of each GPU function: /schedule sends only a number (spaces/zero/wrappers.py)."""
    original = getattr(module, "_GPU", None)
    if original is None:
        return

    @functools.wraps(original)
    def decorate(task: Any, duration: Any, *args: Any, **options: Any) -> Any:
        size = options.get("size", next(iter(args), None))  # before spaces 0.47 there is no size
        decorated = original(task, duration, *args, **options)
        with contextlib.suppress(Exception):  # a Space may decorate any object
            if decorated is not task and len(state.tasks) < MAX_TASKS:
                state.tasks[str(id(task))] = {"name": str(task.__name__)[:100], "seconds": _seconds(duration), "size": size or ""}
        return decorated

    module._GPU = decorate


def _seconds(duration: Any) -> float | None:
    """Returns the seconds of get_duration_seconds (spaces/zero/client.py); None if each call computes its own."""
    if duration is None:
        return 60
    if callable(duration):
        return None
    return float(getattr(duration, "seconds", duration))


def _patch_worker(state: State, module: Any) -> None:
    """Gives a GPU worker a process group, before it sends its pid to the host, and sets its CUDA_VISIBLE_DEVICES.

    In the Space's process group it could only be killed together with the Space. Without cgroups it also becomes the
    subreaper of its descendants: daemons are reparented to it and are killed with it. spaces sets the Device only
    where torch is installed; onnxruntime and JAX need it, too.

    The Device is found by the parameter's name: spaces 0.51 passes it as the third argument, 0.52 by keyword.
    """
    import inspect

    original = module.worker_init
    signature = inspect.signature(original)

    @functools.wraps(original)
    def worker_init(*args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        if state.subreaper:
            _adopt_orphans()
        if device := signature.bind(*args, **kwargs).arguments.get("nvidia_uuid"):  # else an unknown release of spaces
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        return original(*args, **kwargs)

    module.worker_init = worker_init
    state.printer.patch_worker(module)
    if hasattr(module, "Worker") and hasattr(module, "client"):
        _kill_stuck_workers(module, CLAIM_TIMEOUT)


CLAIM_TIMEOUT = 35  # seconds: the host revokes a lease that no worker has claimed within 30 (internal/lease, claimTimeout)


def _kill_stuck_workers(module: Any, timeout: float) -> None:
    """Kills a worker that does not call /allow in time.

    A worker forked while other threads run may wait for a lock that one of them held at the fork. Its visitor, and the
    next calls of the queue, would wait with it.
    """
    import _thread
    import select
    import threading  # spaces has imported it already

    init, allow, forking = module.Worker.__init__, module.client.allow, threading.local()

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        reading, writing = forking.pipe = os.pipe()  # the child continues in this thread
        try:
            init(self, *args, **kwargs)
            _thread.start_new_thread(wait_for_allow, (self.process, reading))
        except BaseException:
            os.close(reading)
            raise
        finally:
            forking.pipe = None
            os.close(writing)

    def wait_for_allow(process: Any, reading: int) -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        allowed = poll.poll(timeout * 1000)
        os.close(reading)
        if not allowed and process.is_alive():
            print(
                f"A GPU worker did not start within {timeout:g} s after its fork and was killed. It may wait for a lock that another "
                "thread of the app held at the fork; check the threads that the app starts.",
                file=sys.stderr, flush=True,
            )
            process.kill()

    @functools.wraps(allow)
    def allow_and_notify(allow_token: str) -> None:
        allow(allow_token)
        if pipe := getattr(forking, "pipe", None):
            forking.pipe = None
            os.write(pipe[1], b"1")
            os.close(pipe[0])
            os.close(pipe[1])

    module.Worker.__init__, module.client.allow = __init__, allow_and_notify


def _adopt_orphans() -> None:
    """Calls prctl(PR_SET_CHILD_SUBREAPER, 1) for this process. Children do not inherit the setting."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
