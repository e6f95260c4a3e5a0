# Every family of components, each in a case of its own: the results of a button's function are shown below the button.
# One FastAPI app mounts several Blocks. Features that a Gradio version lacks are left out.
from __future__ import annotations

import inspect
import os
import random
import secrets
from pathlib import Path

import fastapi
import gradio as gr
import uvicorn
from badge import Badge

FILES = Path(__file__).resolve().parent / "files"
PIXEL, OTHER, TONE, CLIP, NOTE, SHAPE = (str(FILES / name) for name in ("pixel.png", "other.png", "tone.wav", "clip.mp4", "note.txt", "shape.obj"))


def known(make, /, *args, **options):
    """Calls make with only the options that this Gradio accepts."""
    return make(*args, **{name: value for name, value in options.items() if name in inspect.signature(make).parameters})


def has(name):
    return hasattr(gr, name)


def case(name, fn, inputs, outputs, **options):
    """Adds a button #go-NAME and its outputs #out-NAME. The inputs are rendered where they were created."""
    go = gr.Button(f"go {name}", elem_id=f"go-{name}")
    with gr.Column(elem_id=f"out-{name}"):
        made = [output() for output in outputs]
        done = gr.Textbox(label="done")
    go.click(fn, inputs, [*made, done], api_name=name, **options)
    return made


def page(title):
    return gr.Blocks(title=title)


def base(path):
    return os.path.basename(path) if path else path


def size(path):
    return f"{base(path)} of {os.path.getsize(path)} bytes" if path else "nothing"


with page("text") as text_page:
    inputs = [
        gr.Textbox("typed", label="text", elem_id="in-text"), gr.TextArea("long", label="area"), gr.Number(2.5, label="number"),
        gr.Slider(0, 10, 3, step=1, label="slider"), gr.Checkbox(True, label="check"), gr.ColorPicker("#102030", label="color"),
        gr.DateTime("2024-02-03 04:05:06", type="string", label="when", timezone="UTC"),
    ]
    case("text", lambda *a: (*a, "text " + "/".join(str(x) for x in a)), inputs,
         [gr.Textbox, gr.TextArea, gr.Number, lambda: gr.Slider(0, 10), gr.Checkbox, gr.ColorPicker, lambda: gr.DateTime(type="string", timezone="UTC")])
    inputs = [
        gr.Radio(["a", "b"], value="a", label="radio", elem_id="in-radio"), gr.Dropdown(["c", "d"], value="d", label="dropdown"),
        gr.Dropdown([("First", 1), ("Second", 2)], value=[2], multiselect=True, label="several"), gr.CheckboxGroup(["x", "y"], value=["y"], label="group"),
    ]
    case("choice", lambda *a: (*a, f"choice {a}"), inputs, [
        lambda: gr.Radio(["a", "b"]), lambda: gr.Dropdown(["c", "d"]), lambda: gr.Dropdown([("First", 1), ("Second", 2)], multiselect=True),
        lambda: gr.CheckboxGroup(["x", "y"])])
    words = gr.Textbox("two words", label="words")
    case("markup", lambda s: (
        {"words": s.split(), "nan": None, "deep": {"n": 1.5}}, f"print({s!r})", f"<b>{s}</b>", f"# {s}\n\n$x^2$ and `code`",
        [(s, "+"), (" and ", None), (s, "-")], {"cat": 0.75, "dog": 0.25}, {"arg": {"type": "int", "description": s, "default": "1"}}, f"markup {s}"), words,
         [gr.JSON, lambda: gr.Code(language="python"), gr.HTML, lambda: gr.Markdown(latex_delimiters=[{"left": "$", "right": "$", "display": False}]),
          gr.HighlightedText, gr.Label, lambda: gr.ParamViewer({})])
    table = gr.Dataframe([["ann", 1], ["bob", 2]], headers=["name", "n"], datatype=["str", "number"], label="table", type="pandas")
    cells, matrix, numbers = gr.List([["p"], ["q"]], label="list"), gr.Matrix([[1, 2], [3, 4]], label="matrix"), gr.Numpy([[5, 6]], label="numpy")
    case("table", lambda t, c, m, n: (t[::-1], c, {"headers": ["sum"], "data": [[float(m[0][0])]]}, f"table {t['name'].tolist()} {c} {n.tolist()}"),
         [table, cells, matrix, numbers], [lambda: gr.Dataframe(headers=["name", "n"], datatype=["str", "number"]), gr.List, gr.Dataframe])
    if has("Dialogue"):
        dialogue = gr.Dialogue([{"speaker": "Ann", "text": "hello"}], speakers=["Ann", "Bob"], type="list", label="dialogue")
        case("dialogue", lambda d: ([{"speaker": "Bob", "text": "to you"}], f"dialogue {d}"), dialogue, [lambda: gr.Dialogue(speakers=["Ann", "Bob"])])

