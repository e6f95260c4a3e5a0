"""Attacks on services of this machine, of its networks and of the host."""
import base64
import hashlib
import hmac
import json
import os
import socket
import struct
import urllib.error
import urllib.request

from attack import Refused, attack
from attacks_files import one
from attacks_processes import foreign, search_memory

PATIENCE = 3


def conversation(connection, address):
    """Returns the first bytes of the service, which the test compares with the canary."""
    with connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        return received(connection)


def received(connection):
    data = connection.recv(100)
    if not data:
        raise Refused("closed without an answer")
    return data.decode(errors="replace")


def tcp(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return conversation(socket.socket(family, kind, protocol), address)


# The same service by all names of the loopback address, and by the other addresses of this machine.
LOOPBACK = {
    "127.0.0.1": "127.0.0.1", "another address of the network": "127.8.9.10", "::1": "::1", "IPv4-mapped": "::ffff:127.0.0.1",
    "a decimal number": "2130706433", "a hexadecimal number": "0x7f000001", "two parts": "127.1", "0.0.0.0": "0.0.0.0",
    "::": "::", "localhost": "localhost",
}

for what, host in LOOPBACK.items():
    attack(f"N4 loopback by {what}")(lambda facts, host=host: tcp(host, facts.port))


@attack("N4 loopback by MPTCP")
def mptcp(facts):
    return conversation(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262), ("127.0.0.1", facts.port))


@attack("N4 loopback by TCP fast open")
def fast_open(facts):
    with socket.socket() as connection:  # it blocks: otherwise sendto fails with EINPROGRESS
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PATIENCE, 0))
        connection.sendto(b"x", 0x20000000, ("127.0.0.1", facts.port))  # MSG_FASTOPEN
        return received(connection)


