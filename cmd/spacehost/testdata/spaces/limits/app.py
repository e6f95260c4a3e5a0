import os
import threading
import time

import gradio as gr
import spaces

kept = []


def count():
    with open("steps", "ab", buffering=0) as steps:
        while True:
            steps.write(b".")
            time.sleep(0.001)


@spaces.GPU(duration=5)
def leave_thread():
    """Leaves a thread that computes on after the call."""
    if not kept:
        kept.append(threading.Thread(target=count, daemon=True))
        kept[0].start()
    time.sleep(0.1)
    return os.getpid()


def allocate(mib):
    kept.append(b"x" * (int(mib) << 20))
    time.sleep(60)


def plain(text):
    return f"{text} {os.getpid()}"


with gr.Blocks() as demo:
    number, text, out = gr.Number(), gr.Textbox(), gr.Textbox()
    button = gr.Button()
    button.click(leave_thread, None, out)
    button.click(allocate, number, out)
    button.click(plain, text, out)

# Under ZeroGPU Gradio's own default is 1 waiting event.
demo.queue(max_size=100).launch()
