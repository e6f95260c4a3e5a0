"""The Space of the benchmark: functions that do almost nothing, so that the overhead dominates."""
import concurrent.futures
import http.client
import itertools
import json
import os
import socket
import threading
import time
import urllib.parse

import gradio as gr
import spaces

gate = threading.Event()
places = itertools.count()


def noop(text):
    return text


def steps(count):
    for step in range(int(count)):
        yield str(step)


def size(path):
    return str(os.path.getsize(path))


def close_gate():
    global places
    places = itertools.count()
    gate.clear()
    return "closed"


def open_gate():
    gate.set()
    return "open"


def slow(texts):
    """Waits for the gate, and returns the order of the calls. Batched, since each start sends every waiting visitor its rank."""
    gate.wait(timeout=1800)
    return [[f"{text} {next(places)}" for text in texts]]


def lend(request: gr.Request):
    """Yields the device API's address and the token of the account, and runs as long as the gate is closed."""
    yield json.dumps([os.environ["SPACES_ZERO_DEVICE_API_URL"], request.headers["x-ip-token"]])
    gate.wait(timeout=1800)


def fetch(address, count):
    """Downloads count bytes from the server of bench --isolation. Returns the seconds until the first and the last byte."""
    host, port = address.rsplit(":", 1)
    buffer = bytearray(1 << 20)
    began = time.perf_counter()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"%d\n" % int(count))
        received = connection.recv_into(buffer, 1)
        first = time.perf_counter() - began
        while received < count and (more := connection.recv_into(buffer)):
            received += more
    return json.dumps([first, time.perf_counter() - began, received])


def schedule(count, request: gr.Request):
    """Requests a GPU 200 times a second, and releases it at once. Returns the seconds until each answer."""
    api, token = urllib.parse.urlsplit(os.environ["SPACES_ZERO_DEVICE_API_URL"]), request.headers["x-ip-token"]
    began, numbers, local = time.perf_counter(), itertools.count(), threading.local()

    def post(path, **query):
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(api.netloc)
        local.connection.request("POST", f"{api.path}{path}?{urllib.parse.urlencode(query)}", headers={"Content-Length": "0"})
        answer = local.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise gr.Error(f"{path}: {answer.status} {body[:200]}")
        return body

    def once(_):
        time.sleep(max(0, began + next(numbers) / 200 - time.perf_counter()))
        sent = time.perf_counter()
        body = post("/schedule", taskId="1", durationSeconds="1", token=token)
        took = time.perf_counter() - sent
        post("/release", allowToken=json.loads(body)["allowToken"], fail="true")
        return took

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return json.dumps(list(pool.map(once, range(int(count)))))


@spaces.GPU(duration=5)
def on_gpu(text):
    return text


@spaces.GPU(duration=5)
def on_new_worker(text):
    """The call "end" ends its worker, so that the next call needs a new one."""
    if text == "end":
        raise gr.Error("the worker ends", print_exception=False)
    return text


with gr.Blocks(title="Bench") as demo:
    text = gr.Textbox(label="Text")
    number = gr.Number(label="Steps")
    file = gr.File(label="File")
    out = gr.Textbox(label="Out")
    go = gr.Button("Go", elem_id="go")
    go.click(noop, text, out, api_name="noop")
    gr.Button("Beside").click(noop, text, out, api_name="beside", concurrency_limit=None)
    gr.Button("Steps").click(steps, number, out, api_name="steps")
    gr.Button("Size").click(size, file, out, api_name="size")
    gr.Button("Close").click(close_gate, None, out, api_name="close_gate")
    gr.Button("Open").click(open_gate, None, out, api_name="open_gate")
    gr.Button("Slow").click(slow, text, out, api_name="slow", concurrency_limit=1, batch=True, max_batch_size=100)
    gr.Button("Lend").click(lend, None, out, api_name="lend")
    gr.Button("GPU").click(on_gpu, text, out, api_name="on_gpu")
    gr.Button("New").click(on_new_worker, text, out, api_name="on_new_worker")
    gr.Button("Schedule").click(schedule, number, out, api_name="schedule")
    gr.Button("Fetch").click(fetch, [text, number], out, api_name="fetch")

demo.queue(max_size=50_000)  # on ZeroGPU a queue without a size has room for one event

if __name__ == "__main__":
    demo.launch()
