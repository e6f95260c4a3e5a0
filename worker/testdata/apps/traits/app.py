"""Prints what an app can see of its interpreter as one line of JSON. The tests run it with and without the runner."""
import sys

first_globals, first_modules = sorted(globals()), sorted(sys.modules)  # before anything else is imported

import atexit
import builtins
import gc
import inspect
import json
import locale
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import threading
import typing
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    """A class of __main__."""

    value: "int"
    other: "Result | None" = None


def work(value):
    return Result(value, Result(0))


def forked(what):
    """Returns the result of what() in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = what()
        except BaseException as error:
            answer = repr(error)
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.load(pipe)
    os.waitpid(child, 0)
    return answer


def descriptors():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink("/proc/self/fd/" + name).partition(":")[0])
        except OSError:  # the descriptor of listdir itself
            pass
    return sorted(found)


def handlers():
    return {str(number): str(signal.getsignal(number)) for number in signal.valid_signals() if signal.getsignal(number) is not None}


def leads_a_session():
    os.setsid()
    return os.getsid(0) == os.getpid()


def pickled(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        result = pool.apply(work, (7,))
    return repr((result, type(result) is Result))


def pooled():
    with ProcessPoolExecutor(1) as pool:
        return repr(pool.submit(work, 8).result())


def child(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def popen(**options):
    return subprocess.run([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], capture_output=True, text=True, **options).stdout


def traits():
    main = sys.modules["__main__"]
    return {
        "main.__name__": main.__name__,
        "main.__file__": main.__file__,
        "main.__spec__": repr(main.__spec__),
        "main.__loader__": [type(main.__loader__).__name__, main.__loader__.name, main.__loader__.path],
        "main.__package__": repr(main.__package__),
        "main.__annotations__": repr(getattr(main, "__annotations__", "none")),
        "main.__builtins__": main.__builtins__ is builtins,
        "main.__doc__": main.__doc__,
        "main.__cached__": repr(getattr(main, "__cached__", "none")),
        "globals at the first line": first_globals,
        "modules at the first line": first_modules,
        "sitecustomize": getattr(sys.modules.get("sitecustomize"), "__file__", "none"),
        "sitecustomize ran": getattr(sys, "own_sitecustomize", "no"),
        "sys.argv": sys.argv,
        "sys.orig_argv": sys.orig_argv,
        "sys.path": sys.path,
        "sys.path_hooks": [str(hook) for hook in sys.path_hooks][:1],
        "sys.path_importer_cache": sorted(sys.path_importer_cache),
        "sys.meta_path": [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path],
        "sys.flags": repr(sys.flags),
        "sys.warnoptions": sys.warnoptions,
        "sys.excepthook": repr((sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.unraisablehook is sys.__unraisablehook__)),
        "threading.excepthook": threading.excepthook is threading.__excepthook__,
        "tracing": [repr(sys.gettrace()), repr(sys.getprofile()), repr(threading.gettrace())],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_NOFILE)],
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
        "warnings": [repr(entry) for entry in warnings.filters],
        "logging": [repr(handler) for handler in logging.getLogger().handlers],
        "locale": locale.setlocale(locale.LC_ALL),
        "streams": [[stream.name, stream.encoding, stream.errors, stream.line_buffering, stream.isatty()] for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "builtins": sorted(vars(builtins)),
        "os.environ": dict(os.environ),
        "environment of the exec": sorted(Path("/proc/self/environ").read_text().split("\0")),
        "cwd": os.getcwd(),
        "umask": os.umask(0o22),
        "stack": [frame.filename for frame in inspect.stack()],
        "stack depth": len(inspect.stack()),
        "descriptors": descriptors(),
        "descriptors of a forked child": forked(descriptors),
        "signal handlers": handlers(),
        "blocked signals": repr(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "threads": [thread.name for thread in threading.enumerate()],
        "threads of the process": ["waits" for _ in os.listdir("/proc/self/task")],
        "main thread": threading.current_thread() is threading.main_thread(),
        "leads its group": os.getpgid(0) == os.getpid(),
        "a forked child stays in the group": forked(lambda: os.getpgid(0) == os.getppid()),
        "a forked child may call setsid": forked(leads_a_session),
        "Popen(preexec_fn=os.setsid)": popen(preexec_fn=os.setsid),
        "Popen(start_new_session=True, preexec_fn=...)": popen(start_new_session=True, preexec_fn=lambda: None),
        "pickled by fork": pickled("fork"),
        "pickled by spawn": pickled("spawn"),
        "pickled by forkserver": pickled("forkserver"),
        "process pool": pooled(),
        "pickled here": repr(pickle.loads(pickle.dumps(work(1)))),
        "type hints": repr(typing.get_type_hints(Result)),
        "source": inspect.getsource(Result),
        "environment of python -c": json.loads(child("import json, os; print(json.dumps(dict(os.environ)))")),
        "modules of python -c": child("import sys; print(sorted(sys.modules))"),
        "path of python -c": child("import sys; print(sys.path, len(sys.meta_path))"),
        "descriptors of python -c": child("import os; print(len(os.listdir('/proc/self/fd')))"),
    }


if __name__ == "__main__":
    atexit.register(print, "atexit: registered first, called last")
    atexit.register(print, "atexit: registered last, called first")
    print("TRAITS", json.dumps(traits()))
    sys.exit(7)
