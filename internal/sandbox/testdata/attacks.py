"""Tries what level `files` refuses and what it must allow. Prints the errno of each attempt; "ok" means success.

Without the sandbox every attempt succeeds, except those that the ordinary user may not make.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys

args = json.loads(sys.argv[1])
inside, outside, pid = args["inside"], args["outside"], args["pid"]
libc = ctypes.CDLL(None, use_errno=True)
attempts = []


def attempt(function):
    attempts.append(function)
    return function


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "call")


def read(path):
    with open(path, "rb") as file:
        file.read(64)


def tcp(port, host="127.0.0.1", family=socket.AF_INET, protocol=0):
    with socket.socket(family, socket.SOCK_STREAM, protocol) as s:
        s.connect((host, port))


def fastopen(send):
    with socket.socket() as s:
        send(s, ("127.0.0.1", args["unlisted"]))


def bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()


# Files


@attempt
def read_outside():
    read(f"{outside}/secret")


@attempt
def read_link_to_outside():
    os.symlink(f"{outside}/secret", f"{inside}/link")
    read(f"{inside}/link")


@attempt
def list_outside():
    os.listdir(outside)


@attempt
def write_outside():
    with open(f"{outside}/secret", "r+b") as file:
        file.write(b"x")


@attempt
def truncate_outside():
    os.truncate(f"{outside}/secret", 3)


@attempt
def create_outside():
    os.close(os.open(f"{outside}/new", os.O_CREAT | os.O_WRONLY))


@attempt
def make_folder_outside():
    os.mkdir(f"{outside}/folder")


@attempt
def remove_outside():
    os.remove(f"{outside}/removable")


@attempt
def rename_into_outside():
    os.close(os.open(f"{inside}/mine", os.O_CREAT | os.O_WRONLY))
    os.rename(f"{inside}/mine", f"{outside}/mine")


@attempt
def link_from_outside():
    os.link(f"{outside}/secret", f"{inside}/hardlink")


@attempt
def write_read_only():
    with open(args["readable"], "r+b") as file:
        file.write(b"x")


@attempt
def read_read_only():
    read(args["readable"])


@attempt
def device_node():
    os.mknod(f"{inside}/node", stat.S_IFCHR | 0o600, os.makedev(0, 0))


@attempt
def work_inside():
    os.mkdir(f"{inside}/a")
    os.mkdir(f"{inside}/b")
    with open(f"{inside}/a/file", "wb") as file:
        file.write(b"text")
    os.rename(f"{inside}/a/file", f"{inside}/b/file")
    os.truncate(f"{inside}/b/file", 1)
    os.mkfifo(f"{inside}/fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{inside}/socket")
    os.remove(f"{inside}/b/file")
    os.rmdir(f"{inside}/b")


# Processes


@attempt
def signal_outside():
    os.kill(pid, signal.SIGCONT)


@attempt
def pidfd_outside():
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGCONT)
    finally:
        os.close(fd)


@attempt
def signal_child():
    child = subprocess.Popen(["/bin/sleep", "60"])
    child.kill()
    if child.wait() != -signal.SIGKILL:
        raise OSError(errno.ECHILD, "not killed")


@attempt
def memory_of_child():
    child = subprocess.Popen(["/bin/sleep", "60"])
    try:
        read(f"/proc/{child.pid}/environ")
    finally:
        child.kill()
        child.wait()


@attempt
def environment_outside():
    read(f"/proc/{pid}/environ")


@attempt
def memory_outside():
    read(f"/proc/{pid}/maps")


@attempt
def process_vm_readv():
    buffer = ctypes.create_string_buffer(16)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)
    remote = (ctypes.c_void_p * 2)(args["address"], 16)
    checked(libc.process_vm_readv(pid, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)))
    assert buffer.raw == b"secret in memory"


@attempt
def descriptor_outside():
    fd = os.pidfd_open(pid)
    try:
        copy = libc.syscall(438, fd, 0, 0)  # pidfd_getfd
        checked(copy)
        os.close(copy)
    finally:
        os.close(fd)


@attempt
def ptrace():
    checked(libc.ptrace(0x4206, pid, None, None))  # PTRACE_SEIZE; it ends with this process


@attempt
def kernel_settings():
    with open("/proc/sys/kernel/core_pattern", "r+b"):
        pass


@attempt
def thread_name():  # CUDA does this
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/comm", "w") as file:
        file.write("renamed")


# Network


@attempt
def connect_listed():
    tcp(args["listed"])


@attempt
def connect_unlisted():
    tcp(args["unlisted"])


@attempt
def connect_unlisted_v6():
    tcp(args["unlisted"], "::1", socket.AF_INET6)


@attempt
def connect_unlisted_mapped():
    tcp(args["unlisted"], "::ffff:127.0.0.1", socket.AF_INET6)


@attempt
def connect_mptcp():
    tcp(args["unlisted"], protocol=262)


@attempt
def connect_fastopen_sendto():
    fastopen(lambda s, to: s.sendto(b"x", socket.MSG_FASTOPEN, to))


@attempt
def connect_fastopen_sendmsg():
    fastopen(lambda s, to: s.sendmsg([b"x"], [], socket.MSG_FASTOPEN, to))


@attempt
def connect_fastopen_option():
    def send(s, to):
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        s.connect(to)
        s.send(b"x")

    fastopen(send)


@attempt
def bind_listed():
    bind(args["bind_listed"])


@attempt
def bind_unlisted():
    bind(args["bind_unlisted"])


@attempt
def bind_any():
    bind(0)


@attempt
def abstract_stream():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + args["abstract"])


@attempt
def abstract_datagram():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", "\0" + args["abstract"] + "-datagram")


@attempt
def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()


@attempt
def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


# Kernel


@attempt
def change_owner():
    os.chown(f"{outside}/secret", 4711, 4711)


@attempt
def unshare():
    checked(libc.unshare(0x10000000))  # CLONE_NEWUSER; the last attempt, because it changes this process


def status(name):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))


def name_of(error):
    return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]  # it has two names


answers = {}
for function in attempts:
    try:
        function()
        answers[function.__name__] = "ok"
    except OSError as error:
        answers[function.__name__] = name_of(error)
print(json.dumps({
    "answers": answers, "pid": os.getpid(), "canary": os.environ.get("CANARY"), "argv": sys.argv[2:], "folder": os.getcwd(),
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "capabilities": int(status("CapPrm"), 16) | int(status("CapAmb"), 16), "files": list(__import__("resource").getrlimit(7)),
}))
