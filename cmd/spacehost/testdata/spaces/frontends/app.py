# Gradio's page at /gradio, and a page of the app's own at /, which calls it in several ways.
import fastapi
import gradio as gr
import spaces
import uvicorn
from fastapi.responses import FileResponse


@spaces.GPU(duration=5)
def greet(name: str) -> str:
    """Greets."""
    return f"Hello {name}"


with gr.Blocks() as demo:
    name, out = gr.Textbox(elem_id="name"), gr.Textbox(elem_id="greeting")
    gr.Button("Greet", elem_id="greet").click(greet, name, out, api_name="greet")

app = fastapi.FastAPI()
app.add_api_route("/", lambda: FileResponse("page.html"))
app.add_api_route("/client.js", lambda: FileResponse("client.js", media_type="text/javascript"))
app = gr.mount_gradio_app(app, demo, path="/gradio")
uvicorn.run(app, host="0.0.0.0", port=7860, log_level="warning")
