import os
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import huggingface_hub
from gradio_client import Client


def work(seconds):
    """Calls Space B. gradio_client forwards the visitor's X-IP-Token by itself, since it connects by name."""
    return Client("somebody/space-b", verbose=False).predict(seconds, api_name="/work")


def load(seconds):
    """Loads Space B with all its components, and calls it through them. In this thread Gradio would look for a page to add them to."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: gr.load("somebody/space-b", src="spaces")(seconds, api_name="work")).result()


def download():
    """Downloads from the host, which implements only the parts of the Hub needed to connect."""
    try:
        return huggingface_hub.hf_hub_download("somebody/model", "config.json", local_dir=os.path.expanduser("~/nowhere"))
    except Exception as error:
        return str(error)


with gr.Blocks() as demo:
    seconds, out = gr.Number(1), gr.Textbox()
    gr.Button().click(work, seconds, out)
    gr.Button().click(load, seconds, out)
    gr.Button().click(download, None, out)

demo.launch()
