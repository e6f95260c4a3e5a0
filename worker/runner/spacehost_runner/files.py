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

    safe = getattr(route_utils, "XSS_SAFE_MIMETYPES", None)
    if safe is None:  # Gradio 5
        from gradio.routes import XSS_SAFE_MIMETYPES as safe
    mimetypes.guess_type("x.txt")  # reads the system's tables, if nobody has yet
    limit = blocks.max_file_size
    return {
        "uploads": str(app.uploaded_file_dir),
        "seed": processing_utils.hash_seed.decode(),
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
