"""Makes many calls with the real gradio_client: reads one JSON object, prints the result of each call as one JSON line.

{"url": "http://...", "files": "folder", "pages": [{"path": "/text", "calls": [{"name": "text", "args": [...]}]}]}
An argument {"$file": "note.txt"} is a file of the folder. A returned file is printed as its name and a hash of its content.
"""
import hashlib
import json
import os
import sys

from gradio_client import Client, handle_file


def given(value, folder):
    if isinstance(value, dict):
        return handle_file(os.path.join(folder, value["$file"])) if "$file" in value else {k: given(v, folder) for k, v in value.items()}
    return [given(one, folder) for one in value] if isinstance(value, list) else value


def printable(value):
    if isinstance(value, dict):
        return {key: printable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(one) for one in value]
    if isinstance(value, str) and ".m3u8" in value:
        return os.path.basename(value)  # its segments have random names
    if isinstance(value, str) and os.path.isfile(value):
        with open(value, "rb") as file:
            return {"file": os.path.basename(value), "sha256": hashlib.sha256(file.read()).hexdigest()}
    return value


def call(client, one, folder):
    try:
        job = client.submit(*given(one["args"], folder), api_name="/" + one["name"])
        value = job.result(timeout=60)
        return {"steps": printable(job.outputs()), "value": printable(value)}
    except Exception as error:
        return {"error": str(error), "type": type(error).__name__, "title": getattr(error, "title", None)}


request = json.load(sys.stdin)
for page in request["pages"]:
    login = {"auth": tuple(page["auth"])} if page.get("auth") else {}
    try:
        client = Client(request["url"] + page["path"], verbose=False, **login)
    except Exception as error:
        print(json.dumps({"name": page["path"], "error": repr(error)}), flush=True)
        continue
    for one in page["calls"]:
        print(json.dumps({"name": one["name"], **call(client, one, request["files"])}), flush=True)
    client.close() if hasattr(client, "close") else None
os._exit(0)  # heartbeats of the clients' sessions are threads
