"""Lists the responses of an app that are Gradio's own, so that the host may serve them itself."""
from __future__ import annotations

import functools
from typing import Any

FOLDERS = {"/static/": "static", "/assets/": "assets", "/svelte/": "assets/svelte"}  # gradio/route_utils.py, *_PATH_LIB
SUFFIXES = ".css .html .ico .jpg .js .json .map .mp3 .png .svg .ttf .txt .wasm .wav .webp .woff .woff2".split()


def report(app: Any, blocks: Any, prefix: str) -> dict[str, Any]:
    """Returns the `frontend` of the manifest.

    A router that is not built like Starlette's raises its own exceptions here. The app then serves all pages itself.
    """
    from pathlib import Path

    import gradio
    from starlette.responses import FileResponse

    names = {page[0] for page in getattr(blocks, "pages", ())} | {""}
    paths = [f"/{name}" for name in sorted(names)]
    paths += ["/config", "/config/", f"{prefix}/info", f"{prefix}/info/", f"{prefix}/app_id", f"{prefix}/app_id/"]
    paths += ["/theme.css", f"{prefix}/theme.css", "/manifest.json", "/robots.txt", "/favicon.ico"]
    paths += ["/pwa_icon", "/pwa_icon/192", "/pwa_icon/512"]  # the sizes that manifest.json names
    types = {suffix: FileResponse("x" + suffix).media_type for suffix in SUFFIXES}
    types[".js"] = "application/javascript"  # set by the first request for "/" (gradio/routes.py, main)
    return {
        "pages": [path for path in paths if _is_gradios(app.router.routes, path)],
        "root": str(Path(gradio.__file__).parent / "templates" / "frontend"),
        "folders": {path: folder for path, folder in FOLDERS.items() if _is_gradios(app.router.routes, path + "x")},
        "types": types,
    }


def _is_gradios(routes: Any, path: str) -> bool:
    """Reports whether a GET of path reaches a function of gradio/routes.py. An app may add its own route before it."""
    from starlette.routing import Match

    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""}
    for route in routes:
        if route.matches(dict(scope))[0] is Match.FULL:
            included = getattr(route, "original_router", None)  # recent FastAPI does not flatten included routers
            if included is not None:
                return _is_gradios(included.routes, path)
            return getattr(getattr(route, "endpoint", None), "__module__", "") == "gradio.routes"
    return False


def hide_space_id(Blocks: Any) -> None:
    """Leaves space_id empty in every config, so that pages and clients do not send the Space's name to the Hub.

    With a space_id, the page of Gradio 4 to 6 requests huggingface.co/api/spaces/{space_id} from the visitor's browser
    (js/core, @huggingface/space-header), and @gradio/client sends its token to .../{space_id}/jwt. Empty, not None:
    Gradio 6 shows theme settings where it is null, which no page on Spaces does. SPACE_ID itself stays set:
    utils.get_space() and the app read it. launch() is never called with share=True, the other reader of space_id.
    """
    Blocks.space_id = property(lambda self: "", lambda self, value: None)


def patch_mcp(module: Any) -> None:
    """Accepts the names of tools with the prefix, which a page without space_id leaves in ?tools= (ApiDocs.svelte)."""
    Server = module.GradioMCPServer
    original = getattr(Server, "get_selected_tools_from_request", None)
    if original is None:
        return

    @functools.wraps(original)
    def get_selected_tools_from_request(self: Any) -> Any:
        names, prefix = original(self), self.tool_prefix
        if names is None or not prefix:
            return names
        return [name.removeprefix(prefix) if name.startswith(2 * prefix) else name for name in names]

    Server.get_selected_tools_from_request = get_selected_tools_from_request
