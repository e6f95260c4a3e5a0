"""Import hooks: each patches one module of gradio, uvicorn or spaces right after the app has imported it.

Nothing of those packages is imported by us first, so the app's own import order stays what it is.
"""
from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from . import standin
from .files import static_paths
from .guard import Guard
from .seam import Seam, Unknown, version
from .wire import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .state import State

PUBLIC_PORT = 7860  # the port at which the Hub expects a Space (huggingface hub-docs, spaces-config-reference, app_port)


def install(state: State) -> None:
    patches = {
        "gradio.component_meta": _patch_stubs,
        "gradio.events": _patch_docs,
        "gradio.queueing": _patch_queue,
        "gradio.blocks": _patch_blocks,
        "gradio.routes": _patch_routes,
        "gradio.utils": _patch_utils,
        "gradio.http_server": _patch_http_server,
        "uvicorn.config": _patch_uvicorn,
        "spaces.zero.client": _patch_client,
        "spaces.zero.config": _patch_hardware,
        "spaces.zero.decorator": _patch_decorator,
        "spaces.zero.wrappers": _patch_worker,
    }
    finder = Finder({name: functools.partial(patch, state) for name, patch in patches.items()})
    finder.around["gradio"] = _without_collections
    if state.simulated:
        finder.around["spaces.zero.torch"] = standin.prepared
        finder.patches["spaces.zero.torch"] = functools.partial(standin.install, finder.patches)
    sys.meta_path.insert(0, finder)


