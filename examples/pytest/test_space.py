"""What the Space does with a GPU, without and at its end. SIMULATED GPUs: the functions run on the CPU."""

import os
import time

import pytest
from gradio_client.exceptions import AppError

PATIENCE = 60  # seconds: what takes longer is broken


def predict(client, name, *args):
    return client.submit(*args, api_name=name).result(timeout=PATIENCE)


def test_a_gpu_function_returns_its_value(client):
    assert predict(client, "/double", 21) == 42


def test_a_gpu_is_seen_inside_a_gpu_function_alone(client):
    inside, outside = predict(client, "/devices")
    assert inside.startswith("GPU-")
    assert outside == ""


def test_the_error_of_a_gpu_function_reaches_the_visitor(client):
    with pytest.raises(AppError, match="give me a number above 0"):
        predict(client, "/double", -1)


def test_a_worker_that_overstays_is_ended(client):
    job = client.submit(api_name="/overstay")  # declares 2 seconds, takes 60
    with pytest.raises(AppError, match="GPU task aborted"):
        job.result(timeout=PATIENCE)
    (pid,) = job.outputs()
    assert gone(int(pid))
    assert predict(client, "/double", 1) == 2, "the Space lives on"


def gone(pid):
    """Waits for the end of a process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
