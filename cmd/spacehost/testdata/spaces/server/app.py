# gr.Server: serves a page of the app's own (that of ../frontends) and Gradio's API, but no page of Gradio's.
import gradio as gr
import spaces
from fastapi.responses import FileResponse

server = gr.Server()


@server.api(name="greet")
@spaces.GPU(duration=5)
def greet(name: str) -> str:
    return f"Hello {name}"


server.add_api_route("/", lambda: FileResponse("page.html"))
server.add_api_route("/client.js", lambda: FileResponse("client.js", media_type="text/javascript"))
server.launch()
