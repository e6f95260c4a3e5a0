"""Puts the runner into the Space's interpreter, and leaves no trace of having done so.

The host starts `python app.py` with this folder on PYTHONPATH, and site.py imports `sitecustomize` before
the app's first line. (Not runpy: it takes `__main__` out of sys.modules when the app's top level ends,
after which nothing of app.py can be pickled into a GPU worker.)
"""
import os
import sys


def _forget(folder: str) -> None:
    """Takes folder off sys.path and PYTHONPATH, so that the app and the programs it starts never see it."""
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for known in [path for path in sys.path_importer_cache if path.startswith(folder)]:
        del sys.path_importer_cache[known]
    own = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[2]  # ours stands first
    if own:
        os.environ["PYTHONPATH"] = own
    else:
        os.environ.pop("PYTHONPATH", None)


def _start() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    descriptor = os.environ.pop("SPACEHOST_FD", None)
    if descriptor is not None:
        try:
            import spacehost_runner

            spacehost_runner.start(int(descriptor))
        except BaseException:  # site.py would swallow it, and the app would run without the host
            import traceback

            traceback.print_exc()
            os._exit(3)
        for name in [n for n in sys.modules if n.partition(".")[0] == "spacehost_runner"]:
            del sys.modules[name]
    _forget(folder)


_start()
del sys.modules["sitecustomize"]
# The environment's own sitecustomize, if it has one, comes next. If it has none, this raises the very
# ImportError (with this name) that site.py swallows in an interpreter without a sitecustomize.
import sitecustomize  # noqa: E402, F401
