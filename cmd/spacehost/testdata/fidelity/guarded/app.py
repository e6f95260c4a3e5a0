# An app with a login, a short queue, and errors that are not shown to visitors.
import threading

import gradio as gr

released = threading.Event()


def hold():
    """Keeps its group busy until release is called."""
    released.wait(60)
    released.clear()
    return "released"


def secret(text, request: gr.Request):
    return f"secret {text} of {request.username}"


def fail(text):
    raise ValueError(f"inside {text}")


with gr.Blocks(title="Guarded") as demo:
    text, out = gr.Textbox("typed", elem_id="text"), gr.Textbox(elem_id="out-secret")
    gr.Button("go", elem_id="go-secret").click(secret, text, out, api_name="secret")
    gr.Button("fail").click(fail, text, out, api_name="fail")
    gr.Button("hold").click(hold, None, out, api_name="hold")
    gr.Button("release").click(released.set, None, None, api_name="release", queue=False)

demo.queue(max_size=1, api_open=False).launch(auth=[("ann", "open"), ("bob", "sesame")], auth_message="say a word", show_error=False)
