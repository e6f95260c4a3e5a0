"""A Space that attacks its host. It writes frames itself, and does what its visitor requests."""
import http.server
import json
import socket
import struct
import sys
import threading
import urllib.parse

CHANNEL = 1000  # the descriptor of the runner's channel (liveness.py, HIGH)
opened = []


def send(header):
    data = json.dumps(header).encode()
    with open(CHANNEL, "wb", buffering=0, closefd=False) as channel:
        left = memoryview(struct.pack(">II", len(data), 0) + data)
        while left:
            left = left[channel.write(left):]


def send_frames(frames):
    """Sends frames. Each one is repeated `times` times, and then the manifests are numbered."""
    for frame in frames:
        for number in range(frame.pop("times", 1)):
            send({**frame, "app": number} if frame["op"] == "manifest" else frame)


def open_connections(number, address):
    """Opens connections and returns how many of them the host keeps open."""
    for _ in range(number):
        opened.append(socket.create_connection(address, 60))
    kept = 0
    for connection in opened:
        connection.settimeout(60)
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Spacehost-Hop: 1\r\n\r\n")  # the host answers it alone
            kept += connection.recv(100).startswith(b"HTTP/1.1 508")
        except OSError:
            pass
    return kept


def relay(address):
    """Returns a port of its own. All bytes that arrive there go to an address of the host, and back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept():
        while True:
            visitor, _ = listener.accept()
            host = socket.create_connection(address)
            threading.Thread(target=copy, args=(visitor, host), daemon=True).start()
            threading.Thread(target=copy, args=(host, visitor), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def print_lines(size):
    line = "x" * 99 + "\n"
    for _ in range(size // 100):
        sys.stdout.write(line)
    print("the last line", flush=True)


def close_connections():
    while opened:
        opened.pop().close()


ACTIONS = {
    "/frames": send_frames,
    "/connections": lambda number, address: open_connections(number, tuple(address)),
    "/close": close_connections,
    "/relay": lambda address: relay(tuple(address)),
    "/print": print_lines,
    "/write": lambda text: (sys.stdout.buffer.write(text.encode("latin-1")), sys.stdout.flush()) and None,
}


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        result = json.dumps(ACTIONS[urllib.parse.urlparse(self.path).path](*arguments)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(result)))
        self.end_headers()
        self.wfile.write(result)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
send({"op": "server", "port": server.server_port})
server.serve_forever()
