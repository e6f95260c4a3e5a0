"""Reports writes to /data, which a Space without storage does not have.

On ZeroGPU /data does not exist, and the user of the container may not create it. Where this machine has no /data
either, and the Space may not create it, the operating system raises the same errors and nothing is patched here. Elsewhere,
for example as root, the write would succeed, and in the operator's own folder.

An audit hook would see every write, but doubles the time of copy.deepcopy: id() is an audited event.
"""
from __future__ import annotations

import builtins
import functools
import io
import os
import sys
from typing import Any

FOLDER = "/data"


def install(strict: bool, folder: str = FOLDER) -> None:
    """Reports the first write below folder to stderr. With strict, each one raises the error of ZeroGPU."""
    if not os.access(folder if os.path.exists(folder) else os.path.dirname(folder), os.W_OK):
        return
    import errno  # not at the start of the app

    reported: list[bool] = []

    def check(path: Any) -> None:
        """Reports path if it is below the folder. It is called by the replaced function, which the app's frame calls."""
        if not isinstance(path, (str, os.PathLike)):
            return
        text = os.fspath(path)
        if not isinstance(text, str) or not (text == folder or text.startswith(folder + "/")):
            return
        frame = _caller()
        code = errno.EACCES if text.rstrip("/") == folder else errno.ENOENT
        error = OSError(code, os.strerror(code), text)
        if not reported:
            reported.append(True)
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "the Space"
            print(
                f"spacehost: {place} writes {text!r}. A Space without storage has no {folder}: on ZeroGPU this raises "
                f"{type(error).__name__}. Write below the home folder or /tmp, or mount a storage bucket.",
                file=sys.stderr, flush=True,
            )
        if strict:
            raise error

    mkdir, opener = os.mkdir, builtins.open

    @functools.wraps(mkdir)
    def checked_mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        check(path)
        mkdir(path, *args, **kwargs)

    @functools.wraps(opener)
    def checked_open(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(mode, str) and not mode.startswith("r") or "+" in mode:
            check(file)
        return opener(file, mode, *args, **kwargs)

    os.mkdir, builtins.open, io.open = checked_mkdir, checked_open, checked_open  # type: ignore[assignment]


def _caller() -> Any:
    """Returns the innermost frame outside of this file and of Python's own modules."""
    library = os.path.dirname(os.__file__)
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        in_library = file.startswith(library) and not file.startswith(os.path.join(library, "site-packages"))
        if file != __file__ and not in_library and not file.startswith("<frozen "):
            return frame
        frame = frame.f_back
    return None
