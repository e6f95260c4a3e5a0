# What every supported Gradio version must do under the host. It uses no feature of a single version.
import inspect
import os

import gradio as gr
import spaces
from gradio_client import Client


@spaces.GPU(duration=10)
def greet(name: str) -> str:
    """Greets from a GPU."""
    gr.Info("greeting")
    return f"Hello {name}, from {os.environ['CUDA_VISIBLE_DEVICES']}, gradio {gr.__version__}"


@spaces.GPU(duration=4000)
def too_long() -> str:
    return "never"


def plain(text: str) -> str:
    """Says it again."""
    return f"you said {text}"


def ask_myself(text: str) -> str:
    """Calls the app's own endpoint as a visitor."""
    return Client(demo.local_url, verbose=False).predict(text, api_name="/plain")


def count(number: int) -> tuple[int, int]:
    """Counts this visitor's calls."""
    return number + 1, number + 1


def look(picture, number):
    return number + 1, f"picture {number}"


def left(request: gr.Request):
    print(f"{request.session_hash} has left", flush=True)


with gr.Blocks() as demo:
    text, out, button = gr.Textbox(), gr.Textbox(), gr.Button()
    button.click(greet, text, out, api_name="greet")
    button.click(too_long, None, out, api_name="too_long")
    button.click(plain, text, out, api_name="plain")
    button.click(ask_myself, text, out, api_name="ask_myself")
    calls = gr.State(0)
    button.click(count, calls, [calls, out], api_name="count")
    demo.unload(left)
    camera = gr.Image(sources="webcam", streaming=True, type="filepath")
    if "stream_every" in inspect.signature(camera.stream).parameters:  # not in 4
        camera.stream(look, [camera, calls], [calls, out], time_limit=2, stream_every=0.1, api_name=False)

tools = {"mcp_server": True} if "mcp_server" in inspect.signature(demo.launch).parameters else {}
if "CHANGED_INSIDE" in os.environ:  # imitates a Gradio that lacks what the runner needs
    demo._queue.live_updates = True
    del demo._queue.update_intervals
demo.launch(**tools)
