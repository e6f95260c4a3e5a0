"""Imitates `spaces` without Gradio (spaces/zero/client.py and wrappers.py) in every way, until the host is killed.

It starts in a tenth of a second, and leaves workers behind that survive the end of their parent.
"""
import http.client
import json
import os
import random
import signal
import threading
import time
import urllib.parse

url = urllib.parse.urlsplit(os.environ["SPACES_ZERO_DEVICE_API_URL"])


def post(call, **arguments):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request("POST", f"{url.path}/{call}?{urllib.parse.urlencode(arguments)}")
    return connection.getresponse()


def schedule(task, seconds):
    answer = post("schedule", cgroupPath="", taskId=task, enableQueue="true", tokenVersion=2, durationSeconds=seconds)
    if answer.status != 200:
        return None
    if not answer.headers["Content-Type"].startswith("text/event-stream"):
        return json.loads(answer.read())
    for line in answer:
        if line.startswith(b"data: "):
            return json.loads(line[6:])
        if line.startswith(b"event: failed"):
            return None


def work(grant, task):
    """Runs in the worker. Task 1 leaves a daemon, 2 stops itself, 3 exits; the others sleep."""
    os.setpgid(0, 0)
    if task == 1 and os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
    if post("allow", allowToken=grant["allowToken"], pid=os.getpid()).status != 200:
        os._exit(1)
    if task == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    if task == 3:
        os._exit(1)
    time.sleep(600)


def lend(task, seconds):
    grant = schedule(task, seconds)
    if grant is None:
        return
    if not grant["idle"]:
        pid = os.fork()
        if pid == 0:
            try:
                work(grant, task)
            finally:
                os._exit(1)
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
    time.sleep(random.random() * 0.2)
    if task != 5:  # the deadline ends task 5
        post("release", allowToken=grant["allowToken"], fail=random.choice(["true", "false"])).read()


def forever(task, seconds):
    while True:
        try:
            lend(task, seconds)
        except Exception:
            time.sleep(0.05)  # the host is exiting, and this process with it
        time.sleep(0.5 if task == 5 else 0.02)


for task, seconds in {1: 5, 2: 1, 3: 5, 4: 5, 5: 30}.items():
    threading.Thread(target=forever, args=(task, seconds), daemon=True).start()
threading.Event().wait()