with page("media") as media_page:
    picture = gr.Image(PIXEL, type="filepath", format="png", label="picture", elem_id="in-image")
    case("image", lambda p: (p, (p, [((0, 0, 1, 1), "corner")]), f"image {size(p)}"), picture,
         [lambda: gr.Image(format="png"), lambda: gr.AnnotatedImage(format="png")])
    if has("ImageSlider"):
        both = gr.ImageSlider((PIXEL, OTHER), type="filepath", format="png", label="both")
        case("slider2", lambda b: (b, f"slider2 {size(b[0])}, {size(b[1])}"), both, [lambda: gr.ImageSlider(format="png")])
    drawn = {"background": PIXEL, "layers": [], "composite": PIXEL}
    editors = [gr.ImageEditor(drawn, type="filepath", format="png", label="editor"), gr.ImageMask(type="filepath", format="png", label="mask"),
               gr.Paint(type="filepath", format="png", label="paint"), gr.Sketchpad(type="filepath", format="png", label="sketch")]
    case("editor", lambda e, *others: (e["composite"], f"editor {len(e['layers'])} {len(others)}"), editors, [lambda: gr.Image(format="png")])
    sounds = [gr.Audio(TONE, type="filepath", label="audio"), gr.Microphone(type="filepath", label="mic")]
    case("audio", lambda a, m: (a, f"audio {size(a)}, {m}"), sounds, [gr.Audio])
    films = [gr.Video(CLIP, label="video"), gr.PlayableVideo(label="playable")]
    case("video", lambda v, p: (v, f"video {size(v)}, {p}"), films, [gr.Video])
    pictures = gr.Gallery([(PIXEL, "one"), (OTHER, "two")], type="filepath", format="png", label="gallery")
    case("gallery", lambda g: ([(p, f"{c} again") for p, c in g], f"gallery {len(g)}"), pictures, [lambda: gr.Gallery(format="png")])
    shape = gr.Model3D(SHAPE, label="shape")
    case("model3d", lambda s: (s, f"model3d {size(s)}"), shape, [gr.Model3D])

with page("files") as files_page:
    one, several, up = gr.File(NOTE, label="one", elem_id="in-file"), gr.Files([NOTE, SHAPE], label="several"), gr.UploadButton("up", elem_id="in-upload")
    up.upload(lambda f: f"uploaded {size(f)}", up, gr.Textbox(elem_id="out-uploaded"), api_name="uploaded")
    case("file", lambda f, fs, u: (f, fs, gr.DownloadButton("take it", value=f), f"file {size(f)}, {len(fs)}, {u}"), [one, several, up],
         [gr.File, gr.Files, lambda: gr.DownloadButton("nothing yet")])
    tree = gr.FileExplorer(glob="*.txt", root_dir=str(FILES), value=["note.txt"], label="tree", elem_id="in-tree")
    case("explorer", lambda t: ([base(p) for p in t], f"explorer {[base(p) for p in t]}"), tree, [gr.JSON])
    picked = gr.Textbox("nobody", label="picked", elem_id="in-picked")
    gr.Examples([["ann"], ["bob"]], picked, label="examples", elem_id="in-examples")
    data = gr.Dataset(components=[gr.Textbox(visible=False)], samples=[["first"], ["second"]], label="dataset", elem_id="in-dataset", type="values")
    chosen = gr.Textbox(elem_id="out-chosen")
    data.click(lambda row: f"chosen {row[0]}", data, chosen, api_name="chosen")
    case("examples", lambda s: f"examples {s}", picked, [])
    kept = gr.Textbox("kept", elem_id="in-kept")
    gr.ClearButton([kept], value="clear", elem_id="in-clear")
    gr.DuplicateButton("duplicate")
    if has("DeepLinkButton"):
        gr.DeepLinkButton()
    case("buttons", lambda s: f"buttons {s!r}", kept, [])

