"""Lets programs that the app starts find the Space's own Python."""
from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import State

# Where Debian's sh looks for programs without PATH.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def add_path(state: State, module: Any) -> None:
    """Adds a PATH to the environment of a program that is started without one.

    Hundreds of Spaces call subprocess.run("pip install ...", shell=True, env={"X": "1"}). On the Hub the pip of the
    default PATH is the Space's. Here it would be the operator's.
    """
    original = getattr(module.Popen, "_execute_child", None)
    names = original.__code__.co_varnames if original is not None else ()  # inspect is not imported before the app
    if "env" not in names:
        return  # an unknown release of Python
    position = names.index("env") - 1  # without self
    path = os.path.dirname(sys.executable) + os.pathsep + DEFAULT_PATH

    @functools.wraps(original)
    def _execute_child(self: Any, *args: Any, **options: Any) -> Any:
        env = args[position] if len(args) > position else None
        if env is not None and "PATH" not in env and b"PATH" not in env:
            args = (*args[:position], {**env, "PATH": path}, *args[position + 1 :])
        return original(self, *args, **options)

    module.Popen._execute_child = _execute_child
