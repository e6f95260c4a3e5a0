"""Records the first use of CUDA before `import spaces`, which ends a Space on ZeroGPU.

spaces refuses its import if CUDA was initialized before (spaces 0.51.3, zero/__init__.py): ZeroGPU forks the GPU
workers, and CUDA does not survive a fork. With a CUDA build of torch that check works without a driver, and the record
only names the line. A build without CUDA never initializes it, so there the record is the check.

Which calls count was measured with torch 2.9.1+cu128: all reach torch.cuda.is_available, torch.accelerator.is_available,
torch.cuda._lazy_init, torch._C._cuda_init or torch._C._cuda_getDeviceCount (docs/design/0018-what-zerogpu-refuses.md).
"""
from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REFUSAL = "CUDA has been initialized before importing the `spaces` package"  # spaces 0.51.3, zero/__init__.py
NO_GPU = "No CUDA GPUs are available"  # the words of a CUDA build of torch that has a driver and no GPU, as on ZeroGPU


class Trace:
    """The first use of CUDA in this process. root is the Space's folder."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.first = ""  # what was called, and where; "" before the first use
        self.ended = False
        self.places = ("", "", "")  # of that use: of a library, of the app, and torch's function
        self.observe: Callable[[str, str, str, str], None] | None = None  # of `spacehost check`: the places, and where spaces is imported
        self.originals: list[tuple[Any, str, Any, Any]] = []  # module, name, original, wrapper

    def begin(self, torch: Any) -> None:
        """Wraps the functions through which CUDA is initialized. Runs after `import torch`."""
        cuda = getattr(torch, "cuda", None)
        if self.ended or cuda is None:
            return
        if self.has_cuda(torch):
            self._wrap(torch._C, "_cuda_getDeviceCount")
            self._wrap(torch._C, "_cuda_init")
        else:
            if os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") != "1":  # torch then queries NVML, and initializes nothing
                self._wrap(cuda, "is_available")
            if hasattr(torch, "accelerator"):  # since torch 2.6
                self._wrap(torch.accelerator, "is_available")
        self._wrap(cuda, "_lazy_init", self._without_gpu)

    def end(self) -> None:
        """Restores the functions: spaces is about to replace some of them itself."""
        self.ended = True
        for module, name, original, wrapper in self.originals:
            if getattr(module, name) is wrapper:
                setattr(module, name, original)
        self.originals.clear()

    @staticmethod
    def has_cuda(torch: Any) -> bool:
        """Reports whether this build of torch contains CUDA, and so knows whether it was initialized."""
        return hasattr(torch._C, "_cuda_isInBadFork")

    def is_touched(self) -> bool:
        """Replaces spaces' is_in_bad_fork where torch has no CUDA."""
        return self.first != ""

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """The context around the import of spaces.zero. Appends the recorded line to the refusal of spaces."""
        try:
            yield
        except RuntimeError as error:
            if self.first and REFUSAL in str(error):
                imported = _places(self.root)[1]
                self._report(imported)
                by = f" `spaces` is imported in {imported}." if imported else ""
                error.args = (f"{error}\nCUDA was first used {self.first}.{by}",)
            raise

    def _wrap(self, module: Any, name: str, call: Callable[[Any], Any] | None = None) -> None:
        original = getattr(module, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.first and not self.ended:
                self.places = _places(self.root)
                self.first = _describe(self.places, f"{module.__name__}.{name}")
            return original(*args, **kwargs) if call is None or self.ended else call(original)

        setattr(module, name, wrapper)
        self.originals.append((module, name, original, wrapper))

    def _without_gpu(self, original: Callable[[], Any]) -> Any:
        """Initializes CUDA. Without a driver it fails in other words than on ZeroGPU, where only the GPU is missing."""
        try:
            return original()
        except (RuntimeError, AssertionError):
            self._report("")
            raise RuntimeError(
                f"{NO_GPU}\nCUDA was first used {self.first}, without or before `import spaces`: import `spaces` first, "
                "and use CUDA at the top level of the app or in a function with @spaces.GPU."
            ) from None

    def _report(self, imported: str) -> None:
        if self.observe is not None:
            library, own, called = self.places
            self.observe(library, own, called or "CUDA", imported)


def _describe(places: tuple[str, str, str], name: str) -> str:
    """Returns the place of a call, such as `in diffusers/utils/torch_utils.py:245 (torch.cuda.is_available), reached from app.py:1`."""
    library, own, called = places
    place = library or own or "at an unknown place"
    reached = f", reached from {own}" if library and own else ""
    return f"in {place} ({called or name}){reached}"


def _places(root: str) -> tuple[str, str, str]:
    """Returns the innermost line of a library, if it is further in than the app's, the app's line, and torch's function."""
    library = called = ""
    frame: Any = sys._getframe(1)
    while frame is not None:
        module, file = frame.f_globals.get("__name__") or "", frame.f_code.co_filename
        top = module.partition(".")[0]
        if top == "torch":
            if not library:
                called = f"{module}.{frame.f_code.co_name}"
        elif not file.startswith("<frozen ") and top not in (__package__, "contextlib", "spaces"):
            path = os.path.realpath(file)
            line = f":{frame.f_lineno}"
            if path.startswith(root + os.sep) and f"{os.sep}site-packages{os.sep}" not in path:
                return library, os.path.relpath(path, root) + line, called
            library = library or _shortened(path) + line
        frame = frame.f_back
    return library, "", called


def _shortened(path: str) -> str:
    """Returns path relative to the folder of sys.path that contains it."""
    folders = [folder for folder in sys.path if folder and path.startswith(os.path.realpath(folder) + os.sep)]
    return os.path.relpath(path, os.path.realpath(max(folders, key=len))) if folders else path
