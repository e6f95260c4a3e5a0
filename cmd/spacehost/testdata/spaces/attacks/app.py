"""The targets of known attacks on Gradio: components that accept, create and name files, and functions that echo."""
import os
import tempfile

import gradio as gr

HERE = os.path.dirname(os.path.abspath(__file__))
ALLOWED, SECRET = os.path.join(HERE, "allowed"), os.path.join(HERE, "allowed", "blocked")
MESSAGES = {} if gr.__version__ >= "6" else {"type": "messages"}
gr.set_static_paths([os.path.join(HERE, "static")])


def same(value):
    return value


def produce(name):
    """Returns a file created by the app, as any Space does."""
    path = os.path.join(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), os.path.basename(name))
    with open(path, "w") as file:
        file.write("<script>made by the app</script>")
    return path


with gr.Blocks() as demo:
    gr.HTML("attacks")
    for name, component in {
        "file": gr.File(),
        "binary": gr.File(type="binary"),
        "image": gr.Image(type="filepath"),
        "video": gr.Video(),
        "gallery": gr.Gallery(),
        "download": gr.DownloadButton(),
        "explorer": gr.FileExplorer(root_dir=ALLOWED),
        "chat": gr.Chatbot(**MESSAGES),
        "multimodal": gr.MultimodalTextbox(),
    }.items():
        shown = gr.Textbox()
        gr.Button().click(lambda value: str(value)[:200], component, shown, api_name=name)
    value = gr.JSON()
    gr.Button().click(same, value, gr.JSON(), api_name="json")
    text = gr.Textbox()
    gr.Button().click(same, text, gr.JSON(), api_name="text_to_json")
    for name, component in {
        "download": gr.DownloadButton(), "audio": gr.Audio(), "editor": gr.ImageEditor(), "video": gr.Video(),
        "model": gr.Model3D(), "file": gr.File(), "upload": gr.UploadButton(), "code": gr.Code(),
    }.items():
        gr.Button().click(same, text, component, api_name="text_to_" + name)
    for name, component, wrap in (
        ("gallery", gr.Gallery(), lambda path: [path]),
        ("multimodal", gr.MultimodalTextbox(), lambda path: {"text": "x", "files": [path]}),
        ("chat", gr.Chatbot(**MESSAGES), lambda path: [{"role": "assistant", "content": {"path": path}}]),
    ):
        gr.Button().click(wrap, text, component, api_name="text_to_" + name)
    gr.Button().click(produce, text, gr.File(), api_name="produce")
    gr.Interface(lambda file, text: text, [gr.File(), gr.Textbox()], gr.Textbox(), api_name="flagged", flagging_dir=os.path.join(HERE, "flagged"), **(
        {"flagging_mode": "manual"} if gr.__version__ >= "5" else {"allow_flagging": "manual"}))
    gr.Dataframe(), gr.DateTime()
    table = gr.Dataframe()
    gr.Button().click(lambda frame: str(frame)[:50], table, gr.Textbox(), api_name="table")
    moment = gr.DateTime()
    gr.Button().click(lambda at: str(at)[:50], moment, gr.Textbox(), api_name="moment")

if __name__ == "__main__":
    demo.launch(allowed_paths=[ALLOWED], blocked_paths=[SECRET], max_file_size="300mb", **({"mcp_server": True} if gr.__version__ >= "5" else {}))
