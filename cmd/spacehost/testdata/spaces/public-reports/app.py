"""Has one function for each public report that public_reports_test.go repeats."""
from pathlib import Path

import gradio as gr
import httpx

percent = Path("100%.txt").absolute()
percent.write_text("all of it")


def call_itself():
    """Returns the status of this app's own API at the address that Gradio names."""
    return httpx.get(f"{demo.local_api_url}info").status_code


with gr.Blocks() as demo:
    number, text = gr.Number(), gr.Textbox()
    gr.Button().click(call_itself, None, number, api_name="call_itself")
    gr.Button().click(lambda: str(percent), None, text, api_name="percent")

demo.queue(max_size=50)
demo.launch(allowed_paths=["."])
