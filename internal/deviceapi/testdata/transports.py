"""Prints the results of the real `spaces` client for unusual and broken answers, with the transport that the environment selects."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

import httpx
from spaces.zero.api import APIClient

TIMEOUT = 2  # seconds, for both transports
GRANT = '{"idle":false,"nvidiaIndex":0,"nvidiaUUID":"GPU-fake-0","allowToken":"t"}'
STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str) -> str:
    return f"{len(text):x}\r\n{text}\r\n"


def answers() -> dict[str, list[str]]:
    """Returns the pieces of each answer, by a name for the case."""
    plain = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(GRANT)}\r\n\r\n"
    ping, succeeded = chunk("event: ping\n\n"), chunk(f"event: succeeded\ndata: {GRANT}\n\n")
    return {
        "whole": [plain + GRANT],
        "in pieces": [plain[:9], plain[9:40], plain[40:] + GRANT[:5], GRANT[5:]],
        "then closed": [plain.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n") + GRANT],
        "after that": [plain + GRANT],
        "cut in its head": [plain[:30]],
        "cut in its body": [plain + GRANT[:5]],
        "nothing": [],
        "two events at once": [STREAM + ping + succeeded + "0\r\n\r\n"],
        "a stream in pieces": [STREAM[:50], STREAM[50:], ping, succeeded, "0\r\n\r\n"],
        "a stream cut between": [STREAM + ping],
        "an error": ["HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"],
        "a refusal": ['HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"left":1,"wait":60}'],
    }


class Server:
    """Answers each request with the next pieces, on the same connection, and closes it after an incomplete answer."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.open, self.request_line = listener, [], ""

    def answer(self, pieces: list[str]) -> None:
        connection = self.next_request()
        for piece in pieces:
            connection.sendall(piece.encode())
            time.sleep(0.02)  # the client reads each piece separately
        if "Connection: close" in "".join(pieces) or not pieces or not pieces[-1].endswith(("0\r\n\r\n", "}")):
            self.open.remove(connection)
            connection.close()

    def next_request(self) -> socket.socket:
        while True:
            for ready in select.select([self.listener, *self.open], [], [])[0]:
                if ready is self.listener:
                    self.open.append(ready.accept()[0])
                elif received := ready.recv(65536):
                    self.request_line = received.decode().partition("\r\n")[0]
                    return ready
                else:
                    self.open.remove(ready)
                    ready.close()


def schedule(client: APIClient, token: str = "t") -> str:
    try:
        got, meta = client.schedule(cgroup_path="/x", token=token)
        if isinstance(got, httpx.codes) or not hasattr(got, "send"):
            return type(got).__name__ + f" {got.value if isinstance(got, httpx.codes) else got.model_dump(mode='json')}"
        events = []
        try:
            for event in got:
                events.append(event.event)
        except Exception as error:
            events.append(type(error).__name__)
        return " ".join(events)
    except Exception as error:
        return type(error).__name__


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        whole = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/d/secret", timeout=TIMEOUT)
        client, server = APIClient(transport(whole)), Server(listener)
        for what, pieces in answers().items():
            answering = threading.Thread(target=server.answer, args=(pieces,))
            answering.start()
            print(f"{what}: {schedule(client)}", flush=True)
            answering.join()
        for token in "a.b-c_d~e/f", "&t=u v+w%41?#\"\u00e4\u2603", "":
            answering = threading.Thread(target=server.answer, args=(answers()["whole"],))
            answering.start()
            print(schedule(client, token))
            answering.join()
            print("request:", server.request_line, flush=True)
        print("two at a time:", *two_threads(client, server), flush=True)
        print("no answer:", schedule(client), flush=True)
        for connection in server.open:
            connection.close()
    print("no server:", schedule(client))


def two_threads(client: APIClient, server: Server) -> list[str]:
    """Two threads send a request; the later one is answered first. A third request then reuses one of the connections."""
    results: list[str] = []
    threads, connections = [], []
    for name in "first", "second":
        threads.append(threading.Thread(target=lambda name=name: results.append(f"{name} {schedule(client)};")))
        threads[-1].start()
        connections.append(server.next_request())
    for thread, connection in reversed(list(zip(threads, connections))):
        connection.sendall(answers()["whole"][0].encode())
        thread.join()
    open_before = len(server.open)
    again = threading.Thread(target=server.answer, args=(answers()["whole"],))
    again.start()
    results.append(f"again {schedule(client)}; on a new connection: {len(server.open) > open_before}")
    again.join()
    return results


def transport(whole: httpx.Client) -> httpx.Client:
    """Returns the runner's replacement for httpx.Client if SPACEHOST_RUNNER names its folder, else httpx.Client itself."""
    if not (folder := os.environ.get("SPACEHOST_RUNNER")):
        return whole
    sys.path.insert(0, folder)
    from spacehost_runner import http_client

    http_client.TIMEOUT = TIMEOUT
    return http_client.Client(whole)


if __name__ == "__main__":
    main()
