# A stream of eight steps, a file, a page and a WebSocket, for visitors behind a reverse proxy.
import time

import fastapi
import gradio as gr
import spaces


@spaces.GPU(duration=10)
def greet(name):
    return f"Hello {name}"


@spaces.GPU(duration=20)
def count():
    for step in range(1, 9):
        yield f"step {step}"
        time.sleep(0.2)


def same(path):
    return path


async def echo(connection: fastapi.WebSocket):
    await connection.accept()
    await connection.send_text("echo " + await connection.receive_text())
    await connection.close()


with gr.Blocks(title="Proxied") as demo:
    name, out = gr.Textbox(elem_id="name"), gr.Textbox(elem_id="greeting")
    gr.Button("Greet", elem_id="greet").click(greet, name, out, api_name="greet")
    gr.Button("Count").click(count, None, out, api_name="count")
    gr.Button("Same").click(same, gr.File(), gr.File(), api_name="same")

app, _, _ = demo.launch(prevent_thread_lock=True)
app.add_api_websocket_route("/socket", echo)
app.add_api_route("/folder", lambda: fastapi.responses.RedirectResponse("/folder/"))
demo.block_thread()
