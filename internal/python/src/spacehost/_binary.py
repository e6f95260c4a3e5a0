"""Finds the spacehost binary that belongs to this package."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from spacehost._errors import SpacehostError


def find_binary() -> str:
    """Returns the path of the spacehost binary.

    The environment variable SPACEHOST names another binary, for tests of a build. Otherwise the binary is where the installer has
    put the scripts of this package, or the first one on PATH.
    """
    if named := os.environ.get("SPACEHOST"):
        if not os.access(named, os.X_OK):
            raise SpacehostError(f"SPACEHOST={named} is not an executable file; correct the variable, or unset it")
        return named
    for folder in _script_folders():
        path = folder / "spacehost"
        if os.access(path, os.X_OK):
            return str(path)
    if found := shutil.which("spacehost"):
        return found
    raise SpacehostError(
        "the spacehost binary is not installed beside this package; run `pip install --force-reinstall spacehost`, "
        "or set SPACEHOST to the path of a binary"
    )


def _script_folders() -> Iterator[Path]:
    """The folders in which pip, pipx and uv install scripts: of the environment, of --user, of --target, of --prefix."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sysconfig.get_path("scripts", "posix_user"))
    packages = Path(__file__).resolve().parent.parent
    yield packages / "bin"
    if len(packages.parents) > 2:
        yield packages.parents[2] / "bin"
    yield Path(sys.executable).parent
