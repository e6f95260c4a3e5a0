"""What ordinary programs do and the sandbox must allow."""

import asyncio
import ctypes
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer")

    def log_message(self, *args):
        pass


def square(n):
    return n * n


async def streams():
    process = await asyncio.create_subprocess_exec("/bin/echo", "async", stdout=subprocess.PIPE)
    return (await process.communicate())[0]


if __name__ == "__main__":
    ssl.create_default_context()
    assert subprocess.run(["/bin/sh", "-c", "echo shell"], capture_output=True, check=True).stdout == b"shell\n"
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    done = []
    threads = [threading.Thread(target=done.append, args=(n,)) for n in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(done) == 20
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert asyncio.run(streams()) == b"async\n"
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    os.close(os.memfd_create("cuda"))
    a, b = socket.socketpair()
    a.sendall(b"x")
    assert b.recv(1) == b"x"
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert proxies.open(f"http://127.0.0.1:{sys.argv[1]}/", timeout=30).read() == b"answer"
    socket.getaddrinfo("localhost", 80)
    assert ctypes.CDLL(None).getpid() == os.getpid()
    print("all right")
