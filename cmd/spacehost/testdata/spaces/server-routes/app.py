# gr.Server with a plain route that calls a GPU function.
import gradio as gr
import spaces

server = gr.Server()


@spaces.GPU(duration=20)
def work() -> str:
    return "done"


server.api(name="work")(work)
server.add_api_route("/work", lambda: work())
server.launch()
