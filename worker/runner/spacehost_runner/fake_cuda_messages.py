"""Makes operations that a simulated GPU cannot run raise errors that name the call."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "Simulated GPU"
NOTE = "simulated GPU (no NVIDIA GPU on this machine, computing on the CPU): "

# Words in the errors of libraries that found no GPU, and in this runner's imitations of a GPU's errors. The latter need no note.
FOREIGN = ("cuda", "nvidia", "triton", "cublas", "cudnn", "nvcc", "active drivers")
IMITATED = ("same device", "Use Tensor.cpu()")


def refusal(what: str) -> NotImplementedError:
    return NotImplementedError(f"{NOTE}{what}, so it cannot run here; on a ZeroGPU Space it will run on the GPU.")


def install(patches: dict[str, Callable[[Any], None]]) -> None:
    """Runs in a new worker. patches are those of the import hook: triton may be imported later."""
    for name, patch in {"triton.runtime.jit": _refuse_kernels, "triton.runtime.autotuner": _refuse_tuners}.items():
        if name in sys.modules:
            patch(sys.modules[name])
        else:
            patches[name] = patch
    wrappers = sys.modules.get("spaces.zero.wrappers")
    if hasattr(wrappers, "exception_result"):
        _show_refusals(wrappers)


def _refuse_kernels(module: Any) -> None:
    module.JITFunction.run = _refuse


def _refuse_tuners(module: Any) -> None:
    for name in ("Autotuner", "Heuristics"):
        if hasattr(module, name):
            getattr(module, name).run = _refuse


def _refuse(kernel: Any, *_: Any, **__: Any) -> None:
    while hasattr(kernel, "fn"):
        kernel = kernel.fn
    raise refusal(f"the Triton kernel {getattr(kernel, '__name__', '?')!r} needs an NVIDIA GPU")


def _show_refusals(wrappers: Any) -> None:
    """Shows refusals in full. spaces shows only the name of an exception's class; a refusal is for the Space's author."""
    original = wrappers.exception_result

    def exception_result(error: Exception) -> Any:
        words = f"{type(error).__name__}: {error}"
        ours = NOTE in words
        foreign = any(word in words.lower() for word in FOREIGN) and not any(word in words for word in IMITATED)
        if foreign and not ours and hasattr(error, "add_note"):  # since Python 3.11
            error.add_note(NOTE + "this call may need a real GPU; on a ZeroGPU Space it may work.")
        result = original(error)
        if ours:
            _show_in_full(result, str(error), wrappers)
        return result

    wrappers.exception_result = exception_result


def _show_in_full(result: Any, text: str, wrappers: Any) -> None:
    """Replaces the class name that the Space's process would show by text.

    spaces 0.51 makes the error in the worker (ExceptionResult.gradio_error). spaces 0.52 makes it in the Space's
    process: of a gr.Error in ExceptionResult.exception, else of error_cls, which a plain route shows, too.
    """
    if hasattr(result, "gradio_error"):
        if result.gradio_error is None and hasattr(wrappers, "error"):
            result.gradio_error = wrappers.error(TITLE, text)
            result.gradio_error.print_exception = True
    elif hasattr(result, "error_cls"):
        result.error_cls = text
        gradio = sys.modules.get("spaces.zero.gradio")
        if hasattr(gradio, "error"):
            result.exception = gradio.error(TITLE, text)
