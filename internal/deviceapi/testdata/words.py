"""Requests a GPU with the real client of the `spaces` package, and prints the title and the message that a visitor reads.

Arguments: seconds and a token for each request. The token may be empty. Environment: SPACES_ZERO_DEVICE_API_URL.
"""
import os
import sys
from datetime import timedelta

os.environ["SPACES_ZERO_GPU"] = "true"

from starlette.datastructures import Headers  # noqa: E402

from spaces.zero import client  # noqa: E402


class Request:
    """The part of gradio.Request that the client reads."""

    def __init__(self, token):
        self.headers = Headers({"x-ip-token": token} if token else {})


for seconds, token in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        client.schedule(task_id=1, request=Request(token), duration=timedelta(seconds=int(seconds)))
    except Exception as error:
        print(f"{getattr(error, 'title', type(error).__name__)}: {getattr(error, 'message', error)}")
    else:
        print("granted")
