"""Launches an app with the default concurrency limit, closes it, and launches other Blocks with the limit 2."""
import threading
import time

import gradio as gr

following = threading.Event()


def build(limit, seconds):
    running, most, lock = 0, 0, threading.Lock()

    def count():
        """Returns how many calls of this function have run at a time."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(seconds)
        with lock:
            running -= 1
        return most

    with gr.Blocks(title=f"Limit {limit}") as demo:
        number = gr.Number()
        gr.Button().click(count, None, number, api_name="most")
        gr.Button().click(following.set, None, None, api_name="next")
    return demo


demo = build(1, 8)
demo.queue(max_size=50)
demo.launch(prevent_thread_lock=True)
following.wait()
demo.close()
demo = build(2, 2)
demo.queue(max_size=50, default_concurrency_limit=2)
demo.launch()
