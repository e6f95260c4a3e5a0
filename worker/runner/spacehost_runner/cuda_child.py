"""Reports the use of CUDA in a process that a GPU worker has started, if GPUs are simulated.

A simulated GPU exists in the worker's own process only. On ZeroGPU a child of the worker uses the worker's GPU, so
without a report the child would silently take the path for machines without CUDA.

A child is any Python program started with the worker's environment. sitecustomize.py calls install in it.
"""
from __future__ import annotations

import functools
import os
import sys
from typing import Any

from .importing import Finder

VARIABLE = "SPACEHOST_SIMULATED_GPU_WORKER"  # the pid of the worker, in the environment of its children


def announce() -> None:
    """Runs in a new worker. Lets the Python programs that it starts find this module."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    own = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = folder + (os.pathsep + own if own else "")
    os.environ[VARIABLE] = str(os.getpid())


def install(worker: str) -> None:
    """Runs in a child, before its first line."""
    sys.meta_path.insert(0, Finder({"torch": functools.partial(_patch, worker)}, {}))


def _patch(worker: str, torch: Any) -> None:
    cuda = getattr(torch, "cuda", None)
    if cuda is None:
        return
    reported: list[bool] = []

    def report() -> None:
        if not reported:
            reported.append(True)
            _print(worker, _words())

    def reporting(original: Any) -> Any:
        @functools.wraps(original)
        def is_available(*args: Any, **kwargs: Any) -> Any:
            if not (available := original(*args, **kwargs)):
                report()
            return available

        return is_available

    cuda.is_available = reporting(cuda.is_available)
    if hasattr(torch, "accelerator"):  # since torch 2.6
        torch.accelerator.is_available = reporting(torch.accelerator.is_available)
    initialize = cuda._lazy_init

    @functools.wraps(initialize)
    def _lazy_init() -> None:
        try:
            initialize()
        except (RuntimeError, AssertionError) as error:
            report()
            raise RuntimeError(f"{error}\n{_words()}") from None

    cuda._lazy_init = _lazy_init


def _words() -> str:
    program = " ".join([os.path.basename(sys.executable or "python"), *sys.argv])[:200]
    return (
        f"spacehost: simulated GPU: `{program}` uses torch.cuda in a child process of a GPU function, and finds no GPU. A simulated "
        "GPU exists only in the process of the GPU function; on ZeroGPU, the child has the GPU too. Call the code in the function "
        "itself to try it here."
    )


def _print(worker: str, words: str) -> None:
    """Prints to the worker's stderr, which is the Space's log: the child's own is often captured."""
    try:
        log = os.open(f"/proc/{worker}/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
    except OSError:
        print(words, file=sys.stderr, flush=True)
        return
    try:
        os.write(log, (words + "\n").encode())
    finally:
        os.close(log)
