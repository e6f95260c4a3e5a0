"""Attacks on the kernel: interfaces that a Space does not need, and settings of the machine."""
import ctypes
import os
import platform
import stat
import subprocess
import sys

from attack import Refused, attack
from attacks_processes import checked, in_child, libc

CALLS = {  # numbers of x86_64 and, from 400 on, of all architectures
    "x86_64": {"keyctl": 250, "userfaultfd": 323, "perf_event_open": 298, "bpf": 321, "open_by_handle_at": 304, "mount": 165, "chroot": 161, "setns": 308, "acct": 163, "syslog": 103},
    "aarch64": {"keyctl": 219, "userfaultfd": 282, "perf_event_open": 241, "bpf": 280, "open_by_handle_at": 265, "mount": 40, "chroot": 51, "setns": 268, "acct": 89, "syslog": 116},
}[platform.machine()]
CALLS |= {"io_uring_setup": 425, "fsopen": 430, "open_tree": 428}

NEW_USER = 0x10000000


def call(name, *arguments):
    return checked(libc.syscall(CALLS[name], *arguments), name)


@attack("K1 user namespace by unshare")
def unshare(facts):
    return in_child(lambda: checked(libc.unshare(NEW_USER), "unshare"))


# A process with one thread: no other thread has a lock that the child of a bare system call would wait for.
CLONE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
flags = 0x10000000
if sys.argv[1] == "clone3":
    arguments = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, 17)
    child = libc.syscall(435, ctypes.byref(arguments), ctypes.sizeof(arguments))
else:
    child = libc.syscall(int(sys.argv[1]), flags | 17, 0, 0, 0, 0)
if child < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""


def clone_by(call):
    done = subprocess.run([sys.executable, "-I", "-c", CLONE, call], capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return "a child"


@attack("K1 user namespace by clone")
def clone(facts):
    return clone_by({"x86_64": "56", "aarch64": "220"}[platform.machine()])


@attack("K1 user namespace by clone3")
def clone3(facts):
    return clone_by("clone3")


@attack("K1 keyctl")
def keyctl(facts):
    return call("keyctl", 0, -3, 0)  # KEYCTL_GET_KEYRING_ID of the session


@attack("K1 io_uring")
def io_uring(facts):
    os.close(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))
    return "open"


@attack("K1 userfaultfd")
def userfaultfd(facts):
    os.close(call("userfaultfd", 1))
    return "open"


@attack("K1 perf_event_open")
def perf_event_open(facts):
    # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, without the kernel's part
    attributes = (ctypes.c_uint64 * 16)(1 | 112 << 32, 9, 0, 0, 0, 1 << 5 | 1 << 6)
    os.close(call("perf_event_open", ctypes.byref(attributes), 0, -1, -1, 0))
    return "open"


@attack("K1 bpf")
def bpf(facts):
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)  # BPF_MAP_CREATE: an array
    os.close(call("bpf", 0, ctypes.byref(attributes), ctypes.sizeof(attributes)))
    return "open"


@attack("K1 mount")
def mount(facts):
    """The folder does not exist, so nothing is mounted. The kernel looks for it before it checks the rights."""
    try:
        return call("mount", None, b"/there is no such folder", None, 1 << 18, None)
    except FileNotFoundError as error:
        return f"the call reaches the kernel: {error}"


@attack("K1 chroot")
def chroot(facts):
    return in_child(lambda: call("chroot", b"/"))


@attack("K1 fsopen")
def fsopen(facts):
    os.close(call("fsopen", b"tmpfs", 0))
    return "open"


@attack("K1 open_by_handle_at")
def open_by_handle(facts):
    """The handle of the root of the file system, by which a container was left (shocker)."""
    folder = os.open("/usr", os.O_RDONLY)
    handle = ctypes.create_string_buffer(b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0", 16)
    try:
        os.close(call("open_by_handle_at", folder, handle, os.O_RDONLY | os.O_DIRECTORY))
        return "open"
    finally:
        os.close(folder)


@attack("K1 syslog")
def syslog(facts):
    return call("syslog", 10, None, 0)  # the size of the kernel's log


@attack("K2 capabilities")
def capabilities(facts):
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    held = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
    if held & ~(1 << 1):  # level files keeps CAP_DAC_OVERRIDE of a root host
        return hex(held)
    raise Refused("none")


@attack("K2 rights of setuid programs")
def setuid(facts):
    with open("/proc/self/status") as file:
        if "NoNewPrivs:\t1" in file.read():
            raise Refused("NO_NEW_PRIVS is set")
    return "exec gives the rights of setuid programs"


def writable(root, skip):
    """Files below root that open for writing. Opening changes nothing."""
    for folder, folders, files in os.walk(root):
        folders[:] = [one for one in folders if not os.path.islink(os.path.join(folder, one)) and not skip(folder, one)]
        for name in files:
            path = os.path.join(folder, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.W_OK):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    yield path
            except OSError:
                pass


@attack("K3 settings of the kernel in /proc")
def settings_proc(facts):
    own = ("net", "self", "thread-self")
    found = list(writable("/proc", lambda folder, name: folder == "/proc" and (name.isdigit() or name in own)))
    if not found:
        raise Refused("none is writable")
    return found


@attack("K3 settings of devices in /sys")
def settings_sys(facts):
    deep = {"devices", "module", "bus", "class", "block", "dev"}  # thousands of files; their mount is the same
    found = list(writable("/sys", lambda folder, name: folder == "/sys" and name in deep))
    if not found:
        raise Refused("none is writable")
    return found


@attack("K4 device of a disk")
def disk(facts):
    path = os.path.join(os.environ["HOME"], f"disk-{os.getpid()}")
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(*facts.disk))
    try:
        os.close(os.open(path, os.O_RDONLY))
        return path
    finally:
        os.unlink(path)


@attack("K4 memory of the kernel")
def kernel_memory(facts):
    for path in ("/proc/kcore", "/dev/mem", "/dev/kmsg"):
        try:
            with open(path, "rb", 0) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) or path != "/proc/kcore":
                    return path
        except OSError:
            pass
    raise Refused("none of the files opens")


@attack("K4 pages and memory areas of the kernel")
def kernel_pages(facts):
    """Files of /proc for root alone. A root host and its Spaces have the same uid for the kernel."""
    found = []
    for name in ("kpagecount", "kpageflags", "kpagecgroup", "vmallocinfo", "slabinfo", "iomem", "ioports"):
        try:
            with open(f"/proc/{name}", "rb", 0) as file:
                if file.read(8):
                    found.append(name)
        except OSError:
            pass
    if not found:
        raise Refused("none opens")
    return found


@attack("allowed: memfd_create")
def memfd(facts):
    os.close(os.memfd_create("own"))
    return "open"


@attack("allowed: terminals")
def terminals(facts):
    for descriptor in os.openpty():
        os.close(descriptor)
    return "open"
