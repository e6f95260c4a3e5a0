"""Drives the real gradio_client: reads one JSON request per line, responds with JSON lines.

{"id": 1, "api": "/name", "args": [...]}  ->  {"id": 1, "step": value}* {"id": 1, "log": text}* {"id": 1, "progress": [...]}* then
{"id": 1, "value": value} or {"id": 1, "error": text, "title": title}. Requests run concurrently.
{"id": 2, "cancel": 1} cancels request 1. Arguments: the address, and optionally a token.
"""
import json
import sys
import threading
import time

from gradio_client import Client

lock = threading.Lock()
jobs = {}


def respond(**response):
    with lock:
        print(json.dumps(response), flush=True)


def record_logs(job):
    """Returns a list that gets each log message. Job.status() shows only the latest update, and the end of a call follows within milliseconds."""
    logs, state = [], job.communicator.job

    class Recording(type(state)):
        @property
        def latest_status(self):
            return self.__dict__["latest_status"]

        @latest_status.setter
        def latest_status(self, new):
            if new.log:
                logs.append(new.log)
            self.__dict__["latest_status"] = new

    state.__class__ = Recording
    return logs


def work(client, request):
    """Runs one call. `for step in job` never ends for a job with a refused join (gradio_client 2.7.2)."""
    number, sent, seen = request["id"], 0, set()
    try:
        job = jobs[number] = client.submit(*request["args"], api_name=request["api"])
        logs = record_logs(job)
        respond(id=number, submitted=True)
        while True:
            finished = job.done()
            status, outputs = job.status(), job.outputs()
            for value in outputs[sent:]:
                respond(id=number, step=value)
            sent = len(outputs)
            for log in [status.log, *logs]:
                if log and log not in seen:
                    seen.add(log)
                    respond(id=number, log=log[0], level=log[1])
            for unit in status.progress_data or []:
                if (key := (unit.index, unit.length, unit.desc)) not in seen:
                    seen.add(key)
                    respond(id=number, progress=list(key))
            if finished:
                break
            time.sleep(0.02)
        respond(id=number, value=job.result())
    except BaseException as error:
        respond(id=number, error=str(error), title=getattr(error, "title", None), type=type(error).__name__)


headers = {"Authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2:] and sys.argv[2] else None
client = Client(sys.argv[1], verbose=False, headers=headers)
respond(ready=True)
for line in sys.stdin:
    request = json.loads(line)
    if "cancel" in request:
        respond(id=request["id"], value=jobs[request["cancel"]].cancel())
        continue
    threading.Thread(target=work, args=(client, request), daemon=True).start()
