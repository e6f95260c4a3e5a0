"""A Space with a function for each way in which it stops to answer."""
import ctypes
import os
import time

import gradio as gr

SECONDS = float(os.environ.get("HANG_SECONDS", "45"))


def hold_the_lock():
    ctypes.PyDLL(None).usleep(int(SECONDS * 1e6))  # a function in C that keeps the interpreter lock
    return "back"


async def spin():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pass
    return "back"


def close_descriptors():
    os.closerange(3, 4096)
    time.sleep(SECONDS)


def close_server():
    os.closerange(3, 240)  # the channel to the host has a higher number
    time.sleep(SECONDS)


def work():
    time.sleep(0.1)
    return "done"


with gr.Blocks() as demo:
    for function in (hold_the_lock, spin, close_descriptors, close_server, work):
        gr.Button().click(function, None, None if function in (close_descriptors, close_server) else gr.Textbox(), api_name=function.__name__, concurrency_limit=None)

demo.launch()
