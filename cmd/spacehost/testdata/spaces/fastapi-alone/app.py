"""A Space without Gradio: FastAPI at the Hub's port, with a route that calls a GPU function."""
import os

import fastapi
import spaces
import spaces.zero
import uvicorn


@spaces.GPU(duration=10)
def work(number):
    return {"double": 2 * number, "pid": os.getpid()}


app = fastapi.FastAPI()


@app.get("/")
def page(request: fastapi.Request):
    return {"hidden": [name for name in request.headers if "spacehost" in name]}


@app.get("/work/{number}")
def call(number: int):
    return work(number)


@app.websocket("/echo")
async def echo(socket: fastapi.WebSocket):
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


if __name__ == "__main__":
    spaces.zero.startup()
    uvicorn.run(app, host="0.0.0.0", port=7860)