def udp(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        connection.sendto(b"x", (host, port))
        if connection.getsockname()[1] == port:
            raise Refused("the port of this socket")
        return connection.recv(100).decode()


@attack("N4 loopback by UDP")
def udp_loopback(facts):
    return udp("127.0.0.1", facts.port)


@attack("N4 loopback by UDP over IPv6")
def udp_loopback6(facts):
    return udp("::1", facts.port)


@attack("N5 another address of this machine")
def machine(facts):
    return tcp(facts.machine, facts.port)


@attack("N5 another address of this machine by UDP")
def machine_udp(facts):
    return udp(facts.machine, facts.port)


@attack("N5 the metadata service of clouds")
def metadata(facts):
    return tcp("169.254.169.254", facts.port)


@attack("N5 a private network")
def private(facts):
    return tcp("10.213.7.1", facts.port)


@attack("N5 a name of this machine in the DNS")
def private_name(facts):
    """Asks the resolver for a name with a private address. The answer is public or empty inside."""
    found = {entry[4][0] for entry in socket.getaddrinfo(facts.machine_name, 80, proto=socket.IPPROTO_TCP)}
    if not any(address == facts.machine for address in found):
        raise Refused(found)
    return found


@attack("N7 abstract unix socket")
def abstract(facts):
    return conversation(socket.socket(socket.AF_UNIX), "\0" + facts.abstract)


@attack("N7 named unix socket")
def named(facts):
    return conversation(socket.socket(socket.AF_UNIX), facts.named)


for family in ("AF_VSOCK", "AF_PACKET", "AF_ALG", "AF_KEY", "AF_BLUETOOTH"):
    kind = {"AF_PACKET": socket.SOCK_RAW, "AF_ALG": socket.SOCK_SEQPACKET, "AF_KEY": socket.SOCK_RAW, "AF_BLUETOOTH": socket.SOCK_RAW}.get(family, socket.SOCK_STREAM)
    number = getattr(socket, family, {"AF_KEY": 15, "AF_BLUETOOTH": 31}.get(family))

    def open_family(facts, number=number, kind=kind, family=family):
        socket.socket(number, kind, 2 if family == "AF_KEY" else 0).close()  # PF_KEY_V2
        return family

    attack(f"N7 sockets of {family}")(open_family)


@attack("N7 raw sockets")
def raw(facts):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()
    return "open"


@attack("N7 sockets of other programs")
def listed(facts):
    with open("/proc/net/tcp") as file:
        if f":{facts.hidden_port:04X} " not in file.read() + open("/proc/net/tcp6").read():
            raise Refused("the port of the service is not listed")
    return facts.hidden_port


def listen(facts, bind):
    listener = socket.socket()
    if bind:
        listener.bind(("0.0.0.0", 0))
    listener.listen()
    listener.settimeout(20)

    import threading

    def serve():
        with listener:
            try:
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(facts.mark.encode())
                    connection.close()
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


@attack("N6 listen at every address")
def listen_bound(facts):
    return listen(facts, True)


@attack("N6 listen without bind")
def listen_unbound(facts):
    return listen(facts, False)


def http(url, headers={}, method="GET"):
    """Returns status and body. Any answer shows that the server is reachable."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=10) as answer:
            return answer.status, answer.read(100_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(1000).decode(errors="replace")


@attack("N1 server of another space")
def neighbour(facts):
    return http(f"http://127.0.0.1:{facts.victim_port}/config")[0]


def schedule(door, token=""):
    status, body = http(f"{door}/schedule?cgroupPath=/x&taskId=1&enableQueue=true&tokenVersion=2&durationSeconds=5&token={token}", method="POST")
    if status != 200:
        raise Refused(status)
    allow = json.loads(body)["allowToken"]
    http(f"{door}/release?allowToken={allow}&fail=true", method="POST")
    return "a GPU"


@attack("N2 GPU on the account of another space")
def neighbour_door(facts):
    return schedule(search_memory(foreign(facts, "victim"), rb"http://127\.0\.0\.1:[0-9]+/d/[0-9a-f]{32}"))


@attack("N2 GPU on the account of another space, whose secret path is known")
def neighbour_door_known(facts):
    own = os.environ["SPACES_ZERO_DEVICE_API_URL"]
    return schedule(own.rsplit("/", 1)[0] + "/" + facts.victim_door.rsplit("/", 1)[1])


@attack("N3 GPU on the account of a person, by a forged token")
def forged(facts):
    key_file = one(f"{facts.state}/keys/*.key")
    with open(key_file, "rb") as file:
        key = file.read()
    header, payload, _ = facts.token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "user:ada"
    if "tier" in claims:
        claims["tier"] = "pro"
    body = header.encode() + b"." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.new(key, body, hashlib.sha256).digest()).rstrip(b"=")
    return schedule(os.environ["SPACES_ZERO_DEVICE_API_URL"], (body + b"." + signature).decode())


@attack("N8 metrics")
def metrics(facts):
    status, body = http(facts.console + "/metrics")
    if status != 200:
        raise Refused(status)
    return body


@attack("N8 private space of another person")
def private_space(facts):
    status, body = http(facts.victim_url + "/config")
    if status != 200:
        raise Refused(status)
    return body


@attack("N9 sockets of this machine by netlink")
def netlink(facts):
    """Asks the kernel for all listening sockets (SOCK_DIAG_BY_FAMILY)."""
    ports = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as connection:
            connection.settimeout(PATIENCE)
            request = struct.pack("<BBBxI", family, socket.IPPROTO_TCP, 0, 1 << 10) + bytes(48)
            connection.send(struct.pack("<IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
            while parse_diag(connection.recv(1 << 20), ports):
                pass
    if facts.hidden_port not in ports:
        raise Refused("the port of the service is not listed")
    return facts.hidden_port


def parse_diag(data, ports):
    """Adds the ports of an answer, and returns whether another one follows."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("<IH", data)
        if kind in (2, 3):  # NLMSG_ERROR, NLMSG_DONE
            return False
        ports.add(struct.unpack_from(">H", data, 20)[0])  # idiag_sport
        data = data[(length + 3) & ~3:]
    return True


@attack("allowed: its own server on loopback")
def own_server(facts):
    import __main__

    with socket.create_connection(("127.0.0.1", __main__.demo.server_port), PATIENCE):
        return "connected"


@attack("allowed: call a public space")
def public_space(facts):
    status, _ = http(facts.public_url + "/config")
    if status != 200:
        raise Refused(status)
    return status


@attack("allowed: the Hub's API of the host")
def hub_api(facts):
    status, body = http(facts.console + "/api/spaces/zero-gpu/quota")
    if status != 200:
        raise Refused(f"{status} {body}")
    return status
