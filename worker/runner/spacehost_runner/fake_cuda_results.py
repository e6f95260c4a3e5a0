"""Refuses results of GPU functions that contain a tensor on cuda.

On a GPU such a result is sent as a handle to the worker's GPU memory. The Space's main process has no GPU and cannot
open it: the call hangs (huggingface/skills, zerogpu) or fails. A simulated tensor is CPU memory and would arrive without an error.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fake_cuda_messages import NOTE
from .fake_cuda_tensors import CUDA, MARK

if TYPE_CHECKING:
    from collections.abc import Callable


def refuse_cuda_tensors(torch: Any) -> None:
    """Runs in a new worker. spaces pickles results by multiprocessing's pickler, for which torch registers its types.

    torch.save, copy.deepcopy and pickle.dumps use other picklers: they work on a GPU too.
    """
    from multiprocessing.reduction import ForkingPickler

    registered = getattr(ForkingPickler, "_extra_reducers", {})
    for kind in (torch.Tensor, torch.nn.Parameter):
        original = registered.get(kind)
        if original is not None:
            ForkingPickler.register(kind, _refusing(original))


def _refusing(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    from pickle import PicklingError

    def reduce(tensor: Any) -> Any:
        if tensor.__dict__.get(MARK) == CUDA:
            # spaces catches PicklingError and no other error at this point (spaces 0.51.3, zero/wrappers.py)
            raise PicklingError(
                f"{NOTE}the GPU function returns or yields a tensor on cuda, of shape {tuple(tensor.shape)}. On ZeroGPU this "
                "call hangs or fails: the Space's main process has no GPU that could hold the tensor. Return tensor.cpu() instead."
            )
        return original(tensor)

    return reduce