with page("plots") as plots_page:
    import pandas as pd

    class Drawn:
        """Imitates an altair chart, without altair."""

        __module__ = "altair.stand_in"

        def to_json(self):
            return '{"mark": "bar", "data": {"values": [{"a": "x", "b": 2}]}, "encoding": {"x": {"field": "a"}, "y": {"field": "b"}}}'

    frame = pd.DataFrame({"when": [1, 2, 3], "much": [2.5, 1.5, 3.5], "who": ["a", "b", "a"]})
    factor = gr.Number(2, label="factor")
    axes = {"x": "when", "y": "much"}

    def plots(k):
        scaled = frame.assign(much=frame["much"] * k)
        return Drawn(), scaled, scaled, scaled, f"plots {k}"

    case("plots", plots, factor, [gr.Plot, lambda: gr.LinePlot(**axes), lambda: gr.ScatterPlot(**axes, color="who"), lambda: gr.BarPlot(x="who", y="much")])

with page("layout") as layout_page:
    with gr.Row(), gr.Column(), gr.Group():
        with gr.Accordion("closed", open=False):
            inside = gr.Textbox("inside", label="inside")
    with gr.Tabs(selected="second") as tabs:
        with gr.Tab("First", id="first"):
            gr.Markdown("first tab")
        with gr.Tab("Second", id="second", elem_id="tab-second"):
            gr.Markdown("second tab")
    if has("Sidebar"):
        with gr.Sidebar(open=False):
            gr.Markdown("at the side")
    if has("Draggable"):
        with gr.Draggable():
            gr.Markdown("moves"), gr.Markdown("too")
    if has("Walkthrough"):
        with gr.Walkthrough(selected=1):
            with gr.Step("One", id=1):
                gr.Markdown("step one")
            with gr.Step("Two", id=2):
                gr.Markdown("step two")
    out = case("layout", lambda s: (gr.Tabs(selected="first"), f"layout {s}"), inside, [lambda: tabs])
    shown = gr.Checkbox(False, label="shown", elem_id="in-shown")
    part = gr.Column(visible=False)
    with part:
        gr.Markdown("now you see it")
    case("visible", lambda v: (gr.Column(visible=True), f"visible {v}"), shown, [lambda: part])
    count = gr.Number(2, label="how many", elem_id="in-count")

    with gr.Column(elem_id="out-render"):
        @gr.render(inputs=count)
        def rendered(n):
            for i in range(int(n)):
                field = gr.Textbox(f"field {i}", label=f"rendered {i}")
                field.submit(lambda s: f"{s} sent", field, field)
            button, said = gr.Button("press", elem_id="in-rendered"), gr.Textbox(label="said", elem_id="out-rendered")
            button.click(lambda: f"rendered for {n}", None, said)

    counter = gr.State(0)

    def add(n, remembered):
        return n + 1, (remembered or 0) + 10, f"state {n + 1}, {(remembered or 0) + 10}"

    remembered = gr.BrowserState(1, storage_key="fidelity", secret="fidelity") if has("BrowserState") else gr.State(1)
    state_go = gr.Button("go state", elem_id="go-state")
    with gr.Column(elem_id="out-state"):
        state_done, changed = gr.Textbox(label="done"), gr.Textbox(label="changed")
    state_go.click(add, [counter, remembered], [counter, remembered, state_done], api_name="state")
    counter.change(lambda n: f"changed to {n}", counter, changed, api_name="state_changed")
    timer = gr.Timer(0.2, active=False)
    ticks = gr.Number(0, visible=False)
    timer_go = gr.Button("go timer", elem_id="go-timer")
    with gr.Column(elem_id="out-timer"):
        ticked = gr.Textbox(label="ticked")
    timer_go.click(lambda: gr.Timer(active=True), None, timer, api_name="timer")

    def tick(n):
        return (n + 1, f"timer {n + 1}", gr.Timer(active=False)) if n >= 1 else (n + 1, f"tick {n + 1}", gr.Timer(active=True))

    timer.tick(tick, ticks, [ticks, ticked, timer], api_name="tick")

