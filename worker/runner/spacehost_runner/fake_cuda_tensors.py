"""Marks CPU tensors with the device on which the program expects them, and checks operations by these marks."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fake_cuda_messages import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "_fake_device"  # an attribute of a tensor; absent: the device is unknown, which is never an error
CPU, CUDA = 1, 2

# Functions for which a GPU rejects tensors of two devices. Python functions that call them are checked by these calls.
CHECKED_FUNCTIONS = (
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d embedding layer_norm batch_norm group_norm "
    "scaled_dot_product_attention cross_entropy mse_loss l1_loss bilinear rms_norm"
)
CHECKED = (
    "add sub mul div matmul bmm mm addmm baddbmm addcmul cat stack where einsum dot outer maximum minimum pow "
    "eq ne lt gt le ge lerp gather scatter index_select add_ sub_ mul_ div_ addcmul_ lerp_ "
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __matmul__ __rmatmul__ __pow__ "
    "__floordiv__ __iadd__ __isub__ __imul__ __itruediv__ __eq__ __ne__ __lt__ __gt__ __le__ __ge__ __and__ __or__ __xor__"
)


class Marks:
    """Reads and writes marks, and moves tensors between the fake devices."""

    def __init__(self, torch: Any, patching: Any) -> None:
        self.torch, self.tensor, self.parameter = torch, torch.Tensor, torch.nn.Parameter
        self.device = patching._device  # the class itself: spaces may have replaced torch.device
        self.cpu, self.cuda = self.device("cpu"), self.device("cuda", 0)
        self.real = torch.Tensor.device.__get__

    def of(self, tensor: Any) -> int:
        return tensor.__dict__.get(MARK, 0)

    def known(self, tensor: Any) -> int:
        """Returns the mark. A Parameter without one is on the CPU: those on cuda were marked when they were moved."""
        return self.of(tensor) or (CPU if type(tensor) is self.parameter else 0)

    def put(self, tensor: Any, mark: int) -> None:
        if self.real(tensor).type == "cpu":
            setattr(tensor, MARK, mark)
        else:  # meta and similar devices are real
            tensor.__dict__.pop(MARK, None)

    def put_all(self, value: Any, mark: int) -> None:
        if isinstance(value, self.tensor):
            self.put(value, mark)
        elif isinstance(value, (list, tuple)):
            for one in value:
                self.put_all(one, mark)
        elif isinstance(value, dict):
            for one in value.values():
                self.put_all(one, mark)

    def place(self, device: Any) -> Any:
        """Converts 0, "cuda:0" or a device to a torch.device."""
        if isinstance(device, int) and not isinstance(device, bool):
            return self.device("cuda", device)
        return device if device is None or isinstance(device, self.device) else self.device(device)

    def move(self, tensor: Any, device: Any, dtype: Any, memory_format: Any, copy: bool) -> Any:
        """Implements Tensor.to. Between the two devices it always copies, as between two memories."""
        to, layout = self.tensor.to, {} if memory_format is None else {"memory_format": memory_format}
        have = self.known(tensor)
        if device is None:
            moved = to(tensor, copy=copy, **layout) if dtype is None else to(tensor, dtype=dtype, copy=copy, **layout)
            if moved is not tensor and have:
                self.put(moved, have)
            return moved
        want = {"cuda": CUDA, "cpu": CPU}.get(device.type, 0)
        crosses = (have == CUDA) != (want == CUDA) and self.real(tensor).type == "cpu"
        real = self.cpu if want == CUDA else device
        moved = to(tensor, device=real, dtype=dtype, copy=bool(copy or (want and crosses)), **layout)
        if want:
            self.put(moved, want)
        return moved


def make_mode(torch: Any, patching: Any) -> Any:
    """Returns the TorchFunctionMode that intercepts every torch call with a tensor argument, and every factory."""
    from torch.overrides import TorchFunctionMode

    marks = Marks(torch, patching)
    special = _special(torch, marks)
    checked = _checked(torch)
    fallback = _fallback(torch)
    Tensor, of = torch.Tensor, marks.of
    index = Tensor.__getitem__
    data_only = {getattr(torch._VF, name, None) for name in ("_pack_padded_sequence", "_pad_packed_sequence")}
    Parameter = torch.nn.Parameter

    class FakeCuda(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            handler = special.get(func)
            if handler is not None:
                return handler(func, args, kwargs or {})
            kwargs = kwargs or {}
            requested = 0
            if (device := kwargs.get("device")) is not None:
                device = marks.place(device)
                requested = {"cuda": CUDA, "cpu": CPU}.get(device.type, -1)
                kwargs = {**kwargs, "device": marks.cpu if requested == CUDA else device}
            if kwargs.get("pin_memory"):
                kwargs = {**kwargs, "pin_memory": False}
            # Among the arguments: a tensor on cuda, one on the CPU, and whether the latter has a dimension or is a number.
            some = on_cuda = on_cpu = number = False
            for value in (*args, *kwargs.values()):
                for one in value if isinstance(value, (list, tuple)) else (value,):
                    if isinstance(one, Tensor):
                        some, mark = True, of(one)
                        if mark == CUDA:
                            on_cuda = True
                        elif mark == CPU or type(one) is Parameter:
                            on_cpu, number = (True, number) if one.dim() else (on_cpu, True)
            if on_cuda and on_cpu and func in checked:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"(when checking {getattr(func, '__name__', func)}; simulated GPU)"
                )
            try:
                result = func(*args, **kwargs)
            except (RuntimeError, NotImplementedError) as error:
                result = fallback(func, args, kwargs, error)
            if requested == -1 or (args and result is args[0] and isinstance(result, Tensor) and of(result)):
                return result
            mark = requested or (CUDA if on_cuda else CPU if on_cpu or number or not some else 0)
            if func is index:
                mark = of(args[0]) or mark
            if not mark:
                return result
            if func in data_only and isinstance(result, tuple):  # lengths stay on the CPU
                marks.put(result[0], mark)
                marks.put_all(result[1:], CPU)
            elif isinstance(result, Tensor):
                if mark == CUDA or of(result) != CUDA:
                    marks.put(result, mark)
            elif isinstance(result, (list, tuple, dict)):
                marks.put_all(result, mark)
            return result

    return FakeCuda()


def _checked(torch: Any) -> set[Any]:
    functional = torch.nn.functional
    found = {getattr(functional, name, None) for name in CHECKED_FUNCTIONS.split()}
    for name in CHECKED.split():
        found |= {getattr(torch, name, None), getattr(torch.Tensor, name, None)}
    return found - {None}


def _special(torch: Any, marks: Marks) -> dict[Any, Callable[[Any, Any, Any], Any]]:
    """Returns the handlers of functions that read or change the mark itself."""
    return {**_move_handlers(torch, marks), **_device_handlers(torch, marks), **_export_handlers(torch, marks)}


def _move_handlers(torch: Any, marks: Marks) -> dict[Any, Callable[[Any, Any, Any], Any]]:
    """Returns the handlers of functions that move a tensor to a device, or parse the arguments of a move."""
    Tensor, parse = torch.Tensor, torch._C._nn._parse_to

    def to(func: Any, args: Any, kwargs: Any) -> Any:
        tensor, rest = args[0], list(args[1:])
        kwargs = dict(kwargs)
        copy = kwargs.pop("copy", False)
        other = kwargs.get("other", rest[0] if rest else None)
        if isinstance(other, Tensor):
            where = marks.cuda if marks.known(other) == CUDA else marks.real(other)
            return marks.move(tensor, where, other.dtype, kwargs.get("memory_format"), copy)
        if rest and isinstance(rest[0], int) and not isinstance(rest[0], bool):
            rest[0] = marks.place(rest[0])
        if "device" in kwargs:
            kwargs["device"] = marks.place(kwargs["device"])
        most = 2 if rest and isinstance(rest[0], torch.dtype) else 3  # the next argument is copy, which _parse_to lacks
        if len(rest) > most:
            copy, rest = rest[most], rest[:most]
        device, dtype, _, memory_format = parse(*rest, **kwargs)
        return marks.move(tensor, device, dtype, memory_format, copy)

    def cuda(func: Any, args: Any, kwargs: Any) -> Any:
        return marks.move(args[0], marks.cuda, None, kwargs.get("memory_format"), False)

    def cpu(func: Any, args: Any, kwargs: Any) -> Any:
        return marks.move(args[0], marks.cpu, None, kwargs.get("memory_format"), False)

    def parse_to(func: Any, args: Any, kwargs: Any) -> Any:
        if args and isinstance(args[0], int) and not isinstance(args[0], bool):
            args = (marks.place(args[0]), *args[1:])
        if "device" in kwargs:
            kwargs = {**kwargs, "device": marks.place(kwargs["device"])}
        return func(*args, **kwargs)

    def type_(func: Any, args: Any, kwargs: Any) -> Any:
        tensor, dtype = args[0], args[1] if len(args) > 1 else kwargs.get("dtype")
        if dtype is None:
            name = func(tensor)
            return name.replace("torch.", "torch.cuda.", 1) if marks.of(tensor) == CUDA and ".cuda." not in name else name
        if isinstance(dtype, str) and dtype.startswith("torch.cuda."):
            return marks.move(func(tensor, "torch." + dtype.removeprefix("torch.cuda.")), marks.cuda, None, None, False)
        result = func(*args, **kwargs)
        if result is not tensor and (mark := marks.known(tensor)):
            marks.put(result, mark)
        return result

    return {Tensor.to: to, Tensor.cuda: cuda, Tensor.cpu: cpu, Tensor.type: type_, parse: parse_to}


def _device_handlers(torch: Any, marks: Marks) -> dict[Any, Callable[[Any, Any, Any], Any]]:
    """Returns the handlers of properties that depend on the device, and of those that only a GPU gives a meaning."""
    Tensor = torch.Tensor

    def device(func: Any, args: Any, kwargs: Any) -> Any:
        return marks.cuda if marks.of(args[0]) == CUDA else marks.real(args[0])

    def is_cuda(func: Any, args: Any, kwargs: Any) -> bool:
        return marks.of(args[0]) == CUDA or func(*args, **kwargs)

    def is_cpu(func: Any, args: Any, kwargs: Any) -> bool:
        return marks.of(args[0]) != CUDA and func(*args, **kwargs)

    def get_device(func: Any, args: Any, kwargs: Any) -> int:
        return 0 if marks.of(args[0]) == CUDA else func(*args, **kwargs)

    def set_data(func: Any, args: Any, kwargs: Any) -> None:
        tensor, data = args
        mark = marks.known(data)
        tensor.data = data
        if mark:
            marks.put(tensor, mark)
        else:
            tensor.__dict__.pop(MARK, None)

    def same(func: Any, args: Any, kwargs: Any) -> Any:
        return args[0]

    handlers = {
        Tensor.device.__get__: device, Tensor.is_cuda.__get__: is_cuda, Tensor.is_cpu.__get__: is_cpu,
        Tensor.get_device: get_device, Tensor.data.__set__: set_data,
        Tensor.pin_memory: same, Tensor.is_pinned: lambda *_: False, Tensor.record_stream: lambda *_: None,
    }
    if hasattr(torch, "get_device"):
        handlers[torch.get_device] = get_device
    return handlers


def _export_handlers(torch: Any, marks: Marks) -> dict[Any, Callable[[Any, Any, Any], Any]]:
    """Returns the handlers of conversions to numpy arrays, text and pickles."""
    Tensor = torch.Tensor

    def numpy(func: Any, args: Any, kwargs: Any) -> Any:
        if marks.of(args[0]) == CUDA and not kwargs.get("force"):
            raise TypeError(  # torch's own message
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return func(*args, **kwargs)

    def text(func: Any, args: Any, kwargs: Any) -> str:
        shown = func(*args, **kwargs)
        if marks.of(args[0]) == CUDA and shown.endswith(")") and "device=" not in shown:
            shown = shown[:-1] + ", device='cuda:0')"
        return shown

    def reduce(func: Any, args: Any, kwargs: Any) -> Any:
        """Pickles without the mark, so that neither a saved file nor a result sent to the Space contains it."""
        tensor = args[0]
        mark = tensor.__dict__.pop(MARK, 0)
        try:
            return func(*args, **kwargs)
        finally:
            if mark:
                setattr(tensor, MARK, mark)

    return {Tensor.numpy: numpy, Tensor.__array__: numpy, Tensor.__repr__: text, Tensor.__reduce_ex__: reduce}


def _fallback(torch: Any) -> Callable[[Any, Any, Any, Exception], Any]:
    """Computes in single precision, then rounds, what this CPU build lacks in half precision and a GPU has."""
    halves = (torch.float16, torch.bfloat16)

    def is_missing(words: str) -> bool:
        return "not implemented for 'Half'" in words or "not implemented for 'BFloat16'" in words or (
            "not implemented for 'Float8" in words or "Unsupported dtype Half" in words or "Unsupported dtype BFloat16" in words
        )

    def fallback(func: Any, args: Any, kwargs: Any, error: Exception) -> Any:
        words = str(error)
        in_place = getattr(func, "__name__", "").endswith("_") or "out" in kwargs
        if is_missing(words) and not in_place:
            found: list[Any] = []

            def widen(value: Any) -> Any:
                if isinstance(value, torch.Tensor) and value.dtype in halves:
                    found.append(value.dtype)
                    return value.float()
                return type(value)(widen(one) for one in value) if type(value) in (list, tuple) else value

            def narrow(value: Any) -> Any:
                if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and found:
                    return value.to(found[0])
                return tuple(narrow(one) for one in value) if type(value) is tuple else value

            return narrow(func(*[widen(a) for a in args], **{name: widen(a) for name, a in kwargs.items()}))
        if "No viable backend for scaled_dot_product_attention" in words:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return func(*args, **kwargs)
        if "Could not run" in words and "'CPU' backend" in words:
            raise refusal(f"the operator {words.split(chr(39))[1]} has a CUDA kernel only") from error
        raise error

    return fallback


class Generators:
    """Replaces torch.Generator before the app can keep a reference to it. It behaves differently in workers only."""

    def __init__(self, torch: Any, patching: Any) -> None:
        self.in_worker = False
        Base, device_class = torch._C.Generator, patching._device

        class Meta(type(Base)):  # type: ignore[misc]
            def __instancecheck__(cls, one: Any) -> bool:
                return type.__instancecheck__(Base, one)

        generators = self

        class Generator(Base, metaclass=Meta):  # type: ignore[misc, valid-type]
            def __new__(cls, device: Any = None) -> Any:
                if device is None:
                    return Base.__new__(cls if generators.in_worker else Base)
                place = device_class("cuda", device) if isinstance(device, int) else device_class(device)
                if not generators.in_worker:
                    return Base.__new__(Base, place)
                one = Base.__new__(cls, device_class("cpu") if place.type == "cuda" else place)
                if place.type == "cuda":
                    setattr(one, MARK, CUDA)
                return one

            @property
            def device(self) -> Any:
                return device_class("cuda", 0) if getattr(self, MARK, 0) == CUDA else Base.device.__get__(self)

        torch.Generator = Generator

    def enter_worker(self) -> None:
        self.in_worker = True


def patch_other_constructors(torch: Any, patching: Any, mode: Any) -> None:
    """Marks tensors and storages made by constructors that bypass the mode."""
    Tensor, marks = torch.Tensor, Marks(torch, patching)
    make_subclass, asarray = patching._tensor_make_subclass, patching._asarray

    def make_marked(cls: Any, data: Any, requires_grad: bool = False, **kwargs: Any) -> Any:  # dynamo checks the signature
        with torch._C.DisableTorchFunction():
            made = make_subclass(cls, data, requires_grad, **kwargs)
            if mark := getattr(data, "__dict__", {}).get(MARK, 0):
                marks.put(made, mark)
        return made

    Tensor._make_subclass = staticmethod(make_marked)
    Tensor.record_stream = lambda self, stream: None
    torch.asarray = lambda *args, **kwargs: mode.__torch_function__(asarray, (), args, kwargs)
    _patch_storages(torch, marks)
    _patch_torchscript(torch, marks)
    _patch_device_contexts(mode)
    _patch_autocast(torch)


def _patch_storages(torch: Any, marks: Marks) -> None:
    """Makes storages on cuda: torch.load(map_location="cuda") creates them before the tensors."""
    Base, base_device = torch._C.StorageBase, torch._C.StorageBase.device

    def new(*args: Any, **kwargs: Any) -> Any:
        on_cuda = kwargs.get("device") is not None and marks.place(kwargs["device"]).type == "cuda"
        if on_cuda:
            kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        storage = Base.__new__(*args, **kwargs)
        if on_cuda:
            storage._zerogpu = True  # the name used by spaces; its patches read it
        return storage

    torch.UntypedStorage.__new__ = new
    torch.UntypedStorage.device = property(lambda self: marks.cuda if hasattr(self, "_zerogpu") else base_device.__get__(self))


def _patch_torchscript(torch: Any, marks: Marks) -> None:
    """Marks the results of TorchScript, which bypasses the mode. They are on cuda if an input is."""
    from torch.utils._pytree import tree_leaves

    def wrap(cls: Any) -> None:
        call = cls.__call__

        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = call(self, *args, **kwargs)
            if any(isinstance(one, torch.Tensor) and marks.of(one) == CUDA for one in tree_leaves((args, kwargs))):
                with torch._C.DisableTorchFunction():
                    marks.put_all(tree_leaves(result), CUDA)
            return result

        cls.__call__ = __call__

    for name in ("ScriptFunction", "ScriptMethod"):
        if hasattr(torch._C, name):
            wrap(getattr(torch._C, name))


def _patch_device_contexts(mode: Any) -> None:
    """Makes `with torch.device("cuda")` and torch.set_default_device effective: they are applied below the mode."""
    from torch.utils import _device as contexts

    original, factories = contexts.DeviceContext.__torch_function__, contexts._device_constructors()

    def __torch_function__(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.device.type != "cuda":
            return original(self, func, types, args, kwargs)
        kwargs = kwargs or {}
        if func in factories and kwargs.get("device") is None:
            return mode.__torch_function__(func, types, args, {**kwargs, "device": self.device})
        return func(*args, **kwargs)

    contexts.DeviceContext.__torch_function__ = __torch_function__


def _patch_autocast(torch: Any) -> None:
    """Applies autocast for cuda to the CPU."""
    autocast = torch.amp.autocast_mode.autocast
    enter, leave = autocast.__enter__, autocast.__exit__

    def __enter__(self: Any) -> Any:
        entered = enter(self)
        if self.device == "cuda":
            self._fake_cuda_before = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
            torch.set_autocast_enabled("cpu", self._enabled)
            torch.set_autocast_dtype("cpu", self.fast_dtype)
        return entered

    def __exit__(self: Any, *raised: Any) -> Any:
        if self.device == "cuda":
            enabled, dtype = self._fake_cuda_before
            torch.set_autocast_enabled("cpu", enabled)
            torch.set_autocast_dtype("cpu", dtype)
        return leave(self, *raised)

    autocast.__enter__, autocast.__exit__ = __enter__, __exit__
