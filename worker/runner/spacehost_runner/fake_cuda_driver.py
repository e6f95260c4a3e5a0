"""Replaces torch.cuda in a worker: it returns the Device of spaces' emulation, without a driver."""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from .fake_cuda_messages import NOTE, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEGACY = {
    "FloatTensor": "float32", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16", "DoubleTensor": "float64",
    "LongTensor": "int64", "IntTensor": "int32", "ByteTensor": "uint8", "BoolTensor": "bool",
}
# Limits of compute capability 9.0 (CUDA C programming guide, technical specifications). Programs only read them.
LIMITS = {
    "L2_cache_size": 62914560, "warp_size": 32, "is_integrated": 0, "is_multi_gpu_board": 0, "gcnArchName": "",
    "regs_per_multiprocessor": 65536, "max_threads_per_multi_processor": 2048, "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 232448, "shared_memory_per_multiprocessor": 233472,
}


def install(torch: Any, patching: Any) -> None:
    """Patches torch.cuda of a new worker. No other process shares it."""
    cuda, device = torch.cuda, patching._device("cuda", 0)
    weights = patching._total_unpacked_size()
    values = _cuda_values(torch, device, weights)
    for name, value in values.items():
        if hasattr(cuda, name):
            setattr(cuda, name, _named(value, name))
    cuda.memory.memory_stats_as_nested_dict = lambda *_, **__: _static().CUDA_MEMORY_STATS_AS_NESTED_DICT
    for name in MEMORY:
        if hasattr(cuda.memory, name) and hasattr(cuda, name):
            setattr(cuda.memory, name, getattr(cuda, name))
    torch._C._cuda_init = _nothing
    for name, dtype in LEGACY.items():
        setattr(cuda, name, _legacy(torch, getattr(torch, name), getattr(torch, dtype)))
    for name in ("range_push", "range_pop", "mark", "range_start", "range_end"):
        if hasattr(getattr(cuda, "nvtx", None), name):
            setattr(cuda.nvtx, name, _named(_nothing, name))
    if hasattr(cuda, "nvtx"):
        cuda.nvtx.range = _scope
    accelerator = getattr(torch, "accelerator", None)
    for name, value in _accelerator_values(values, device).items():
        if hasattr(accelerator, name):
            setattr(accelerator, name, _named(value, name))
    torch.compile = _compile
    torch.nn.Module.compile = lambda self, *_, **__: None


MEMORY = (
    "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "mem_get_info", "empty_cache",
    "reset_peak_memory_stats",
)


def _static() -> Any:
    return sys.modules["spaces.zero.torch.static"]


def _nothing(*_: Any, **__: Any) -> None: ...


@contextlib.contextmanager
def _scope(*_: Any, **__: Any) -> Iterator[None]:
    yield


def _compile(model: Any = None, *_: Any, **__: Any) -> Any:
    """Returns model uncompiled: inductor would generate CPU code, where the program expects GPU code."""
    return (lambda function: function) if model is None else model


