"""Spaces with torch on simulated GPUs: the computation runs on the CPU, and the program takes that for cuda.

In the Space's main process spaces' own emulation of CUDA stays what it is on ZeroGPU; only what would ask a driver or
move weights to disk is taken out. In a GPU worker tensors are plain CPU tensors that wear a mark of the device on
which the program believes them (standin_tensors.py), and torch.cuda answers what that emulation says (standin_cuda.py).
What cannot work says so in words that name the call (standin_words.py).

Nothing of torch is imported by us: the hook waits until spaces has imported it.
"""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from . import standin_cuda, standin_tensors, standin_words
from .standin_tensors import CUDA, MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What we use of spaces.zero.torch.patching; it is there since spaces 0.40 with ZEROGPU_V2.
NEEDED = ("cuda_aliases", "_total_unpacked_size", "_device", "_tensor_make_subclass", "_asarray")


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Around the import of spaces.zero.torch: it reads these two then, and a CPU build has neither."""
    with contextlib.suppress(ImportError):  # a Space without torch: spaces does nothing either
        import torch

        if torch.version.cuda is None:
            torch.version.cuda = "12.8"
        if not hasattr(torch._C, "_cuda_init"):
            torch._C._cuda_init = _nothing
    yield


def install(patches: dict[str, Callable[[Any], None]], module: Any) -> None:
    """Called with spaces.zero.torch once it is there; what it exports is looked up anew at each use."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(module, "spacehost_standin", False):
        return
    patching = sys.modules.get("spaces.zero.torch.patching")
    missing = [name for name in NEEDED if not hasattr(patching, name)]
    if missing:
        print(
            "spacehost: this release of spaces lacks " + ", ".join(missing) + ", so GPU functions that use torch need a "
            "real GPU; install spaces 0.40 or newer to try them on simulated ones",
            file=sys.stderr, flush=True,
        )
        return
    module.spacehost_standin = True
    module.pack = patching._total_unpacked_size  # weights stay in memory: there is no other place for them
    module.size = _zero
    module.is_in_bad_fork = _false  # a CPU build's own is a lambda, which cannot be pickled
    generators = standin_tensors.Generators(torch, patching)
    module.init = lambda nvidia_uuid: _enter(torch, patching, generators, patches)
    module.move = lambda callback=None: _adopt(torch, patching, callback)


def _nothing(*_: Any) -> None: ...


def _zero() -> int:
    return 0


def _false() -> bool:
    return False


def _enter(torch: Any, patching: Any, generators: Any, patches: dict[str, Callable[[Any], None]]) -> None:
    """In a new worker, after spaces has left its emulation: every tensor made from here on is marked."""
    mode = standin_tensors.make_mode(torch, patching)
    generators.enter()
    _in_every_thread(mode.__enter__)
    mode.__enter__()
    standin_tensors.watch_other_births(torch, patching, mode)
    standin_cuda.install(torch, patching)
    standin_words.install(patches)


def _in_every_thread(enter: Callable[[], Any]) -> None:
    """A mode is of one thread; spaces runs the function in a thread of a pool, and streamers have theirs."""
    import threading

    original = threading.Thread.start

    def start(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
        run = self.run

        def run_marked() -> None:
            enter()
            run()

        self.run = run_marked  # type: ignore[method-assign]
        original(self, *args, **kwargs)

    threading.Thread.start = start  # type: ignore[method-assign]


def _adopt(torch: Any, patching: Any, callback: Callable[[int], Any] | None) -> None:
    """Gives the tensors that the app put on cuda at its start their values; the pages are shared with the Space."""
    with torch._C.DisableTorchFunction():
        for fake, original in list(patching.cuda_aliases.items()):
            if original is None:
                continue
            fake.data = torch.Tensor(original).data  # unwraps a subclass
            setattr(fake, MARK, CUDA)
            if callback is not None:
                callback(fake.numel() * fake.element_size())
