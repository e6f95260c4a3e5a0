"""Calls the device API by the client of the real `spaces` package, and prints what that makes of each answer."""

from __future__ import annotations

import os
import sys
import time

import httpx
from manners import means
from spaces.zero.api import APIClient, QuotaInfos, QueueEvent, ScheduleMetadata, ScheduleResponse

ada, ben, cy, ended = sys.argv[1:]
# As spaces/zero/client.py makes it.
client = APIClient(means(httpx.Client(base_url=os.environ["SPACES_ZERO_DEVICE_API_URL"], timeout=60, verify=False)))


def schedule(token: str | None, seconds: int | None = None, size: str | None = None):
    return client.schedule(
        cgroup_path="/spacehost/demo/1", task_id=140000000000001, token=token, token_version=2,
        duration_seconds=seconds, gpu_size=size,
    )


def say(what: str, got: object, meta: ScheduleMetadata | None = None) -> None:
    match got:
        case httpx.codes():
            words = str(got.value)
        case ScheduleResponse():
            words = f"granted idle={got.idle} index={got.nvidiaIndex} uuid={got.nvidiaUUID} token={len(got.allowToken)}"
        case QuotaInfos():
            words = f"left={got.left} wait={got.wait.total_seconds():g}"
        case QueueEvent():
            words = got.event
        case _:
            words = str(got)
    if meta is not None:
        words += f" [{meta.auth} {meta.queuing_reason} {meta.approve_result}]"
    print(f"{what}: {words}", flush=True)


def rest(stream) -> tuple[int, QueueEvent]:
    """Counts pings up to the event that decides."""
    pings = 0
    for event in stream:
        if event.event != "ping":
            return pings, event
        pings += 1
    raise RuntimeError("Unexpected end of stream")


say("startup", client.startup_report())

first, meta = schedule(ada, 60, "large")
say("at once", first, meta)
say("waiting", client.get_queue_size())

stream, meta = schedule(ben)
say("queued", next(stream), meta)
say("waiting", client.get_queue_size())
say("release", client.release(first.allowToken))
pings, event = rest(stream)
say("then", event)
second = event.data
say("which is", second)
say("allow", client.allow(second.allowToken, 100))
say("allow a stranger", client.allow(second.allowToken, 200))

stream, meta = schedule(ada, 1)
pings, event = rest(stream)
say("too long", event, meta)
say("pings meanwhile", pings > 1)

say("illegal", *schedule(ada, 211))
say("negative", *schedule(ada, 86399))
stream, meta = schedule(cy, 100)
say("hold", next(stream), meta)
say("exceeded", *schedule(cy, 60))
stream.close()  # as it does once its visitor has left
while client.get_queue_size() > 0:
    time.sleep(0.01)
say("hung up", client.get_queue_size())
say("ended", *schedule(ended))

say("release", client.release(second.allowToken, fail=True))
say("release again", client.release(second.allowToken, fail=True))
