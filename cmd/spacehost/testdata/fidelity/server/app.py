# gr.Server: a FastAPI app with Gradio's API beside its own routes. Only Gradio 6 has it.
from typing import Any

import gradio as gr
from fastapi.responses import HTMLResponse

server = gr.Server(title="Server")


@server.get("/", response_class=HTMLResponse)
def page():
    return "<html><body><h1 id='own'>own page</h1></body></html>"


@server.get("/items/{item}")
def items(item: int, q: str = "none"):
    return {"item": item, "q": q}


@server.post("/echo")
def echo(body: dict[str, Any]):
    return body


@server.api(name="hello")
def hello(name: str) -> str:
    """Greets."""
    return f"hello {name}"


@server.api(name="numbers")
def numbers(n: int) -> int:
    for i in range(n):
        yield i


@server.mcp.tool(name="shout")
@server.api(name="shout")
def shout(text: str) -> str:
    """Says it loudly."""
    return text.upper()


server.launch(mcp_server=True)
