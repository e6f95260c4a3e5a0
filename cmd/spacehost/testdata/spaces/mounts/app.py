# Two Gradio apps mounted on one FastAPI app. Their functions have the same numbers, and a group of the same name.
import os

import fastapi
import gradio as gr
import spaces
import uvicorn


def demo(name):
    @spaces.GPU(duration=10)
    def greet(text):
        return f"{name} greets {text} from {os.environ['CUDA_VISIBLE_DEVICES']}"

    with gr.Blocks() as blocks:
        text, out = gr.Textbox(), gr.Textbox()
        text.submit(greet, text, out, api_name="greet", concurrency_id="gpu")
    return blocks


app = fastapi.FastAPI()
for name in ("one", "two"):
    app = gr.mount_gradio_app(app, demo(name), path=f"/{name}")
uvicorn.run(app, host="0.0.0.0", port=7860, log_level="warning")
