import os
import threading
import time

import gradio as gr

launches = 0
again = threading.Event()


def echo(text):
    return f"{text} {os.getpid()} {launches}"


def slow(seconds):
    """Returns early when its launch ends: its thread would otherwise outlive the launch."""
    mine, end = launches, time.monotonic() + seconds
    while launches == mine and time.monotonic() < end:
        time.sleep(0.02)
    return echo("slow")


def relaunch():
    again.set()


with gr.Blocks(title="Relaunches") as demo:
    text, out = gr.Textbox("page", elem_id="text"), gr.Textbox(elem_id="out")
    seconds, slept = gr.Number(120), gr.Textbox(elem_id="slept")
    gr.Button(elem_id="echo").click(echo, text, out, api_name="echo")
    # The second of these two waits for the first.
    gr.Button(elem_id="slow").click(slow, seconds, slept, api_name="slow", concurrency_id="one", concurrency_limit=1)
    gr.Button(elem_id="next").click(echo, text, slept, api_name="next", concurrency_id="one", concurrency_limit=1)
    gr.Button(elem_id="relaunch").click(relaunch, None, None, api_name="relaunch")

demo.queue(max_size=100)
while True:
    launches += 1
    demo.launch(prevent_thread_lock=True)
    again.wait()
    again.clear()
    demo.close()
