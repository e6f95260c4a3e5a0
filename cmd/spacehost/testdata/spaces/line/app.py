"""GPU calls that hold their GPU until a file exists, and the hardware that `spaces` detects."""
import os
import time

import gradio as gr
import spaces
from spaces.config import Config
from spaces.zero.config import get_config


@spaces.GPU(duration=120)
def hold(until):
    while not os.path.exists(os.path.expanduser(until)):
        time.sleep(0.02)
    return until


@spaces.GPU(duration=10)
def ten():
    return "done"


def seen():
    config = get_config()
    return [config["model"], config["memory"], f"{config['sm_major']}.{config['sm_minor']}", config["sm_count"],
            config["duration_factor"], Config.zerogpu_cuda_device_name, Config.zerogpu_cuda_total_memory]


with gr.Blocks() as demo:
    text, out, shown = gr.Textbox(), gr.Textbox(), gr.JSON()
    button = gr.Button()
    button.click(hold, text, out, concurrency_limit=10)
    button.click(ten, None, out, concurrency_limit=10)
    button.click(seen, None, shown)

# Under ZeroGPU Gradio's own default is 1 waiting event.
demo.queue(max_size=100).launch()
