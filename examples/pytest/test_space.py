"""The Space with and without a GPU, at the end of a lease, and without quota. The GPUs are SIMULATED: functions run on the CPU."""

import time

import pytest
from gradio_client.exceptions import AppError

TIMEOUT = 60  # seconds per call


def predict(client, name, *args):
    return client.submit(*args, api_name=name).result(timeout=TIMEOUT)


def test_a_gpu_function_returns_its_value(spacehost_client):
    assert predict(spacehost_client, "/double", 21) == 42


def test_only_a_gpu_function_sees_the_gpu(spacehost_client):
    inside, outside = predict(spacehost_client, "/devices")
    assert inside.startswith("GPU-")
    assert outside == ""


def test_the_error_of_a_gpu_function_reaches_the_visitor(spacehost_client):
    with pytest.raises(AppError, match="give me a number above 0"):
        predict(spacehost_client, "/double", -1)


def test_a_worker_that_exceeds_its_duration_is_killed(spacehost_client):
    job = spacehost_client.submit(api_name="/overstay")  # declares 2 seconds, takes 60
    with pytest.raises(AppError, match="GPU task aborted"):
        job.result(timeout=TIMEOUT)
    (pid,) = job.outputs()
    assert gone(spacehost_client, pid)
    assert predict(spacehost_client, "/double", 1) == 2, "the Space keeps running"


@pytest.mark.spacehost(tier="free", quota={"tiers": {"free": {"quota": "11s"}}})
def test_a_call_is_refused_without_quota_until_the_next_day(spacehost_host, spacehost_client):
    with pytest.raises(AppError, match="GPU task aborted"):
        predict(spacehost_client, "/overstay")
    assert spacehost_host.quota()["leftSeconds"] == pytest.approx(9, abs=0.5)
    with pytest.raises(AppError, match="exceeded your free ZeroGPU quota"):
        predict(spacehost_client, "/double", 21)  # declares 10 seconds
    spacehost_host.advance_clock("24h")
    assert predict(spacehost_client, "/double", 21) == 42


def gone(client, pid):
    """Waits until the process has exited."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if not predict(client, "/is_running", pid):
            return True
        time.sleep(0.05)
    return False
