"""Measures the whole chain on a real GPU: cold and warm calls, the end of a call that exceeds its duration, two Spaces
that alternate on one GPU, and a process without a lease.

    make gpu PYTHON=...                            builds spacehost and runs this
    PYTHON bench/gpu/chain.py --spacehost BIN      PYTHON has torch, gradio 6, spaces and gradio_client
        [--gpus mock:1xH200]                       tests the script itself, on simulated GPUs

It prints each figure when it is measured, and finally a JSON object with all figures. Exit code 1: a check failed,
and the last line names it.
"""
from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
MIB = 2**20
figures: dict[str, object] = {}


def show(name: str, value: object, unit: str = "") -> None:
    figures[name] = value
    print(f"{name:<58} {value if not isinstance(value, float) else format(value, '.1f')} {unit}", flush=True)


def check(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"chain: {message}")


def until(what: str, condition, within: float = 60.0) -> float:
    """Waits for the condition and returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        check(time.monotonic() - began < within, f"timed out after {within:.0f} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


class Host:
    def __init__(self, binary: str, gpus: str, folder: pathlib.Path) -> None:
        self.binary, self.state = binary, folder / "state"
        spaces = [folder / "one", folder / "two"]
        for space in spaces:
            shutil.copytree(HERE / "app", space)
        self.output = (folder / "output.txt").open("w+")
        self.process = subprocess.Popen(
            [binary, "run", *map(str, spaces), "--python", sys.executable, "--gpus", gpus, "--tier", "unlimited",
             "--state", str(self.state), "--addr", ":0", "--console-addr", ":0", "--ready-json"],
            stdout=subprocess.PIPE, stderr=self.output, text=True)
        self.ready = json.loads(self.process.stdout.readline() or "{}")
        check("spaces" in self.ready, f"the host did not start:\n{self.last_output()}")

    def last_output(self) -> str:
        self.output.flush()
        return pathlib.Path(self.output.name).read_text()[-3000:]

    def query(self, *command: str):
        run = subprocess.run([self.binary, *command, "--json", "--state", str(self.state)], capture_output=True, text=True, check=True)
        return json.loads(run.stdout)

    def device(self) -> dict:
        return self.query("gpu")[0]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def milliseconds(call, times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def calls(one) -> None:
    began = time.perf_counter()
    answer = one.predict("", api_name="/multiply")
    show("first GPU call of a Space", (time.perf_counter() - began) * 1000, "ms")
    show("computed on", answer)
    plain = milliseconds(lambda: one.predict("", api_name="/plain"), 50)
    warm = milliseconds(lambda: one.predict("", api_name="/multiply"), 50)
    show("plain call, p50 of 50", plain, "ms")
    show("warm GPU call, p50 of 50", warm, "ms")
    show("a warm GPU call over a plain one", warm - plain, "ms")


def overstay(host: Host, one) -> None:
    before = host.device()["memoryUsed"]
    job = one.submit(60, api_name="/overstay")
    until("the worker allocates its gigabyte", lambda: host.device()["memoryUsed"] >= before + 1024 * MIB or host.device()["simulated"])
    until("the lease has ended", lambda: not host.query("lease")["open"])
    took = until("the memory is free again", lambda: host.device()["memoryUsed"] <= before)
    ended = host.query("lease")["ended"][0]
    check(ended["state"] == "expired", f"the lease that exceeded its duration is {ended['state']}: {ended['reason']}")
    show("call declared with 2 s that takes 60: charged", ended["chargedSeconds"], "s")
    show("from the kill until the memory is free", took * 1000, "ms")
    try:
        check(False, f"the call that exceeded its duration answered {job.result()}")
    except Exception as error:
        show("error shown to the visitor", str(error))


def turns(host: Host, one, two) -> None:
    """Two Spaces concurrently on one Slot: each has its own worker, so each call evicts the other Space's worker."""
    seen: list[str] = []

    def take(name: str, client) -> None:
        for _ in range(5):
            client.predict("", api_name="/multiply")
            seen.append(name)

    began = time.monotonic()
    both = [threading.Thread(target=take, args=args) for args in (("one", one), ("two", two))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    check(len(seen) == 10, f"of ten calls of two Spaces {len(seen)} were answered")
    show("two Spaces on one GPU: time per call", (time.monotonic() - began) * 100, "ms")
    show("order of the calls", " ".join(seen))


def unleased(host: Host, one) -> None:
    if host.device()["simulated"]:
        print("SKIPPED: a process without a lease needs a real GPU", flush=True)
        return
    external = subprocess.Popen([sys.executable, "-c", "import torch, time; x = torch.ones(2**28, device='cuda'); print('there', flush=True); time.sleep(600)"],
                                stdout=subprocess.PIPE, text=True)
    try:
        check(external.stdout.readline() == "there\n", "the external process did not get onto the GPU")
        pids = [process["pid"] for process in host.device()["processes"]]
        show("the external process is listed on the GPU", external.pid in pids)
        job = one.submit("", api_name="/multiply")
        until("the call waits for the external process", lambda: any(lease["state"] == "waiting" for lease in host.query("lease")["open"]))
        show("reason of the slot", host.device()["slots"][0].get("reason", ""))
        check(external.poll() is None, "the external process was killed")
    finally:
        external.kill()
        external.wait()
    show("the call is answered after the external process has exited", job.result(timeout=60) != "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacehost", required=True, help="spacehost binary")
    parser.add_argument("--gpus", default="auto", help="GPUs, as for `spacehost run` (default: auto)")
    options = parser.parse_args()
    try:
        import spaces  # noqa: F401
        import torch  # noqa: F401
        from gradio_client import Client
    except ImportError as missing:
        raise SystemExit(f"chain: {missing}: {sys.executable} -m pip install torch gradio spaces, or choose another Python") from missing

    with tempfile.TemporaryDirectory() as folder:
        host = Host(options.spacehost, options.gpus, pathlib.Path(folder))
        try:
            device = host.device()
            show("device", f"{device['name']}, {device['memoryTotal'] // MIB} MiB" + (", simulated" if device["simulated"] else ""))
            one, two = (Client(space["url"], verbose=False) for space in host.ready["spaces"])
            calls(one)
            overstay(host, one)
            turns(host, one, two)
            unleased(host, one)
        except Exception as error:  # with the output of the host
            raise SystemExit(f"chain: {type(error).__name__}: {error}\n{host.last_output()}") from error
        finally:
            host.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
