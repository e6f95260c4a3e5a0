"""A process outside of the sandbox: it has a secret, an abstract socket and two TCP ports, and ends with its input."""

import ctypes
import json
import os
import socket
import sys

ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER_ANY: only Landlock refuses
secret = ctypes.create_string_buffer(b"secret in memory")
abstract = f"\0spacehost-test-{os.getpid()}"
unix = socket.socket(socket.AF_UNIX)
unix.bind(abstract)
unix.listen()
datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagram.bind(abstract + "-datagram")
tcp = [socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) for _ in range(2)]
ports = [s.getsockname()[1] for s in tcp]
free = [socket.socket() for _ in range(2)]
for s in free:
    s.bind(("127.0.0.1", 0))
print(json.dumps({
    "pid": os.getpid(), "address": ctypes.addressof(secret), "abstract": abstract[1:], "listed": ports[0], "unlisted": ports[1],
    "bind_listed": free[0].getsockname()[1], "bind_unlisted": free[1].getsockname()[1],
}), flush=True)
for s in free:
    s.close()
sys.stdin.read()
