import os
import time

import gradio as gr
import spaces


@spaces.GPU(duration=10)
def double(number):
    if number <= 0:
        raise gr.Error("give me a number above 0")
    return 2 * number


@spaces.GPU(duration=10)
def inside():
    return os.environ["CUDA_VISIBLE_DEVICES"]


def devices():
    """Returns the GPUs visible inside and outside a GPU function."""
    return inside(), os.environ["CUDA_VISIBLE_DEVICES"]


@spaces.GPU(duration=2)
def overstay():
    """Yields its pid, then exceeds its declared duration."""
    yield str(os.getpid())
    time.sleep(60)


def is_running(pid):
    """Tells whether a process runs. An isolated Space has pids of its own."""
    return os.path.exists(f"/proc/{int(pid)}")


with gr.Blocks() as demo:
    number, result, pid = gr.Number(1), gr.Number(), gr.Textbox()
    gr.Button("Double").click(double, number, result)
    gr.Button("Devices").click(devices, None, [gr.Textbox(), gr.Textbox()])
    gr.Button("Overstay").click(overstay, None, pid)
    gr.Button("Is it running?").click(is_running, pid, gr.Checkbox())

if __name__ == "__main__":
    demo.launch()
