import os
import subprocess
import time

import gradio as gr
import spaces


@spaces.GPU(duration=60)
def minute(seconds):
    time.sleep(seconds)
    return os.getpid()


@spaces.GPU(duration=5)
def five(seconds):
    time.sleep(seconds)
    return os.getpid()


@spaces.GPU(duration=5, size="xlarge")
def whole(seconds):
    time.sleep(seconds)
    return os.getpid()


@spaces.GPU(duration=5)
def overstay(seconds):
    """Starts a process, then sleeps. Both must have exited after the deadline."""
    child = subprocess.Popen(["sleep", "300"])
    with open("overstay.pids", "w") as pids:
        pids.write(f"{os.getpid()} {child.pid}")
    time.sleep(seconds)


@spaces.GPU(duration=5)
def sometimes(fail):
    if fail:
        raise gr.Error("as asked for")
    return os.getpid()


@spaces.GPU(duration=300)
def too_long():
    return "never"


@spaces.GPU(duration=45, size="xlarge")
def whole_45(seconds):
    time.sleep(seconds)
    return os.getpid()


class Unloadable(gr.Error):
    """An exception that can be pickled but not unpickled: its arguments differ from those of its base."""

    def __init__(self, what, why):
        super().__init__(what + why)


@spaces.GPU(duration=3)
def unloadable():
    raise Unloadable("never", "heard")


def plain(text):
    return f"{text} {os.getpid()}"


def slow(seconds):
    time.sleep(seconds)
    return os.getpid()


with gr.Blocks() as demo:
    number, text, out = gr.Number(), gr.Textbox(), gr.Textbox()
    button = gr.Button()
    button.click(minute, number, out, concurrency_limit=4)
    button.click(five, number, out, concurrency_limit=10)
    button.click(whole, number, out)
    button.click(overstay, number, out)
    button.click(sometimes, gr.Checkbox(), out)
    button.click(too_long, None, out)
    button.click(plain, text, out)
    button.click(slow, number, out)
    button.click(whole_45, number, out)
    button.click(unloadable, None, out)

# Under ZeroGPU Gradio's own default is 1 waiting event.
demo.queue(max_size=100).launch()
