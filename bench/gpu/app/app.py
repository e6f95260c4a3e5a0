import time

import gradio as gr
import spaces
import torch

weights = torch.randn(1024, 1024).to("cuda")


def plain(x):
    return x


@spaces.GPU(duration=10)
def multiply(x):
    return f"{torch.cuda.get_device_name()}: {(weights @ weights).sum().item() == (weights @ weights).sum().item()}"


@spaces.GPU(duration=2)
def overstay(seconds):
    held = torch.ones(256 * 2**20, device="cuda")  # 1 GiB
    time.sleep(seconds)
    return held.sum().item()


with gr.Blocks() as demo:
    text, number, out = gr.Textbox(), gr.Number(), gr.Textbox()
    gr.Button().click(plain, text, out, api_name="plain")
    gr.Button().click(multiply, text, out, api_name="multiply")
    gr.Button().click(overstay, number, out, api_name="overstay")

demo.queue(max_size=50).launch()
