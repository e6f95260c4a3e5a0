# A login by the Hub, an upload, and a page of the app's own in the same origin.
import os

import gradio as gr
import spaces


@spaces.GPU(duration=10)
def greet(name):
    return f"Hello {name}"


def whoami(request: gr.Request):
    return request.headers.get("cookie", "none")


with gr.Blocks() as demo:
    if os.environ.get("OAUTH_CLIENT_ID"):
        gr.LoginButton()
    gr.File()
    name, out = gr.Textbox(elem_id="name"), gr.Textbox(elem_id="greeting")
    gr.Button("Greet", elem_id="greet").click(greet, name, out, api_name="greet")
    gr.Button().click(whoami, None, gr.Textbox(), api_name="whoami")

demo.launch(enable_monitoring=False)
