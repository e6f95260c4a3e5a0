"""Adds the spacehost binary to the wheel, and names the wheel's platform.

Three environment variables describe the build: SPACEHOST_BINARY is the path of the binary, SPACEHOST_ARCH its architecture
(amd64 or arm64), and SPACEHOST_VERSION the version of the wheel, which hatchling itself reads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Go's names of architectures, and those of wheels. The binary must run with glibc 2.28 (PEP 600).
PLATFORMS = {"amd64": "manylinux_2_28_x86_64", "arm64": "manylinux_2_28_aarch64"}


class BinaryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the binary beside python, where pip, pipx and uv find the scripts of a package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        binary = Path(required("SPACEHOST_BINARY"))
        if not binary.is_file():
            raise RuntimeError(f"SPACEHOST_BINARY {binary} is not a file; build it first, or run `make wheel`")
        arch = required("SPACEHOST_ARCH")
        if arch not in PLATFORMS:
            raise RuntimeError(f"SPACEHOST_ARCH {arch!r} is unknown; set it to {' or '.join(PLATFORMS)}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{PLATFORMS[arch]}"
        build_data["shared_scripts"][str(binary.resolve())] = "spacehost"


def required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"{name} is not set; run `make wheel`, which sets it")
    return value
