"""A Space that uses up what it can get: the neighbour of the Space that the benchmark measures."""
import os
import subprocess
import sys

import gradio as gr

MEGABYTE = 1 << 20


def log(megabytes):
    line = "x" * 99 + "\n"
    for _ in range(int(megabytes)):
        sys.stdout.write(line * (MEGABYTE // len(line)))
    sys.stdout.flush()
    return "printed"


def leak():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(4096) * 4096))


def fork():
    subprocess.run(["sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60"])


def fill(megabytes):
    block = os.urandom(MEGABYTE)
    with open(os.path.expanduser("~/filler"), "ab", buffering=0) as file:
        for _ in range(int(megabytes)):
            file.write(block)
    return "written"


with gr.Blocks(title="Neighbour") as demo:
    for function in (log, leak, fork, fill):
        value, result, button = gr.Number(), gr.Textbox(), gr.Button(function.__name__)
        inputs = [value] if function in (log, fill) else []
        button.click(function, inputs, result, api_name=function.__name__, concurrency_limit=1)

demo.launch()
