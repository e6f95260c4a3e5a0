import os
import time

import gradio as gr
import numpy as np
import spaces
from PIL import Image


@spaces.GPU
def greet(name):
    """Declares the default of 60 seconds and uses almost none: unused seconds are returned."""
    return f"Hello {name}, from {os.environ['CUDA_VISIBLE_DEVICES']}"


@spaces.GPU(duration=10)
def picture(hue, size=256):
    """Returns an image, made with numpy in the GPU worker and sent back to the Space."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    rings = (np.sin(40 * np.hypot(rows - 0.5, columns - 0.5)) + 1) / 2
    channels = [rings, rows, np.full_like(rings, hue)]
    return Image.fromarray((np.stack(channels, axis=-1) * 255).astype(np.uint8))


@spaces.GPU(duration=15)
def count(limit):
    """A generator: each step reaches the visitor when it is yielded."""
    text = ""
    for number in range(1, int(limit) + 1):
        text += f"{number} "
        time.sleep(0.1)
        yield text


@spaces.GPU(duration=15)
def steps(total, progress=gr.Progress()):
    """Progress reported by a worker is shown as if the Space itself had reported it."""
    for step in progress.tqdm(range(int(total)), desc="Working"):
        time.sleep(0.2)
    return f"{int(total)} steps"


@spaces.GPU(duration=5)
def overstay(seconds):
    """Declares 5 seconds: the host kills a call that takes longer."""
    time.sleep(seconds)
    return f"slept {seconds} s"


def needed(seconds):
    return int(seconds) + 1


@spaces.GPU(duration=needed)
def sleep(seconds):
    """A dynamic duration: the call reserves the seconds that this input needs."""
    time.sleep(seconds)
    return f"slept {seconds} s, asked for {needed(seconds)} s"


@spaces.GPU(duration=5)
def notify(text):
    """A toast from inside the GPU worker."""
    gr.Info(text, title="From the GPU")
    time.sleep(0.5)
    return "sent"


with gr.Blocks(title="Hello ZeroGPU") as demo:
    gr.Markdown("# Hello ZeroGPU\nEach function runs in a GPU worker, under a lease.")
    with gr.Tab("Text"):
        name = gr.Textbox("world", label="Name", elem_id="name")
        greeting = gr.Textbox(label="Greeting", elem_id="greeting")
        gr.Button("Greet", elem_id="greet").click(greet, name, greeting)
    with gr.Tab("Image"):
        hue = gr.Slider(0, 1, 0.5, label="Hue")
        image = gr.Image(label="Image", type="pil")
        gr.Button("Draw").click(picture, hue, image)
    with gr.Tab("Generator"):
        limit = gr.Number(5, label="Up to")
        counted = gr.Textbox(label="Counted")
        gr.Button("Count").click(count, limit, counted)
    with gr.Tab("Progress"):
        total = gr.Number(5, label="Steps")
        worked = gr.Textbox(label="Done")
        gr.Button("Work").click(steps, total, worked)
    with gr.Tab("Time"):
        seconds = gr.Number(2, label="Seconds")
        slept = gr.Textbox(label="Slept")
        gr.Button("Sleep for as long as asked for").click(sleep, seconds, slept)
        gr.Button("Sleep, with 5 s declared").click(overstay, seconds, slept)
    with gr.Tab("Toast"):
        text = gr.Textbox("hello", label="Text")
        sent = gr.Textbox(label="Result")
        gr.Button("Notify").click(notify, text, sent)

if __name__ == "__main__":
    demo.launch()
