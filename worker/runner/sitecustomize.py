"""Starts the runner inside the Space's interpreter before app.py, then removes every trace of itself.

The host starts `python app.py` with this folder on PYTHONPATH. site.py imports `sitecustomize` before the first
line of the app. A child of a worker on a simulated GPU finds the folder the same way (cuda_child.py). runpy is no alternative: it removes `__main__` from sys.modules when the top level of the app ends,
and from then on nothing defined in app.py can be pickled into a GPU worker.
"""
import os
import sys


def _remove_from_path(folder: str) -> None:
    """Removes folder from sys.path, so that the program does not see it."""
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for known in [path for path in sys.path_importer_cache if path.startswith(folder)]:
        del sys.path_importer_cache[known]


def _remove_from_environment() -> None:
    """Removes the runner's folder from PYTHONPATH, so that the programs that the app starts do not see it."""
    own = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[2]  # the runner's folder is the first entry
    if own:
        os.environ["PYTHONPATH"] = own
    else:
        os.environ.pop("PYTHONPATH", None)


def _without_the_app(folder: str) -> list[str]:
    """Returns sys.path without the entries of PYTHONPATH: an app's queue.py or types.py would replace the module that
    the runner imports."""
    library = os.path.dirname(os.__file__)
    first = sys.path.index(library) if library in sys.path else 0
    return [folder, *sys.path[first:]]


def _start() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    descriptor = os.environ.pop("SPACEHOST_FD", None)
    if descriptor is not None:
        try:
            whole, sys.path[:] = sys.path[:], _without_the_app(folder)
            try:
                import spacehost_runner

                spacehost_runner.start(int(descriptor))
            finally:
                sys.path[:] = whole
        except BaseException:  # site.py would swallow it, and the app would run without the host
            import traceback

            traceback.print_exc()
            os._exit(3)
    elif "SPACEHOST_SIMULATED_GPU_WORKER" in os.environ:
        try:
            from spacehost_runner import cuda_child

            cuda_child.install(os.environ["SPACEHOST_SIMULATED_GPU_WORKER"])
        except Exception:  # the child may be another version of Python
            pass
    if "spacehost_runner" in sys.modules:
        for name in [n for n in sys.modules if n.partition(".")[0] == "spacehost_runner"]:
            del sys.modules[name]
    _remove_from_path(folder)
    if "SPACEHOST_SIMULATED_GPU_WORKER" not in os.environ:  # the children of a child are children of the worker, too
        _remove_from_environment()


_start()
del sys.modules["sitecustomize"]
# The environment's own sitecustomize is imported next. If there is none, this line raises the same ImportError (with
# this name) that site.py swallows in an interpreter without a sitecustomize.
import sitecustomize  # noqa: E402, F401
