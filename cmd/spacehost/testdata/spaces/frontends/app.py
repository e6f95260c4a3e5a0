# Gradio's page at /gradio and a page of the app's own at /, which calls it in several ways (Gradio 4: at / and /own).
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

client = fastapi.routing.APIRoute("/client.js", lambda: FileResponse("client.js", media_type="text/javascript"))
if gr.__version__.startswith("4."):  # a mounted page of Gradio 4 requests wrong addresses behind any proxy
    app, _, _ = demo.launch(prevent_thread_lock=True)
    app.router.routes[:0] = [fastapi.routing.APIRoute("/own", lambda: FileResponse("page.html")), client]
    demo.block_thread()
else:
    app = fastapi.FastAPI()
    app.add_api_route("/", lambda: FileResponse("page.html"))
    app.router.routes.append(client)
    app = gr.mount_gradio_app(app, demo, path="/gradio")
    uvicorn.run(app, host="0.0.0.0", port=7860, log_level="warning")