def _named(value: Any, name: str) -> Any:
    """Returns value as a function or class of its own for each name: torch.compile's tables reject shared ones."""
    if isinstance(value, type):
        return type(name, (value,), {})
    if not callable(value):
        return value

    def function(*args: Any, **kwargs: Any) -> Any:
        return value(*args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "torch.cuda"
    return function


def _legacy(torch: Any, cpu_type: Any, dtype: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: cpu_type(*args, **kwargs).to("cuda", dtype)


class Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        import time

        self.time = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return (end.time - self.time) * 1000

    def query(self) -> bool:
        return True

    synchronize = wait = _nothing


class Stream:
    """The only stream. Its work is always complete."""

    cuda_stream = stream_id = device_index = 0
    device_type = 1

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device, self.priority = device, priority

    synchronize = wait_stream = wait_event = _nothing

    def record_event(self, event: Any = None) -> Any:
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return 0


class Properties:
    def __init__(self) -> None:
        self.__dict__.update(vars(_static().CUDA_DEVICE_PROPERTIES))
        self.__dict__.update(LIMITS)


class Current:
    """Replaces torch.cuda.device and device_of."""

    def __init__(self, device: Any = None) -> None:
        self.idx = 0

    def __enter__(self) -> Current:
        return self

    def __exit__(self, *_: Any) -> bool:
        return False


class Graph:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise refusal("a CUDA graph needs an NVIDIA GPU")


def _cuda_values(torch: Any, device: Any, weights: int) -> dict[str, Any]:
    """Returns replacements by their names in torch.cuda. weights is the size of the tensors put on cuda at the app's start."""
    static, generator, default = _static(), torch.default_generator, Stream(device)
    properties = Properties()
    total = static.CUDA_TOTAL_MEMORY

    def always(value: Any) -> Callable[..., Any]:
        return lambda *_, **__: value

    def reseed(seed: int) -> None:
        generator.manual_seed(int(seed))

    values = dict.fromkeys(
        "init _lazy_init set_device synchronize empty_cache ipc_collect reset_peak_memory_stats reset_max_memory_allocated "
        "reset_accumulated_memory_stats set_per_process_memory_fraction set_stream".split(), _nothing)
    values |= {name: always(weights) for name in MEMORY[:4]}
    values |= {name: always(True) for name in ("is_available", "is_initialized", "is_bf16_supported", "is_tf32_supported")}
    values |= {name: always(False) for name in ("can_device_access_peer", "is_current_stream_capturing", "_is_in_bad_fork")}
    values |= {name: always(0) for name in ("current_device", "utilization", "_exchange_device", "_maybe_exchange_device")}
    return values | {
        "device_count": always(1),
        "get_device_name": always(static.CUDA_DEVICE_NAME),
        "get_device_capability": always(static.CUDA_DEVICE_CAPABILITY),
        "get_device_properties": always(properties),
        "get_arch_list": lambda: ["sm_{}{}".format(*static.CUDA_DEVICE_CAPABILITY)],
        "mem_get_info": always((total - weights, total)),
        "memory_summary": always(NOTE + "there is no CUDA memory to report"),
        "Stream": Stream, "ExternalStream": Stream, "Event": Event, "device": Current, "device_of": Current, "CUDAGraph": Graph,
        "current_stream": always(default), "default_stream": always(default), "stream": _scope,
        "make_graphed_callables": lambda functions, *_, **__: functions,
        "manual_seed": reseed, "manual_seed_all": reseed,
        "seed": lambda: reseed(generator.seed()), "seed_all": lambda: reseed(generator.seed()),
        "initial_seed": lambda: generator.initial_seed(),
        "get_rng_state": lambda *_, **__: generator.get_state(), "get_rng_state_all": lambda: [generator.get_state()],
        "set_rng_state": lambda state, *_, **__: generator.set_state(state),
        "set_rng_state_all": lambda states: generator.set_state(states[0]),
        "default_generators": (generator,),
    }


def _accelerator_values(cuda: dict[str, Any], device: Any) -> dict[str, Any]:
    """Returns replacements by their names in torch.accelerator, which exists since torch 2.6."""
    same = {
        "is_available": "is_available", "device_count": "device_count", "current_device_index": "current_device",
        "current_device_idx": "current_device", "set_device_index": "set_device", "set_device_idx": "set_device",
        "synchronize": "synchronize", "empty_cache": "empty_cache", "current_stream": "current_stream", "set_stream": "set_stream",
        "get_memory_info": "mem_get_info",
    } | {name: name for name in (*MEMORY[:4], "reset_peak_memory_stats")}
    return {name: cuda[of] for name, of in same.items()} | {
        "current_accelerator": lambda *_, **__: device.__class__("cuda"),
        "memory_stats": lambda *_, **__: {},
    }
