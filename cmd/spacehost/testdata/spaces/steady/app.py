"""The Space of the test of changes under load: two short functions that are called without a pause."""
import time

import gradio as gr
import spaces


def quick(text):
    return text


@spaces.GPU(duration=5)
def on_gpu(text):
    time.sleep(0.3)
    return text


with gr.Blocks() as demo:
    text, out = gr.Textbox(), gr.Textbox()
    text.submit(quick, text, out, api_name="quick", concurrency_limit=None)
    text.submit(on_gpu, text, out, api_name="on_gpu", concurrency_limit=4)

demo.queue(max_size=1000).launch()
