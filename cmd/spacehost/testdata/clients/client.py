"""Drives the real gradio_client: reads one JSON order per line, answers with JSON lines.

{"id": 1, "api": "/name", "args": [...]}  ->  {"id": 1, "step": value}* {"id": 1, "log": text}* {"id": 1, "progress": [...]}* then
{"id": 1, "value": value} or {"id": 1, "error": text, "title": title}. Orders run at the same time.
{"id": 2, "cancel": 1} cancels order 1. Arguments: the address, and a token if there is one.
"""
import json
import sys
import threading
import time

from gradio_client import Client

lock = threading.Lock()
jobs = {}


def say(**answer):
    with lock:
        print(json.dumps(answer), flush=True)


def work(client, order):
    """Not `for step in job`: that never ends for a job whose join was refused (gradio_client 2.7.2)."""
    number, told, seen = order["id"], 0, set()
    try:
        job = jobs[number] = client.submit(*order["args"], api_name=order["api"])
        say(id=number, submitted=True)
        while True:
            finished = job.done()
            status, outputs = job.status(), job.outputs()
            for value in outputs[told:]:
                say(id=number, step=value)
            told = len(outputs)
            if status.log and status.log not in seen:
                seen.add(status.log)
                say(id=number, log=status.log[0], level=status.log[1])
            for unit in status.progress_data or []:
                if (key := (unit.index, unit.length, unit.desc)) not in seen:
                    seen.add(key)
                    say(id=number, progress=list(key))
            if finished:
                break
            time.sleep(0.02)
        say(id=number, value=job.result())
    except BaseException as error:
        say(id=number, error=str(error), title=getattr(error, "title", None), type=type(error).__name__)


headers = {"Authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2:] and sys.argv[2] else None
client = Client(sys.argv[1], verbose=False, headers=headers)
say(ready=True)
for line in sys.stdin:
    order = json.loads(line)
    if "cancel" in order:
        say(id=order["id"], value=jobs[order["cancel"]].cancel())
        continue
    threading.Thread(target=work, args=(client, order), daemon=True).start()
