import inspect
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import patch

import gradio as gr
import spaces
from spaces.zero import client as zero
from starlette.datastructures import Headers


@spaces.GPU(duration=120)
def long():
    return "had a GPU"


def token(request: gr.Request):
    return request.headers["x-ip-token"]


def schedule(brought):
    """Returns the package's message for a GPU request with this token."""
    headers = Headers({"x-ip-token": brought})
    try:
        if "request" in inspect.signature(zero.schedule).parameters:
            granted = zero.schedule(1, SimpleNamespace(headers=headers), timedelta(seconds=1))
        else:  # spaces 0.52 takes the headers from its context
            with patch.object(zero.context, "get", lambda: zero.ZeroGPUContext(headers=dict(headers))):
                granted = zero.schedule(1, timedelta(seconds=1))
    except Exception as error:
        return str(error)
    zero.release(granted.allowToken)
    return "granted"


with gr.Blocks() as demo:
    text = gr.Textbox()
    gr.Button().click(long, None, text)
    gr.Button().click(token, None, text)
    gr.Button().click(schedule, text, text)

demo.launch()
