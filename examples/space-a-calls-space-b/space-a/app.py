import os

import gradio as gr
from gradio_client import Client

B = os.environ.get("SPACE_B", "http://127.0.0.1:7861")


def set_client_for_session(request: gr.Request):
    """Gradio's guide "Using ZeroGPU Spaces with the Clients": at page load, once per visitor."""
    return Client(B, headers={"X-IP-Token": request.headers["x-ip-token"]})


def work(client, seconds):
    """The visitor pays, even an hour after opening the page."""
    return client.predict(seconds, api_name="/work")


def work_on_own_account(seconds):
    """Without the header no visitor is named, and Space A pays from its own quota."""
    return Client(B).predict(seconds, api_name="/work")


with gr.Blocks() as demo:
    client = gr.State()
    seconds, result = gr.Number(1, label="Seconds"), gr.Textbox(label="Result")
    gr.Button("Work in Space B, on the visitor's account").click(work, [client, seconds], result)
    gr.Button("Work in Space B, on Space A's own account").click(work_on_own_account, seconds, result)
    demo.load(set_client_for_session, None, client)

demo.launch()
