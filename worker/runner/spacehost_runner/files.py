"""Reports what the host needs to accept uploads and serve files exactly as this Gradio does."""
from __future__ import annotations

import contextlib
import os
from typing import Any

# Names that distinguish the versions of strip_invalid_filename_characters (gradio_client/utils.py). The host implements
# two versions, and accepts uploads only if one of them gives the same result for all names.
SAMPLES = ["plain.txt", "a b#c(d)[e].t+t", "x!$`{}<>:|?*.y!z", "..", ".", "#.txt", "con.txt", "NUL", "ends. .", "é日本.png", "n" * 250 + ".txt"]


def report(blocks: Any, app: Any, route_utils: Any) -> dict[str, Any] | None:
    """Returns the `files` of the manifest. None means that this Gradio lacks a needed part and serves its files itself."""
    with contextlib.suppress(AttributeError, ImportError, TypeError, ValueError, OSError):
        return _report(blocks, app, route_utils)
    return None


def _report(blocks: Any, app: Any, route_utils: Any) -> dict[str, Any]:
    import mimetypes

    from gradio import processing_utils, utils
    from gradio_client.utils import strip_invalid_filename_characters as strip
    from starlette.responses import FileResponse

    safe = getattr(route_utils, "XSS_SAFE_MIMETYPES", None)
    if safe is None:  # Gradio 4 and 5
        from gradio.routes import XSS_SAFE_MIMETYPES as safe
    mimetypes.guess_type("x.txt")  # the first call reads the system's tables
    limit = blocks.max_file_size
    return {
        "uploads": str(app.uploaded_file_dir),
        "seed": getattr(processing_utils, "hash_seed", b"").decode(),  # 4.44 has none
        "max_size": None if limit is None else int(limit),
        "names": {name: strip(name) for name in SAMPLES},
        "cache": os.path.abspath(utils.get_cache_folder()),
        "allowed": [os.path.abspath(path) for path in blocks.allowed_paths],
        "blocked": [os.path.abspath(path) for path in blocks.blocked_paths],
        "static": static_paths(),
        "safe": sorted(safe),
        "types": mimetypes.types_map,
        "encodings": mimetypes.encodings_map,
        "suffixes": mimetypes.suffix_map,
        "proxied": any(getattr(block, "proxy_url", None) for block in blocks.blocks.values()),
        "expires": blocks.delete_cache is not None,
        "ranges": hasattr(FileResponse, "_parse_range_header"),  # the Starlette of 4.44 lacks it
    }


def is_free(block: Any) -> bool:
    """Reports whether a component passes its input to the app unchanged, so that a path in it may name no file."""
    model = getattr(block, "data_model", None)
    return model is None or model.__name__ == "JsonData"


def is_explorer(block: Any) -> bool:
    return any(cls.__name__ == "FileExplorer" for cls in type(block).__mro__)


def static_paths() -> list[str]:
    from gradio.data_classes import _StaticFiles

    return [str(path) for path in _StaticFiles.all_paths]


_launched: list[Any] = []  # their allowed_paths and blocked_paths apply


def guard_cache(blocks: Any) -> None:
    """Backports Gradio's check of the paths that an app returns to Gradio 4 (CVE-2024-47868).

    Gradio 4 copies any file that an app names to a folder that visitors can read. An app that returns text written by
    a visitor would therefore disclose any file of this machine. Later versions check the path first
    (gradio/processing_utils.py, _check_allowed). This function installs the same rule, and also allows the cache of the
    Hub's client. Paths that an app names before its launch come from its author and are not checked.
    """
    from gradio import processing_utils

    _launched.append(blocks)
    if hasattr(processing_utils, "_check_allowed") or hasattr(processing_utils.save_file_to_cache, "__wrapped__"):
        return
    import functools

    save = processing_utils.save_file_to_cache

    @functools.wraps(save)
    def save_file_to_cache(file_path: Any, cache_dir: str) -> str:
        _check_allowed(os.path.abspath(file_path))
        return save(file_path, cache_dir)

    processing_utils.save_file_to_cache = save_file_to_cache
    _guard_fetches(processing_utils)


def _guard_fetches(processing_utils: Any) -> None:
    """Backports the check of fetched URLs (CVE-2024-4325). Later versions fetch only public addresses.

    The check runs for each step of a redirect, too.
    """
    import asyncio

    async def check(request: Any) -> None:
        await asyncio.to_thread(_check_public, request)

    processing_utils.sync_client.event_hooks = {"request": [_check_public]}
    processing_utils.async_client.event_hooks = {"request": [check]}


def _check_public(request: Any) -> None:
    import ipaddress
    import socket

    with contextlib.suppress(socket.gaierror):  # an unknown name cannot be reached
        for *_, address in socket.getaddrinfo(request.url.host, None):
            ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
            if not (getattr(ip, "ipv4_mapped", None) or ip).is_global:
                raise ValueError(f"Cannot fetch {request.url}: {ip} is not a public address. Download the file in the app instead.")


def _check_allowed(path: str) -> None:
    import tempfile

    from gradio.exceptions import InvalidPathError
    from huggingface_hub.constants import HF_HUB_CACHE

    if any(_is_in(path, blocks.blocked_paths) for blocks in _launched):
        raise InvalidPathError(f"Cannot move {path} to the gradio cache dir because it is located in one of the blocked_paths.")
    if any(_is_in(path, blocks.allowed_paths) for blocks in _launched):
        return
    if not _is_in(path, [os.getcwd(), tempfile.gettempdir(), HF_HUB_CACHE]) or os.path.basename(path).startswith("."):
        raise InvalidPathError(
            f"Cannot move {path} to the gradio cache dir because it was not created by the application or it is not located in "
            f"either the current working directory or your system's temp directory. Add {os.path.dirname(path)} to the "
            "allowed_paths parameter of launch() if visitors may have it."
        )


def _is_in(path: str, folders: list[str]) -> bool:
    """Compares real paths: symbolic links are resolved."""
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, folder]) == folder for folder in map(os.path.realpath, folders))
