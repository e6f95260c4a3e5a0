"""What spacehost and plain Gradio are measured with: functions that do next to nothing, so that the way there counts."""
import itertools
import json
import os
import threading

import gradio as gr
import spaces

gate = threading.Event()
places = itertools.count()


def noop(text):
    return text


def steps(count):
    for step in range(int(count)):
        yield str(step)


def size(path):
    return str(os.path.getsize(path))


def close_gate():
    global places
    places = itertools.count()
    gate.clear()
    return "closed"


def open_gate():
    gate.set()
    return "open"


def slow(texts):
    """Waits for the gate; says in which order it was called. Batched, since each start tells all who wait their rank."""
    gate.wait(timeout=1800)
    return [[f"{text} {next(places)}" for text in texts]]


def lend(request: gr.Request):
    """Says where this Space asks for GPUs, and on whose account, for as long as the gate is closed."""
    yield json.dumps([os.environ["SPACES_ZERO_DEVICE_API_URL"], request.headers["x-ip-token"]])
    gate.wait(timeout=1800)


@spaces.GPU(duration=5)
def on_gpu(text):
    return text


with gr.Blocks(title="Bench") as demo:
    text = gr.Textbox(label="Text")
    number = gr.Number(label="Steps")
    file = gr.File(label="File")
    out = gr.Textbox(label="Out")
    go = gr.Button("Go", elem_id="go")
    go.click(noop, text, out, api_name="noop")
    gr.Button("Beside").click(noop, text, out, api_name="beside", concurrency_limit=None)
    gr.Button("Steps").click(steps, number, out, api_name="steps")
    gr.Button("Size").click(size, file, out, api_name="size")
    gr.Button("Close").click(close_gate, None, out, api_name="close_gate")
    gr.Button("Open").click(open_gate, None, out, api_name="open_gate")
    gr.Button("Slow").click(slow, text, out, api_name="slow", concurrency_limit=1, batch=True, max_batch_size=100)
    gr.Button("Lend").click(lend, None, out, api_name="lend")
    gr.Button("GPU").click(on_gpu, text, out, api_name="on_gpu")

demo.queue(max_size=50_000)  # on ZeroGPU a queue without a size holds one

if __name__ == "__main__":
    demo.launch()
