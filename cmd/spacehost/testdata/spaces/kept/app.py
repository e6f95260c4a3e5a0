"""The Space of the tests of the agent: state of a session and of the process, and calls that outlast the host."""
import os
import threading
import time

import gradio as gr
import spaces

counted = []


def count(own):
    """Counts the calls of the session and those of the process."""
    counted.append(None)
    print(f"counted {len(counted)}", flush=True)
    return own + 1, f"{own + 1} {len(counted)}"


def later():
    """Prints a line once the file "print" exists, and creates "printed" afterwards."""
    def wait():
        while not os.path.exists("print"):
            time.sleep(0.02)
        print("printed without a host", flush=True)
        open("printed", "w").close()

    threading.Thread(target=wait, daemon=True).start()
    return "soon"


def slow(seconds):
    time.sleep(seconds)
    return "slept"


@spaces.GPU(duration=30)
def on_gpu(seconds):
    time.sleep(seconds)
    open("finished", "w").close()
    return "computed"


@spaces.GPU(duration=100)
def until_file():
    """Ends once the file "go" exists."""
    while not os.path.exists("go"):
        time.sleep(0.05)
    return "computed"


@spaces.GPU(duration=4)
def overstay():
    time.sleep(300)


with gr.Blocks() as demo:
    own, number = gr.State(0), gr.Number(visible=False)
    out = gr.Textbox(elem_id="counted")
    gr.Button("Count", elem_id="count").click(count, own, [own, out], api_name="count")
    button = gr.Button("Other", visible=False)
    button.click(later, None, out, api_name="later")
    button.click(slow, number, out, api_name="slow", concurrency_limit=4)
    button.click(on_gpu, number, out, api_name="on_gpu", concurrency_limit=8)
    button.click(until_file, None, out, api_name="until_file")
    button.click(overstay, None, out, api_name="overstay")

demo.queue(max_size=100).launch()
