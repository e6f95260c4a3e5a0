import time

import gradio as gr
import spaces


@spaces.GPU(duration=10)
def work(seconds):
    """The GPU work that Space A's visitor pays for."""
    time.sleep(seconds)
    return f"Space B had a GPU for {seconds:g} s"


demo = gr.Interface(work, gr.Number(1, label="Seconds"), gr.Textbox(label="Result"), api_name="work")
demo.launch()
