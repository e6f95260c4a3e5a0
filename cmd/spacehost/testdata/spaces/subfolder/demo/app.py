"""Reads its environment as an app on the Hub does: environment_test.go compares the values."""
import json
import os
import subprocess
import sys
import time

import gradio as gr
import spaces
from mylib.core import answer


def environment():
    names = ("LANG", "TZ", "PYTHONPATH", "PIP_USER", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_TRUSTED_HOST", "LC_ALL", "UV_PYTHON")
    return json.dumps({"answer": answer(), "zone": time.tzname[0], **{n: os.environ[n] for n in names if n in os.environ}})


def run(command, shell):
    """An idiom of hundreds of Spaces: an environment without PATH."""
    words = command if shell else command.split()
    done = subprocess.run(words, shell=shell, env={"X": "1"}, capture_output=True, text=True)
    return json.dumps({"out": done.stdout.strip(), "prefix": sys.prefix, "err": done.stderr})


@spaces.GPU(duration=5)
def shout(text):
    return text.upper()


@spaces.GPU
def count(n):
    yield from (str(i) for i in range(int(n)))


with gr.Blocks() as demo:
    out = gr.Textbox()
    gr.Button().click(environment, None, out, api_name="environment")
    text, shell = gr.Textbox(), gr.Checkbox()
    text.submit(run, [text, shell], out, api_name="run")
    text.change(shout, text, out, api_name="shout")
    text.blur(count, text, out, api_name="count")

demo.launch()
