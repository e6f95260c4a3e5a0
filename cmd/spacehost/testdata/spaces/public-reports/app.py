"""Has one function for each public report that public_reports_test.go repeats."""
import contextlib
from pathlib import Path

import gradio as gr
import httpx

percent = Path("100%.txt").absolute()
percent.write_text("all of it")


def call_itself():
    """Returns the status of this app's own API at the address that Gradio names."""
    return httpx.get(f"{demo.local_api_url}info").status_code


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"hello": "world"}


def greet(request: gr.Request):
    return request.state.hello


def long_text(megabytes):
    return "x" * int(megabytes * 2**20)


def growing_text(megabytes):
    for part in range(1, 9):
        yield long_text(megabytes * part / 8)


with gr.Blocks() as demo:
    number, text = gr.Number(), gr.Textbox()
    gr.Button().click(long_text, number, text, api_name="long_text")
    gr.Button().click(growing_text, number, text, api_name="growing_text")
    gr.Button().click(greet, None, text, api_name="greet")
    gr.Button().click(len, text, number, api_name="length")
    gr.Button().click(call_itself, None, number, api_name="call_itself")
    gr.Button().click(lambda: str(percent), None, text, api_name="percent")

demo.queue(max_size=50)
demo.launch(allowed_paths=["."], app_kwargs={"lifespan": lifespan})
