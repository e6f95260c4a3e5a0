"""The Space with and without a GPU, and at the end of a lease. The GPUs are SIMULATED: functions run on the CPU."""

import time

import pytest
from gradio_client.exceptions import AppError

TIMEOUT = 60  # seconds per call


def predict(client, name, *args):
    return client.submit(*args, api_name=name).result(timeout=TIMEOUT)


def test_a_gpu_function_returns_its_value(client):
    assert predict(client, "/double", 21) == 42


def test_only_a_gpu_function_sees_the_gpu(client):
    inside, outside = predict(client, "/devices")
    assert inside.startswith("GPU-")
    assert outside == ""


def test_the_error_of_a_gpu_function_reaches_the_visitor(client):
    with pytest.raises(AppError, match="give me a number above 0"):
        predict(client, "/double", -1)


def test_a_worker_that_exceeds_its_duration_is_killed(client):
    job = client.submit(api_name="/overstay")  # declares 2 seconds, takes 60
    with pytest.raises(AppError, match="GPU task aborted"):
        job.result(timeout=TIMEOUT)
    (pid,) = job.outputs()
    assert gone(client, pid)
    assert predict(client, "/double", 1) == 2, "the Space keeps running"


def gone(client, pid):
    """Waits until the process has exited."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if not predict(client, "/is_running", pid):
            return True
        time.sleep(0.05)
    return False
