"""Calls the device API with the client of the real `spaces` package, and prints its result for each answer."""

from __future__ import annotations

import os
import sys
import time

import httpx
from transports import transport
from spaces.zero.api import APIClient, QuotaInfos, QueueEvent, ScheduleMetadata, ScheduleResponse

ada, ben, cy, ended = sys.argv[1:]
# With the arguments of spaces/zero/client.py.
client = APIClient(transport(httpx.Client(base_url=os.environ["SPACES_ZERO_DEVICE_API_URL"], timeout=60, verify=False)))


def schedule(token: str | None, seconds: int | None = None, size: str | None = None):
    return client.schedule(
        cgroup_path="/spacehost/demo/1", task_id=140000000000001, token=token, token_version=2,
        duration_seconds=seconds, gpu_size=size,
    )


def show(what: str, got: object, meta: ScheduleMetadata | None = None) -> None:
    match got:
        case httpx.codes():
            text = str(got.value)
        case ScheduleResponse():
            text = f"granted idle={got.idle} index={got.nvidiaIndex} uuid={got.nvidiaUUID} token={len(got.allowToken)}"
        case QuotaInfos():
            text = f"left={got.left} wait={got.wait.total_seconds():g}"
        case QueueEvent():
            text = got.event
        case _:
            text = str(got)
    if meta is not None:
        text += f" [{meta.auth} {meta.queuing_reason} {meta.approve_result}]"
    print(f"{what}: {text}", flush=True)


def final_event(stream) -> tuple[int, QueueEvent]:
    """Returns the number of pings and the first other event."""
    pings = 0
    for event in stream:
        if event.event != "ping":
            return pings, event
        pings += 1
    raise RuntimeError("Unexpected end of stream")


show("startup", client.startup_report())

first, meta = schedule(ada, 60, "large")
show("at once", first, meta)
show("waiting", client.get_queue_size())

stream, meta = schedule(ben)
show("queued", next(stream), meta)
show("waiting", client.get_queue_size())
show("release", client.release(first.allowToken))
pings, event = final_event(stream)
show("then", event)
second = event.data
show("which is", second)
show("allow", client.allow(second.allowToken, 100))
show("allow a process of another Space", client.allow(second.allowToken, 200))

stream, meta = schedule(ada, 1)
pings, event = final_event(stream)
show("too long", event, meta)
show("pings meanwhile", pings > 1)

show("illegal", *schedule(ada, 211))
show("negative", *schedule(ada, 86399))
stream, meta = schedule(cy, 100)
show("hold", next(stream), meta)
show("exceeded", *schedule(cy, 60))
stream.close()  # as the client does after its visitor has left
while client.get_queue_size() > 0:
    time.sleep(0.01)
show("disconnected", client.get_queue_size())
show("ended", *schedule(ended))

show("release", client.release(second.allowToken, fail=True))
show("release again", client.release(second.allowToken, fail=True))
