"""Functions that fail in the ways that the runner recognizes (failures_test.go)."""
import os
import threading

import gradio as gr
import spaces


class Model:
    def __init__(self):
        self.lock = threading.Lock()

    @spaces.GPU
    def run(self, text):
        return text


model = Model()


def locked(text):
    return model.run(text)


@spaces.GPU
def called(text, callback):
    return callback(text)


def with_lambda(text):
    return called(text, lambda one: one.upper())


@spaces.GPU
def unpicklable(text):
    return {"all": [text, threading.Lock()]}


@spaces.GPU
def unpicklable_yield(text):
    yield text
    yield (letter for letter in text)


@spaces.GPU
def picked(text, event: gr.SelectData):
    return f"{text} {event.value}"


@spaces.GPU(duration="120s")
def texted(text):
    return text


def seconds(text, steps):
    return steps


@spaces.GPU(duration=seconds)
def wrong_signature(text):
    return text


def words(text):
    return "sixty"


@spaces.GPU(duration=words)
def wrong_result(text):
    return text


def secret(text):
    return os.environ["NO_SUCH_SECRET"]


@spaces.GPU
def secret_inside(text):
    return os.environ["NO_SUCH_SECRET"]


def removed(text):
    return gr.Textbox(no_such_argument=True)


def unknown(text):
    raise ValueError("only this app knows why")


@spaces.GPU
def unknown_inside(text):
    raise ValueError("only this app knows why")


def size(file):
    return "a file"


with gr.Blocks() as demo:
    field, file = gr.Textbox(), gr.File()
    for function in (
        locked, with_lambda, unpicklable, unpicklable_yield, texted, wrong_signature, wrong_result, secret, secret_inside, removed, unknown, unknown_inside,
    ):
        gr.Button(function.__name__).click(function, field, field, api_name=function.__name__)
    field.select(picked, field, field, api_name="picked")
    gr.Button("size").click(size, file, field, api_name="size")

demo.launch(prevent_thread_lock=True)
if os.environ.get("THEN") == "fail":
    os.environ["NO_SUCH_SECRET"]
threading.Event().wait()
