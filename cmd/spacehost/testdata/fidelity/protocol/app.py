# The messages and routes of a launched app; each function is a case. Features that a Gradio version lacks are left out.
from __future__ import annotations

import asyncio
import inspect
import os
import threading
from pathlib import Path

import gradio as gr

HERE = Path(__file__).resolve().parent


def known(make, /, *args, **options):
    """Calls make with only the options that this Gradio accepts."""
    return make(*args, **{name: value for name, value in options.items() if name in inspect.signature(make).parameters})


def greet(name: str) -> str:
    """Greets.

    Args:
        name: the name to greet
    """
    return f"hello {name}"


def count(n):
    text = ""
    for i in range(int(n)):
        text += f"{i} "
        yield text, {"at": i, "all": list(range(i))}


def plain_error(text):
    raise ValueError(f"plain {text}")


def titled_error(text):
    raise known(gr.Error, f"said {text}", duration=3, title="Titled")


def late_error(text):
    yield f"first {text}"
    raise known(gr.Error, f"late {text}", duration=3, title="Titled")


def toasts(text):
    gr.Info(f"info {text}")
    gr.Warning(f"warning {text}")
    if hasattr(gr, "Success"):
        gr.Success(f"success {text}")
    return f"toasts {text}"


def steps(text, progress=gr.Progress()):
    progress((1, 2), desc="half", unit="it")
    released_steps.wait(1)  # Gradio polls progress every 0.1 s at most
    return f"steps {text}"


released_steps = threading.Event()


def batched(texts):
    return [[f"{text} of {len(texts)}" for text in texts]]


async def forever(text):
    yield f"begun {text}"
    await asyncio.sleep(600)
    yield "never"


def remember(text, state):
    state = (state or 0) + 1
    return f"{text} {state}", state


def who(request: gr.Request):
    headers = {name: request.headers.get(name) for name in ("host", "accept-language", "x-own", "x-gradio-user")}
    return {"headers": headers, "query": dict(request.query_params), "url": str(request.url), "method": request.method if hasattr(request, "method") else "",
            "username": request.username, "cookies": dict(request.cookies)}


def picked(event: gr.SelectData):
    return f"picked {event.index} {event.value}"


def long_enough(text):
    return gr.validate(len(text) > 3, "too short")


calls = {"cached": 0}


def cached(text):
    calls["cached"] += 1
    return f"cached {text}, call {calls['cached']}"


left = threading.Event()


def await_leaving():
    return f"somebody left: {left.wait(30)}"


async def stand_in(value, output_id, first_chunk):
    """Returns what Gradio makes of a chunk, without ffmpeg."""
    return {"data": value, "duration": 1.0, "extension": ".aac"}, {
        "path": output_id, "is_stream": True, "orig_name": "audio-stream.mp3", "meta": {"_type": "gradio.FileData"}}


def stand_in_4(value, output_id, first_chunk):
    return value, {"path": output_id, "is_stream": True}


def sounds():
    yield b"first chunk"
    yield b"second chunk"


options = {"title": "Protocol", "head": '<meta name="own" content="head">', "css": ".own {color: red}", "js": "() => { window.own = 1 }"}
with known(gr.Blocks, **options) as demo:
    text, out, state = gr.Textbox("typed", label="text", elem_id="text"), gr.Textbox(label="out", elem_id="out"), gr.State()
    number, answer = gr.Number(3, label="number"), gr.JSON(label="answer", elem_id="answer")

    def button(name, fn, inputs, outputs, **options):
        return gr.Button(f"go {name}", elem_id=f"go-{name}").click(fn, inputs, outputs, api_name=name, **options)

    button("greet", greet, text, out)
    button("count", count, number, [out, answer])
    for fn in (plain_error, titled_error, late_error, toasts, steps, forever):
        button(fn.__name__, fn, text, out)
    button("batched", batched, text, out, batch=True, max_batch_size=3)
    button("remember", remember, [text, state], [out, state])
    button("who", who, None, answer)
    button("direct", lambda s: f"direct {s}", text, out, queue=False)
    button("direct_count", lambda: (yield "only"), None, out, queue=False)
    button("direct_error", titled_error, text, out, queue=False)
    chain = button("chain", lambda s: f"first {s}", text, out)
    chain.then(lambda s: f"{s}, then", out, out, api_name="chain_then").success(lambda s: f"{s}, success", out, out, api_name="chain_success")
    button("in_js", lambda s: f"python {s}", text, out, js="s => s + ' by js'")
    button("only_js", None, text, out, js="s => 'js alone: ' + s")
    button("stop", None, None, None, cancels=[button("endless", forever, text, out)])
    label = gr.Label({"a": 0.5, "b": 0.5}, label="label")
    label.select(picked, None, out, api_name="picked")
    button("await_leaving", await_leaving, None, out)
    demo.unload(left.set)
    demo.load(lambda: "loaded", None, gr.Textbox(label="loaded", elem_id="out-load"), api_name="load")
    if "validator" in inspect.signature(chain.then).parameters:
        button("validated", lambda s: f"validated {s}", text, out, validator=long_enough)
    if hasattr(gr, "cache"):
        button("cached", gr.cache(cached), text, out)
    if "api_visibility" in inspect.signature(chain.then).parameters:
        button("hidden", greet, text, out, api_visibility="private")
    picture = gr.Image(sources=["webcam"], streaming=True, type="filepath", format="png", label="stream")
    if "stream_every" in inspect.signature(picture.stream).parameters:
        picture.stream(lambda p: f"chunk of {os.path.getsize(p)} bytes", picture, out, api_name="chunks", time_limit=20, stream_every=0.1)
    else:
        picture.stream(lambda p: f"chunk of {os.path.getsize(p)} bytes", picture, out, api_name="chunks")
    heard = gr.Audio(streaming=True, label="heard")
    heard.stream_output = stand_in if inspect.iscoroutinefunction(heard.stream_output) else stand_in_4
    button("sounds", sounds, None, heard)
    gr.HTML("<p>html of our own</p>", elem_id="html")
    if "js_on_load" in inspect.signature(gr.HTML).parameters:
        gr.HTML(value="templated", html_template="<i>${value}</i>", js_on_load="element.dataset.own = 1", elem_id="out-html")

if hasattr(demo, "route"):
    if hasattr(gr, "Navbar"):
        with demo:
            gr.Navbar(visible=True, main_page_name="Home")
    with demo.route("Second", "/second"):
        second, second_out = gr.Textbox("two", label="second"), gr.Textbox(elem_id="out-second")
        gr.Button("go second", elem_id="go-second").click(lambda s: f"second {s}", second, second_out, api_name="second")

demo.queue(max_size=50)
known(demo.launch, show_error=True, enable_monitoring=True, allowed_paths=[str(HERE / "allowed")], blocked_paths=[str(HERE / "allowed" / "blocked")],
      favicon_path=str(HERE / "favicon.png"), max_file_size="100kb", mcp_server=True, pwa=True, run_history=False)
