"""Puts the runner into the Space's interpreter, and leaves no trace of having done so.

The host starts `python app.py` with this folder on PYTHONPATH, and site.py imports `sitecustomize` before
the app's first line. (Not runpy: it takes `__main__` out of sys.modules when the app's top level ends,
after which nothing of app.py can be pickled into a GPU worker.)
"""
import os
import sys


def _forget(folder: str) -> None:
    """Takes folder off sys.path and PYTHONPATH, so that the app and the programs it starts never see it."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder]
    sys.path_importer_cache.pop(folder, None)
    kept = [e for e in os.environ.get("PYTHONPATH", "").split(os.pathsep) if e and os.path.abspath(e) != folder]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)


def _start() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    descriptor = os.environ.pop("SPACEHOST_FD", None)
    if descriptor is not None:
        import spacehost_runner

        spacehost_runner.start(int(descriptor))
        for name in [n for n in sys.modules if n.partition(".")[0] == "spacehost_runner"]:
            del sys.modules[name]
    _forget(folder)


_start()
del sys.modules["sitecustomize"]
# The environment's own sitecustomize, if it has one, comes next. If it has none, this raises the very
# ImportError (with this name) that site.py swallows in an interpreter without a sitecustomize.
import sitecustomize  # noqa: E402, F401
