"""Prints the routes, messages and components of this Gradio as JSON."""
import inspect
import json
import re

import gradio as gr
from gradio import server_messages
from gradio.blocks import Block
from gradio.routes import App

with gr.Blocks() as demo:
    gr.Textbox()
create = inspect.signature(App.create_app).parameters
app = App.create_app(demo, **({"mcp_server": True} if "mcp_server" in create else {}))


def walk(routes, prefix=""):
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None and not getattr(route, "methods", None):
            context = getattr(route, "include_context", None)
            yield from walk(inner.routes, prefix + (getattr(context, "prefix", "") if context else ""))
        elif getattr(route, "methods", None):
            for method in route.methods:
                yield method, prefix + route.path
        elif hasattr(route, "app"):
            yield "*", prefix + route.path


def spelt(path):
    path = re.sub(r":\w+}", "}", path).rstrip("/") or "/"
    return re.sub(r"^/gradio_api(?=/)", "A", path)


def kinds():
    for name, made in inspect.getmembers(server_messages, inspect.isclass):
        field = getattr(made, "model_fields", {}).get("msg")
        if field is not None and name.endswith("Message") and field.default is not None:
            yield str(getattr(field.default, "value", field.default))


own = ("/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect")
print(json.dumps({
    "routes": sorted({f"{method} {spelt(path)}" for method, path in walk(app.routes) if path not in own}),
    "messages": sorted(set(kinds()) - {"PydanticUndefined"}),
    "components": sorted({made.__name__ for _, made in inspect.getmembers(gr, inspect.isclass) if issubclass(made, Block) and made.__module__ != "gradio.blocks"}),
}))
