"""Has one function for each public report that public_reports_test.go repeats."""
import contextlib
import os
import time
from pathlib import Path

import gradio as gr
import httpx
import spaces

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


@spaces.GPU(duration=60)
def steps(seconds):
    """Yields its process until it is closed; the second step takes that many seconds."""
    try:
        while True:
            yield os.getpid()
            time.sleep(seconds or 0.1)
    except GeneratorExit:
        print("the generator was closed", flush=True)
        raise
    finally:
        print(f"finally in {os.getpid()}", flush=True)


def long_text(megabytes):
    return "x" * int(megabytes * 2**20)


def growing_text(megabytes):
    for part in range(1, 9):
        yield long_text(megabytes * part / 8)


with gr.Blocks() as demo:
    number, text = gr.Number(), gr.Textbox()
    gr.Button().click(long_text, number, text, api_name="long_text")
    gr.Button().click(growing_text, number, text, api_name="growing_text")
    gr.Button().click(steps, number, number, api_name="steps")
    gr.Button().click(greet, None, text, api_name="greet")
    gr.Button().click(len, text, number, api_name="length")
    gr.Button().click(call_itself, None, number, api_name="call_itself")
    gr.Button().click(lambda: str(percent), None, text, api_name="percent")

demo.queue(max_size=50)
demo.launch(allowed_paths=["."], app_kwargs={"lifespan": lifespan})
