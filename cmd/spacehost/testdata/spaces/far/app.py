"""The Space of the tests of nodes: each kind of call, files, forked children, and a call of another Space."""
import multiprocessing
import os
import time

import gradio as gr
import spaces
from gradio_client import Client


def count(own):
    return own + 1, str(own + 1)


def steps(n):
    text = ""
    for i in range(int(n)):
        text += f"{i + 1} "
        yield text


@spaces.GPU(duration=30)
def on_gpu(seconds):
    time.sleep(seconds)
    return "computed"


@spaces.GPU(duration=2)
def overstay():
    time.sleep(300)


def double(path):
    """Writes the bytes of a file twice into another one."""
    with open(path, "rb") as file:
        content = file.read()
    with open("doubled.bin", "wb") as file:
        file.write(content + content)
    return "doubled.bin"


def terminated():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    return str(child.exitcode)


def call_other():
    return Client(os.environ["CALLED"], verbose=False).predict(0, api_name="/on_gpu")


with gr.Blocks() as demo:
    own, number = gr.State(0), gr.Number(0, visible=False)
    file, out = gr.File(), gr.Textbox()
    button = gr.Button()
    button.click(count, own, [own, out], api_name="count")
    button.click(steps, number, out, api_name="steps")
    button.click(on_gpu, number, out, api_name="on_gpu")
    button.click(overstay, None, out, api_name="overstay")
    button.click(double, file, gr.File(), api_name="double")
    button.click(terminated, None, out, api_name="terminated")
    button.click(call_other, None, out, api_name="call_other")

demo.queue(max_size=100).launch()