class Finder:
    """Lets the ordinary finders find, and patches what they load; around is the context that a module is imported in.

    It stays: an import that failed half-way, or an app that has upgraded Gradio with pip, imports a second time.
    """

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self.patches = patches
        self.around: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {}

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self.patches and name not in self.around:
            return None
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next((found for f in others if (found := f.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader, execute, patch = spec.loader, spec.loader.exec_module, self.patches.get(name)

        def exec_module(module: Any) -> None:
            loader.__dict__.pop("exec_module", None)  # set below: the loader is as it was
            with self.around.get(name, contextlib.nullcontext)():
                execute(module)
            if patch is not None:
                patch(module)

        loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """An import makes a million objects that stay: to look among them for garbage takes a sixth of its time."""
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _patch_stubs(state: State, module: Any) -> None:
    """No stubs for editors of Gradio's own components: to compare them takes a third of `import gradio`, each time.

    They came with the package, and Spaces that share an environment would write them at once. An app's own components
    get theirs, as it may rely on what Gradio says of a class that it cannot find.
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
    """The same 36 texts say what the 216 events of Gradio's components do: each is made a template once."""
    if hasattr(module, "Template"):
        module.Template = functools.cache(module.Template)


def _patch_queue(state: State, module: Any) -> None:
    """Queue.start runs on the server's own loop, for launches, mounts and relaunches alike: there we attach.

    Patched on the class; spaces replaces only set_progress and log_message there, in its workers.
    """
    original = module.Queue.start

    @functools.wraps(original)
    def start(queue: Any) -> None:
        try:
            seam = Seam(state, module, queue)
        except Exception as error:  # a Gradio that we do not know: its own queue does the work
            reason = str(error) if isinstance(error, Unknown) else f"{type(error).__name__}: {error}"
            port = state.port_of(getattr(queue, "blocks", None))
            state.send({"op": "unknown", "gradio": version(), "port": port, "further": state.is_further(port), "reason": reason, "tasks": state.tasks})
            return original(queue)
        queue.active_jobs = [None] * queue.max_thread_count
        module.run_coro_in_background(seam.look_for_progress)
        seam.attach()

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
            return original(self, *args, **kwargs)  # raises it in the app's own words
        arguments.update(arguments.pop("kwargs", {}))
        arguments.pop("self")
        arguments.update(_overrides(state, signature, arguments.get("server_port")))
        state.launching.add(id(self))
        try:
            result = original(self, **arguments)
        finally:
            _launched(self)
        return _with_public_url(result, state)

    def _launched(blocks: Any) -> None:
        """The launch is over, or about to block the main thread for good: visitors' address from here on."""
        if id(blocks) in state.launching:
            state.launching.discard(id(blocks))
            _publish(blocks, state)

    @functools.wraps(block_thread)
    def block(self: Any, *args: Any, **kwargs: Any) -> Any:
        _launched(self)
        return block_thread(self, *args, **kwargs)

    close = Blocks.close

    @functools.wraps(close)
    def close_told(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Before its server ends: from here on the host starts nothing, and keeps who waits."""
        attached = [seam for seam in state.seams if seam.blocks is self]
        if attached and getattr(self, "is_running", False):
            attached[-1].flush()
            state.send({"op": "closed", "app": attached[-1].number})
        return close(self, *args, **kwargs)

    Blocks.launch, Blocks.block_thread, Blocks.close = launch, block, close_told
    _watch_config(state, Blocks)


def _watch_config(state: State, Blocks: Any) -> None:
    """Tells the host when Gradio makes a config anew while the app runs (workflow_api.py, _refresh_app)."""
    original = getattr(Blocks, "get_config_file", None)
    if original is None:
        return

    @functools.wraps(original)
    def get_config_file(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(self, *args, **kwargs)
        for seam in state.seams:
            if seam.blocks is self:
                seam.changed()
        return config

    Blocks.get_config_file = get_config_file


def _overrides(state: State, signature: Any, asked: Any) -> dict[str, Any]:
    port = state.take_port(public=asked in (None, PUBLIC_PORT))
    forced = {"server_name": "127.0.0.1", "server_port": port, "share": False, "inbrowser": False, "quiet": True}
    # ssr_mode puts Node in front of Python, num_workers adds servers beside it, TLS is the front's: the host is the front.
    off = {"ssr_mode": False, "num_workers": 0, "ssl_keyfile": None, "ssl_certfile": None}
    return forced | {name: value for name, value in off.items() if name in signature.parameters}


def _publish(blocks: Any, state: State) -> None:
    """Gives the app the address at which visitors reach it; MCP tools call themselves there too."""
    if getattr(blocks, "local_url", None):
        blocks.local_url = state.public_url
    mcp = getattr(blocks, "mcp_server_obj", None)
    if mcp is not None:
        mcp._local_url, mcp._client_instance = state.public_url, None


def _with_public_url(result: Any, state: State) -> Any:
    if isinstance(result, tuple) and len(result) == 3 and result[1]:
        return type(result)((result[0], state.public_url, result[2]))
    return result


def _patch_routes(state: State, module: Any) -> None:
    import inspect

    create, mount = module.App.create_app, module.mount_gradio_app
    signature = inspect.signature(mount)

    @functools.wraps(create)
    def create_app(blocks: Any, *args: Any, **kwargs: Any) -> Any:
        state.apps[id(blocks)] = app = create(blocks, *args, **kwargs)
        return app

    @functools.wraps(mount)
    def mount_gradio_app(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        state.mounts[id(arguments["blocks"])] = arguments["path"].rstrip("/")
        return mount(*args, **kwargs)

    module.App.create_app = staticmethod(create_app)
    module.mount_gradio_app = mount_gradio_app


def _patch_utils(state: State, module: Any) -> None:
    """What an app makes static while it runs, the host must hear of: it serves files and checks those that come in."""
    original = module.set_static_paths

    @functools.wraps(original)
    def set_static_paths(paths: Any) -> None:
        original(paths)
        if state.seams:  # else the manifest says it
            state.send({"op": "static", "paths": static_paths()})

    module.set_static_paths = set_static_paths


def _patch_http_server(state: State, module: Any) -> None:
    """No hot-reload server: with SYSTEM=spaces it listens on 0.0.0.0:7887 and writes and runs code for whoever asks.

    (gradio/utils.py watchfn_spaces, spaces/reloading/server.py.) On the Hub a firewall stands before it.
    """
    if hasattr(module, "watchfn_spaces"):
        module.watchfn_spaces = lambda reloader: None
    _wait_for_server(module)


def _wait_for_server(module: Any) -> None:
    """Gradio gives its server five seconds to come up, then starts another at the next port while the first still does.

    On a machine with much else to do the visitors' server would be one that nobody has heard of. The host bounds the start.
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
    """One HTTP client for the process: spaces makes one for each request, which takes it longer than the request does. A
    forked worker makes its own.
    """
    original, kept = getattr(module, "api_client", None), (0, None)
    if original is None:
        return

    @functools.wraps(original)
    def api_client() -> Any:
        nonlocal kept
        pid, client = kept
        if pid != os.getpid():
            client = original()
            whole = getattr(client, "client", None)
            if not isinstance(whole, module.httpx.Client) or whole.base_url.scheme != "http":
                return client  # another spaces: as it does
            client.client = Client(whole)
            kept = os.getpid(), client
        return client

    module.api_client = api_client


def _patch_uvicorn(state: State, module: Any) -> None:
    """Guards the servers of this Space, and moves one that the app starts at the public port behind the host."""
    import inspect

    Config = module.Config
    init, load = Config.__init__, Config.load
    signature = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if bound.arguments.get("port") == PUBLIC_PORT:
            bound.arguments.update(host="127.0.0.1", port=state.take_port(), uds=None, ssl_keyfile=None, ssl_certfile=None)
        init(*bound.args, **bound.kwargs)

    @functools.wraps(load)
    def load_guarded(self: Any) -> None:
        load(self)
        if self.port in state.ports:
            self.loaded_app = Guard(self.loaded_app, state)

    Config.__init__, Config.load = __init__, load_guarded


def _patch_hardware(state: State, module: Any) -> None:
    """Lets spaces take the hardware that the host names for that of the machine.

    It reads the first card below /proc/driver/nvidia, and of its own ZEROGPU_CUDA_* variables it makes nothing any more
    (spaces 0.51.3, zero/config.py). What goes with a card that it knows, as the factor of durations, it still knows itself.
    """
    name = os.environ.get("ZEROGPU_CUDA_DEVICE_NAME")
    if not (name and hasattr(module, "get_config") and hasattr(module, "_read_gpu_information")):
        return  # another spaces: then the variables must do
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


MAX_TASKS = 500  # that the host is told of


def _patch_decorator(state: State, module: Any) -> None:
    """Notes which functions want a GPU, and for how long: /schedule tells the host a number alone (spaces/zero/wrappers.py)."""
    original = getattr(module, "_GPU", None)
    if original is None:
        return

    @functools.wraps(original)
    def decorate(task: Any, duration: Any, size: Any) -> Any:
        decorated = original(task, duration, size)
        with contextlib.suppress(Exception):  # whatever a Space may decorate
            if decorated is not task and len(state.tasks) < MAX_TASKS:
                state.tasks[str(id(task))] = {"name": str(task.__name__)[:100], "seconds": _seconds(duration), "size": size or ""}
        return decorated

    module._GPU = decorate


def _seconds(duration: Any) -> float | None:
    """What get_duration_seconds makes of it (spaces/zero/client.py); None if each call says its own."""
    if duration is None:
        return 60
    if callable(duration):
        return None
    return float(getattr(duration, "seconds", duration))


def _patch_worker(state: State, module: Any) -> None:
    """Gives a GPU worker a process group, before it tells the host its pid, and shows it its Device.

    In the Space's group it could only be killed together with the Space. Where there are no cgroups it becomes the
    subreaper of what it starts, too: daemons come to it when their parents leave, and go with it. spaces names the Device only where
    torch is installed; onnxruntime or JAX need it too.
    """
    original = module.worker_init

    @functools.wraps(original)
    def worker_init(res_queue: Any, allow_token: str, nvidia_uuid: str, fds: list[int]) -> Any:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        if state.subreaper:
            _adopt_orphans()
        os.environ["CUDA_VISIBLE_DEVICES"] = nvidia_uuid
        return original(res_queue, allow_token, nvidia_uuid, fds)

    module.worker_init = worker_init
    if hasattr(module, "Worker") and hasattr(module, "client"):
        _expect_workers(module, CLAIM)


CLAIM = 35  # seconds: the host takes a lease back that no worker has claimed in 30 (internal/lease/scheduler.go, claimTimeout)


def _expect_workers(module: Any, patience: float) -> None:
    """Ends a worker that does not come to its /allow. Forked beside other threads it may wait for a lock that one of them
    held, and its visitor, and whoever is next in line, for it.
    """
    import _thread
    import select
    import threading  # spaces has by now

    init, allow, forking = module.Worker.__init__, module.client.allow, threading.local()

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        told, tell = forking.pipe = os.pipe()  # the child goes on in this thread
        try:
            init(self, *args, **kwargs)
            _thread.start_new_thread(expect, (self.process, told))
        except BaseException:
            os.close(told)
            raise
        finally:
            forking.pipe = None
            os.close(tell)

    def expect(process: Any, told: int) -> None:
        heard = select.poll()
        heard.register(told, select.POLLIN)
        came = heard.poll(patience * 1000)
        os.close(told)
        if not came and process.is_alive():
            print(f"A GPU worker did not begin within {patience:g} s and was ended. Did it wait for a lock that a thread of the app held?", file=sys.stderr, flush=True)
            process.kill()

    @functools.wraps(allow)
    def allow_told(allow_token: str) -> None:
        allow(allow_token)
        if pipe := getattr(forking, "pipe", None):
            forking.pipe = None
            os.write(pipe[1], b"1")
            os.close(pipe[0])
            os.close(pipe[1])

    module.Worker.__init__, module.client.allow = __init__, allow_told


def _adopt_orphans() -> None:
    """prctl(PR_SET_CHILD_SUBREAPER, 1), for the process that calls it; its children do not inherit it."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
