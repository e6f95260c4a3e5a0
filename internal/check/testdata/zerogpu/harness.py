"""Runs an app with the real spaces package in ZeroGPU's environment, and calls functions as Gradio does: in a thread.

Reads cases as JSON from stdin, and runs each in a forked process, two at a time: {"folder": ..., "calls": [[function,
arguments...]]}. The argument "$event" is event data, and null is None. Prints a JSON list: the error of the import, the
number of startup reports, the requests for a GPU, and the result or error of each call.
"""
import asyncio
import json
import multiprocessing
import os
import runpy
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

os.environ.update(SPACES_ZERO_GPU="true", SYSTEM="spaces")

import gradio
import uvicorn

out = {"import": "", "reports": 0, "schedules": [], "calls": []}


class DeviceAPI(BaseHTTPRequestHandler):
    """Grants every request at once, as an idle ZeroGPU node does."""

    def do_POST(self) -> None:
        url = urlparse(self.path)
        body = b""
        if url.path == "/startup-report":
            out["reports"] += 1
        if url.path == "/schedule":
            query = parse_qs(url.query)
            out["schedules"].append({"seconds": query["durationSeconds"][0], "size": query.get("gpuSize", [""])[0]})
            body = json.dumps({"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def words(error: BaseException) -> str:
    """Returns the error as a user would see it, also one that Gradio wraps."""
    text = f"{type(error).__name__}: {error}"
    return text.split("\n")[0][:300]


def argument(value: object) -> object:
    return gradio.SelectData(None, {"index": 0, "value": "a"}) if value == "$event" else value


def call(function: object, arguments: list) -> dict:
    result: dict = {}

    def run() -> None:
        try:
            value = function(*arguments)
            if hasattr(value, "__await__"):
                value = asyncio.new_event_loop().run_until_complete(value)
            result["value"] = repr(value)[:300]
        except BaseException as error:
            result["error"] = words(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return result


def run_case(case: dict, result: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), DeviceAPI)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["SPACES_ZERO_DEVICE_API_URL"] = f"http://127.0.0.1:{server.server_port}"
    os.chdir(case["folder"])
    sys.path.insert(0, case["folder"])
    app: dict = {}
    try:
        app = runpy.run_path("app.py", run_name="__main__")
    except BaseException as error:
        traceback.print_exc()
        out["import"] = words(error)
    for name, *arguments in case["calls"] if not out["import"] else []:
        out["calls"].append(call(app[name], [argument(a) for a in arguments]))
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    Path(result).write_text(json.dumps(out))
    os._exit(0)


def start(case: dict, result: str) -> "tuple[int, str]":
    child = os.fork()
    if child == 0:
        run_case(case, result)
    return child, result


def finish(child: int, result: str) -> object:
    os.waitpid(child, 0)
    path = Path(result)
    return json.loads(path.read_text()) if path.exists() else {"import": "the process has ended"}


def main() -> None:
    gradio.Blocks.block_thread = lambda self: None
    uvicorn.run = lambda *args, **kwargs: None
    stdout = os.dup(1)
    os.dup2(2, 1)  # the apps print
    running: list = []
    results: list = []
    for number, case in enumerate(json.load(sys.stdin)):
        if len(running) == 2:
            results.append(finish(*running.pop(0)))
        running.append(start(case, str(Path.home() / f"result-{number}.json")))
    results.extend(finish(*pair) for pair in running)
    os.write(stdout, json.dumps(results).encode() + b"\n")


main()
