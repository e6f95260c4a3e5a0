"""Shows the limits that queue() sets by default, and what may change while an app runs."""
import threading

import gradio as gr

released = threading.Event()


def hold(text):
    released.wait(60)
    return text


def relabel():
    demo.config = demo.get_config_file()  # as Gradio's own workflow_api.py does


with gr.Blocks() as demo:
    button, box, out = gr.Button(), gr.Textbox(), gr.Textbox()
    button.click(hold, box, out, api_name="hold", concurrency_limit=1, validator=lambda text: gr.validate(True, ""))
    button.click(released.set, api_name="release", queue=False)
    button.click(relabel, api_name="relabel")
    button.click(lambda: None, api_name="default")
    button.click(lambda: None, api_name="four", concurrency_id="shared", concurrency_limit=4)
    button.click(lambda: None, api_name="two", concurrency_id="shared", concurrency_limit=2)
    button.click(lambda: None, api_name="any", concurrency_limit=None)

demo.queue()
demo.launch()
