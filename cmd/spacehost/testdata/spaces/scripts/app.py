"""A Space that runs the Python scripts of its visitors, in its own process and in a GPU worker."""
import json
import os

import gradio as gr
import spaces


def run(script):
    """Runs a script and returns its variable `result` as JSON."""
    variables = {}
    exec(script, variables)
    return json.dumps(variables["result"])


@spaces.GPU(duration=20)
def run_on_gpu(script):
    return run(script)


def double(path):
    """Writes a file with the content of another one, twice."""
    with open(path) as source:
        text = source.read()
    doubled = os.path.join(os.path.dirname(path), "doubled.txt")
    with open(doubled, "w") as target:
        target.write(text * 2)
    return doubled


with gr.Blocks() as demo:
    script, result = gr.Textbox(), gr.Textbox()
    gr.Button().click(run, script, result, api_name="run")
    gr.Button().click(run_on_gpu, script, result, api_name="run_on_gpu")
    gr.Button().click(double, gr.File(type="filepath"), gr.File(), api_name="double")

demo.launch()
