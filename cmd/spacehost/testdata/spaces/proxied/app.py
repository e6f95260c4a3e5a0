# A stream of eight steps, a file, a page and a WebSocket, for visitors behind a reverse proxy.
import os
import tempfile
import time

import fastapi
import gradio as gr
import spaces


@spaces.GPU(duration=10)
def greet(name):
    return f"Hello {name}"


seen = tempfile.mkdtemp()  # has a file for each step that the visitor has seen; the worker of a call sees it too


@spaces.GPU(duration=20)
def count():
    for step in range(1, 9):
        yield f"step {step}"
        time.sleep(0.2)


@spaces.GPU(duration=120)
def count_seen(visit):
    for step in range(1, 9):
        yield f"step {step}"
        while not os.path.exists(os.path.join(seen, f"{visit}-{step}")):
            time.sleep(0.01)


def mark_seen(visit: str, step: int):
    open(os.path.join(seen, f"{visit}-{step}"), "w").close()


def same(path):
    return path


def urls(request: fastapi.Request):
    return {"local_url": demo.local_url, "callback": str(request.url_for("urls"))}


async def echo(connection: fastapi.WebSocket):
    await connection.accept()
    await connection.send_text("echo " + await connection.receive_text())
    await connection.close()


with gr.Blocks(title="Proxied") as demo:
    name, out = gr.Textbox(elem_id="name"), gr.Textbox(elem_id="greeting")
    gr.Button("Greet", elem_id="greet").click(greet, name, out, api_name="greet")
    gr.Button("Count", elem_id="count").click(count, None, out, api_name="count")
    gr.Button("Count seen").click(count_seen, name, out, api_name="count_seen")
    gr.Button("Same", elem_id="same").click(same, gr.File(elem_id="file"), gr.File(elem_id="copy"), api_name="same")

app, _, _ = demo.launch(prevent_thread_lock=True)
app.add_api_websocket_route("/socket", echo)
app.add_api_route("/seen/{visit}/{step}", mark_seen, methods=["POST"])
app.add_api_route("/urls", urls, name="urls")
app.add_api_route("/folder", lambda: fastapi.responses.RedirectResponse("/folder/"))
demo.block_thread()