with page("chat") as chat_page:
    said = gr.MultimodalTextbox({"text": "hello", "files": [NOTE]}, label="said", elem_id="in-said")
    talk = known(gr.Chatbot, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "**ho**"}], type="messages", label="talk")

    def answer(message, history):
        shown = [{"role": h["role"], "content": h["content"] if isinstance(h["content"], str) else h["content"][0]["text"]} for h in history]
        shown += [{"role": "user", "content": message["text"]}, {"role": "assistant", "content": {"path": PIXEL, "mime_type": "image/png"}}]
        return shown, {"text": "next", "files": []}, f"chatbot {message['text']} with {len(message['files'])}"

    case("chatbot", answer, [said, talk], [lambda: known(gr.Chatbot, type="messages"), gr.MultimodalTextbox])


def reply(message, history):
    for i in range(1, 4):
        yield f"{message} {len(history)} " + "." * i


secrets.choice = random.Random(0).choice  # makes the random key of a ChatInterface's BrowserState the same on both sides
talk_page = known(gr.ChatInterface, reply, type="messages", title="talk", examples=["an example"], api_name="chat", cache_examples=False)
interface_page = known(gr.Interface, lambda name, loud: f"hello {name}" + "!" * loud, ["text", gr.Slider(0, 3, 1, step=1)], gr.Textbox(elem_id="interface-out"),
                       title="interface", examples=[["ann", 1], ["bob", 2]], cache_examples=True, cache_mode="eager", api_name="predict", flagging_mode="manual",
                       allow_flagging="manual", flagging_dir=os.path.join(os.environ["GRADIO_TEMP_DIR"], "flagged"))
tabbed_page = gr.TabbedInterface([
    gr.Interface(lambda s: s.upper(), gr.Textbox("up", label="up"), "text", api_name="upper"),
    gr.Interface(lambda s: s[::-1], gr.Textbox("back", label="back"), "text", api_name="back")], ["Upper", "Back"], title="tabbed")

with page("badge") as badge_page:
    worn = Badge(label="badge")
    worn.change(lambda b: f"badge {b}", worn, gr.Textbox(), api_name="badge")


def by_header(request: fastapi.Request):
    return request.headers.get("x-user")


with page("asked") as asked_page:
    def asked(request: gr.Request):
        return f"asked by {request.username}"

    gr.Button().click(asked, None, gr.Textbox(), api_name="asked")

with page("signin") as signin_page:
    gr.LoginButton()
    if has("LogoutButton"):
        gr.LogoutButton()

    def signed_in(profile: gr.OAuthProfile | None):
        return f"signed in: {profile.username if profile else 'nobody'}"

    gr.Button().click(signed_in, None, gr.Textbox(), api_name="signed_in")

pages = {"text": text_page, "media": media_page, "files": files_page, "plots": plots_page, "layout": layout_page, "chat": chat_page, "talk": talk_page,
         "interface": interface_page, "tabbed": tabbed_page, "badge": badge_page, "signin": signin_page}
if has("Workflow"):
    pages["workflow"] = gr.Workflow(graph=str(FILES / "workflow.json"))

app = fastapi.FastAPI()


@app.get("/own")
def own(q: str = ""):
    return {"own": q}


for path, blocks in pages.items():
    app = known(gr.mount_gradio_app, app, blocks, path=f"/{path}", allowed_paths=[str(FILES)], ssr_mode=False)
app = known(gr.mount_gradio_app, app, asked_page, path="/asked", auth_dependency=by_header, ssr_mode=False)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("GRADIO_SERVER_PORT", 7860)), log_level="warning")
