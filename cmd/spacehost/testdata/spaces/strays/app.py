"""Runs code that a test sends: in this process, or in a daemon that has left the Space."""
import contextlib
import io
import subprocess
import sys
import tempfile

import gradio as gr

# The daemon runs once its parent has exited. Its environment is empty, so it has no marker of the Space.
DAEMONISE = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
middle = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == middle:
    pass
os.execve(sys.executable, [sys.executable, "-I", "-c", sys.argv[1]], {})
"""


def here(code):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, {})
    return output.getvalue()


def daemon(code):
    """Returns the output of the daemon: the pipe ends when its last process has exited."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, "-I", "-c", DAEMONISE, code], env={}, stdout=subprocess.PIPE, stderr=errors, text=True)
        output = process.communicate()[0]
        errors.seek(0)
        return output + errors.read().decode()


with gr.Blocks() as demo:
    text = gr.Textbox()
    gr.Button().click(here, text, text)
    gr.Button().click(daemon, text, text)

demo.launch()
