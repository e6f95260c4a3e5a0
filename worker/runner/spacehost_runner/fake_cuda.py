"""Runs Spaces with torch on simulated GPUs: the computation runs on the CPU, and the program sees cuda devices.

In the Space's main process the CUDA emulation of spaces stays as it is on ZeroGPU. Only the parts that would query a
driver or move weights to disk are replaced. The check of the import order stays too (cuda_order.py). In a GPU worker,
tensors are CPU tensors with a mark of the device on which the program expects them (fake_cuda_tensors.py). torch.cuda
returns the values of that emulation (fake_cuda_driver.py). Operations that need a real GPU raise errors that name the call (fake_cuda_messages.py).

The runner never imports torch: the hook waits until spaces has imported it.
"""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from . import cuda_child, fake_cuda_driver, fake_cuda_messages, fake_cuda_results, fake_cuda_tensors
from .fake_cuda_tensors import CUDA, MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cuda_order import Trace

# The attributes of spaces.zero.torch.patching used here. They exist since spaces 0.40 with ZEROGPU_V2.
NEEDED = ("cuda_aliases", "_total_unpacked_size", "_device", "_tensor_make_subclass", "_asarray")


@contextlib.contextmanager
def import_context(order: Trace) -> Iterator[None]:
    """The context around the import of spaces.zero.torch, which reads two attributes that a CPU build lacks."""
    order.end()
    with contextlib.suppress(ImportError):  # a Space without torch: spaces does nothing either
        import torch

        if torch.version.cuda is None:
            torch.version.cuda = "12.8"
        if not hasattr(torch._C, "_cuda_init"):
            torch._C._cuda_init = _nothing
    yield


def install(patches: dict[str, Callable[[Any], None]], order: Trace, module: Any) -> None:
    """Patches spaces.zero.torch after its import. spaces looks up these exports at each use."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(module, "spacehost_fake_cuda", False):
        return
    patching = sys.modules.get("spaces.zero.torch.patching")
    missing = [name for name in NEEDED if not hasattr(patching, name)]
    if missing:
        print(
            "spacehost: this release of spaces lacks " + ", ".join(missing) + ", so GPU functions that use torch need a "
            "real GPU; install spaces 0.40.1 or newer to try them on simulated ones",
            file=sys.stderr, flush=True,
        )
        return
    module.spacehost_fake_cuda = True
    module.pack = patching._total_unpacked_size  # weights stay in memory: there is no GPU memory to move them to
    module.size = _zero
    if not order.has_cuda(torch):  # that of a CPU build is a lambda: it is always False, and cannot be pickled
        module.is_in_bad_fork = order.is_touched
    generators = fake_cuda_tensors.Generators(torch, patching)
    module.init = lambda nvidia_uuid: _enter_worker(torch, patching, generators, patches)
    module.move = lambda callback=None: _load_weights(torch, patching, callback)


def _nothing(*_: Any) -> None: ...


def _zero() -> int:
    return 0


def _enter_worker(torch: Any, patching: Any, generators: Any, patches: dict[str, Callable[[Any], None]]) -> None:
    """Runs in a new worker, after spaces has left its emulation. From then on every new tensor is marked."""
    mode = fake_cuda_tensors.make_mode(torch, patching)
    generators.enter_worker()
    _enter_in_threads(mode.__enter__)
    mode.__enter__()
    fake_cuda_tensors.patch_other_constructors(torch, patching, mode)
    fake_cuda_driver.install(torch, patching)
    fake_cuda_messages.install(patches)
    fake_cuda_results.refuse_cuda_tensors(torch)
    cuda_child.announce()


def _enter_in_threads(enter: Callable[[], Any]) -> None:
    """Enters the mode in every new thread. A mode applies to one thread; spaces runs the function in a pool, and
    streamers start threads of their own.
    """
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


def _load_weights(torch: Any, patching: Any, callback: Callable[[int], Any] | None) -> None:
    """Sets the values of the tensors that the app put on cuda at its start. Their memory pages are shared with the Space."""
    with torch._C.DisableTorchFunction():
        for fake, original in list(patching.cuda_aliases.items()):
            if original is None:
                continue
            fake.data = torch.Tensor(original).data  # unwraps a subclass
            setattr(fake, MARK, CUDA)
            if callback is not None:
                callback(fake.numel() * fake.element_size())
