"""Has what a visitor can use over a connection: calls, uploads, a stream, a WebSocket and a page of its own."""
import asyncio
from pathlib import Path

import gradio as gr
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute


def read(file):
    return Path(file).read_text()


async def beats(request):
    async def stream():
        yield "data: first\n\n"
        await asyncio.sleep(3600)

    return StreamingResponse(stream(), media_type="text/event-stream")


async def echo(websocket):
    await websocket.accept()
    while True:
        await websocket.send_text("echo " + await websocket.receive_text())


with gr.Blocks() as demo:
    file, out = gr.File(), gr.Textbox()
    file.upload(read, file, out, api_name="read")
    demo.unload(lambda: print("a visitor has left", flush=True))

app, _, _ = demo.launch(prevent_thread_lock=True)
app.router.routes[:0] = [Route("/beats", beats), WebSocketRoute("/echo", echo)]
print("the routes are ready", flush=True)
demo.block_thread()
