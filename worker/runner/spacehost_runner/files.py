"""What the host must know to take uploads and serve files just as this Gradio would."""
from __future__ import annotations

import contextlib
import os
from typing import Any

# Names that tell one rule of strip_invalid_filename_characters from another (gradio_client/utils.py): the host
# knows two, and takes uploads only if one of them makes the same of all.
SAMPLES = ["plain.txt", "a b#c(d)[e].t+t", "x!$`{}<>:|?*.y!z", "..", ".", "#.txt", "con.txt", "NUL", "ends. .", "é日本.png", "n" * 250 + ".txt"]


def report(blocks: Any, app: Any, route_utils: Any) -> dict[str, Any] | None:
    """None if this Gradio lacks something that is needed here: it then keeps its files to itself."""
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
    mimetypes.guess_type("x.txt")  # reads the system's tables, if nobody has yet
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
        "ranges": hasattr(FileResponse, "_parse_range_header"),  # not that of 4.44's time
    }


def is_free(block: Any) -> bool:
    """Whether a component hands its input to the app as it came, so that a path in it need not be a file's."""
    model = getattr(block, "data_model", None)
    return model is None or model.__name__ == "JsonData"


def is_explorer(block: Any) -> bool:
    return any(cls.__name__ == "FileExplorer" for cls in type(block).__mro__)


def static_paths() -> list[str]:
    from gradio.data_classes import _StaticFiles

    return [str(path) for path in _StaticFiles.all_paths]


_launched: list[Any] = []  # the apps whose visitors are told of files


def guard_cache(blocks: Any) -> None:
    """Gradio 4 copies whatever file an app names to where visitors have it (CVE-2024-47868), so one that hands on what
    a visitor wrote gives away this machine. Later ones ask first (gradio/processing_utils.py, _check_allowed); their
    rule is put here, with what the Hub's client has fetched allowed beside it. What an app names before it is launched
    is its author's own."""
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
    """The same for addresses (CVE-2024-4325): later ones fetch from public ones alone, at each step of a redirect, too."""
    import asyncio

    async def check(request: Any) -> None:
        await asyncio.to_thread(_check_public, request)

    processing_utils.sync_client.event_hooks = {"request": [_check_public]}
    processing_utils.async_client.event_hooks = {"request": [check]}


def _check_public(request: Any) -> None:
    import ipaddress
    import socket

    with contextlib.suppress(socket.gaierror):  # then nothing can be reached there
        for *_, address in socket.getaddrinfo(request.url.host, None):
            ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
            if not (getattr(ip, "ipv4_mapped", None) or ip).is_global:
                raise ValueError(f"Cannot fetch {request.url}: it is not a public address.")


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
    """By where both really are."""
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, folder]) == folder for folder in map(os.path.realpath, folders))
