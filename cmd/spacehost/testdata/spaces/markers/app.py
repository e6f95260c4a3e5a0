import os
import subprocess

import gradio as gr
import spaces


@spaces.GPU(duration=10)
def generate(prompt):
    """Reads its Secret and its prompt."""
    return f"{len(prompt)} {os.environ['API_KEY'][:6]}"


@spaces.GPU(duration=10)
def fail(prompt):
    raise gr.Error("as asked for", print_exception=False)


def child_sees(prompt):
    """A child process has the Space's Secrets."""
    seen = subprocess.run(["printenv", "API_KEY"], capture_output=True, text=True, check=True)
    return seen.stdout[:6]


def token(request: gr.Request):
    return request.headers["x-ip-token"]


with gr.Blocks() as demo:
    text, out = gr.Textbox(), gr.Textbox()
    gr.Button().click(generate, text, out)
    gr.Button().click(fail, text, out)
    gr.Button().click(child_sees, text, out)
    gr.Button().click(token, None, out)

demo.launch()
