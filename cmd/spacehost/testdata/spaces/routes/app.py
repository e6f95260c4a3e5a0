# Plain FastAPI routes that call GPU functions, beside a mounted Gradio app. With spaces 0.52 the visitor of the route pays.
import os
import time

import fastapi
import gradio as gr
import spaces
import uvicorn
from fastapi.responses import StreamingResponse


@spaces.GPU(duration=20)
def work(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@spaces.GPU(duration=20)
def count(numbers: int):
    for number in range(numbers):
        yield f"{number} "
        time.sleep(0.2)


@spaces.GPU(duration=20)
def fail():
    raise ValueError("as requested")


@spaces.GPU(duration=105)
def most():
    time.sleep(2)


@spaces.GPU(duration=300)
def too_long():
    return "never"


app = fastapi.FastAPI()


@app.get("/work")
def route(seconds: float = 0.1):
    return {"worker": work(seconds)}


@app.get("/count")
def stream(numbers: int = 3):
    return StreamingResponse(count(numbers), media_type="text/plain")


@app.get("/fail")
def failing():
    return fail()


@app.get("/most")
def holding():
    return most()


@app.get("/too_long")
def refused():
    return too_long()


@app.websocket("/socket")
async def socket(connection: fastapi.WebSocket):
    from starlette.concurrency import run_in_threadpool

    await connection.accept()
    await connection.send_json({"worker": await run_in_threadpool(work, 0.1)})
    await connection.close()


try:
    from spaces.zero import ZeroGPUMiddleware
except ImportError:  # before 0.52
    pass
else:
    app.add_middleware(ZeroGPUMiddleware, exception_mapper=lambda error, _: fastapi.HTTPException(**error))

with gr.Blocks() as demo:
    gr.Button().click(work, gr.Number(), gr.Number(), api_name="work")
app = gr.mount_gradio_app(app, demo, path="/ui")
uvicorn.run(app, host="0.0.0.0", port=7860, log_level="warning")
