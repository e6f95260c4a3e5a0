# The functions whose traffic with stock Gradio 4, 5 and 6 is recorded in gradioapi/testdata/captures.
import inspect
import threading
import time

import gradio as gr


def quick(x):
    return f"hi {x}"


def slow(x):
    time.sleep(1.2)
    return f"slow {x}"


def gen(n):
    s = ""
    for i in range(int(n)):
        s += f"tok{i} "
        time.sleep(0.05)
        yield s


def boom(x):
    raise ValueError("plain boom")


def gerr(x):
    titled = "title" in inspect.signature(gr.Error).parameters  # not in Gradio 4
    raise gr.Error("custom boom", duration=3, **({"title": "My Title"} if titled else {}))


def prog(x, progress=gr.Progress()):
    for i in range(3):
        progress((i, 3), desc=f"step{i}", unit="it")
        time.sleep(0.25)  # Gradio polls every 0.1 s
    return x


def logs(x):
    gr.Info("an info")
    gr.Warning("a warning")
    if hasattr(gr, "Success"):
        gr.Success("ok")
    return x


def batchf(xs):
    time.sleep(0.5)
    return [[f"b{len(xs)}:{x}" for x in xs]]


def forever(x):
    i = 0
    while True:
        i += 1
        time.sleep(0.2)
        yield f"n{i}"


def st(x, s):
    s = (s or 0) + 1
    return f"{x}{s}", s


released = threading.Event()


def hold():
    """Keeps a concurrency group busy until release is called."""
    released.wait(60)
    released.clear()


with gr.Blocks(title="Cap") as demo:
    t, o, n, b = gr.Textbox(), gr.Textbox(), gr.Number(5), gr.Button("B")
    b.click(quick, t, o, api_name="quick")
    b.click(slow, t, o, api_name="slow", concurrency_id="slow")
    b.click(gen, n, o, api_name="gen")
    b.click(boom, t, o, api_name="boom")
    b.click(gerr, t, o, api_name="gerr")
    b.click(prog, t, o, api_name="prog")
    b.click(logs, t, o, api_name="logs")
    s = gr.State()
    b.click(st, [t, s], [o, s], api_name="st")
    b.click(batchf, t, o, api_name="batch", batch=True, max_batch_size=3, concurrency_id="batch")
    b.click(forever, t, o, api_name="forever")
    b.click(hold, api_name="hold_slow", concurrency_id="slow")
    b.click(hold, api_name="hold_batch", concurrency_id="batch")
    b.click(released.set, api_name="release")

demo.launch()
