"""Mounts Gradio on a FastAPI app, which serves it itself at the Hub's port."""
import fastapi
import gradio as gr
import uvicorn

app = fastapi.FastAPI()


@app.get("/hello")
def hello(request: fastapi.Request):
    return {"hello": "from FastAPI", "headers": sorted(name for name in request.headers if "spacehost" in name)}


def who(text, request: gr.Request):
    return {"text": text, "path": request.url.path, "headers": dict(request.headers)}


with gr.Blocks() as demo:
    box, out = gr.Textbox(), gr.JSON()
    box.submit(who, box, out, api_name="who")

app = gr.mount_gradio_app(app, demo, path="/inner/")

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=7860, log_level="warning")
