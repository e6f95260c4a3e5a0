"""Attacks on other processes: those of the host, of another Space, and of the host's user."""
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys

from attack import Refused, attack

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def foreign(facts, name):
    """Returns the pid of a process outside. In a pid namespace, a process of this Space may have the same number."""
    pid = facts[name]
    if os.path.exists(f"/proc/{pid}/stat"):
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] != facts.starts[str(pid)]:
                raise Refused(f"process {pid} is another one")
    return pid


def in_child(action):
    """Runs an action in a child and raises its error: the action changes the process."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(255)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number:
        raise OSError(number, os.strerror(number))
    return "no error"


def read_environ(pid, name):
    with open(f"/proc/{pid}/environ", "rb") as file:
        found = re.search(rb"(?:^|\0)" + name + rb"=([^\0]*)", file.read())
    if not found:
        raise Refused(f"no {name} in the environment")
    return found[1].decode()


def search_memory(pid, pattern):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if not area or "[vvar" in line:
                continue
            start, end = int(area[1], 16), int(area[2], 16)
            if end - start > 256 << 20:
                continue
            try:
                memory.seek(start)
                found = re.search(pattern, memory.read(end - start))
            except (OSError, ValueError, OverflowError):
                continue
            if found:
                return found[0].decode()
    raise Refused("not found in the memory")


@attack("P1 environment of the host")
def host_environment(facts):
    return read_environ(foreign(facts, "host"), b"REDTEAM_SECRET")


@attack("P1 environment of another program")
def canary_environment(facts):
    return read_environ(foreign(facts, "canary"), b"REDTEAM_CANARY")


@attack("P2 memory of another space")
def neighbour_memory(facts):
    return search_memory(foreign(facts, "victim"), rb"CANARY-of-the-victim")


@attack("P2 memory of the host")
def host_memory(facts):
    pid = foreign(facts, "host")
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(int(maps.readline().split("-")[0], 16))
        return memory.read(4)


@attack("P3 process_vm_readv of the host")
def vm_readv(facts):
    class Area(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(16)
    local, remote = Area(ctypes.addressof(buffer), 16), Area(facts.host_address, 16)
    checked(libc.process_vm_readv(foreign(facts, "host"), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0), "process_vm_readv")
    return buffer.raw[:4]


@attack("P3 ptrace of another program")
def trace(facts):
    pid = foreign(facts, "canary")
    return in_child(lambda: checked(libc.ptrace(0x4206, pid, 0, 0), "PTRACE_SEIZE"))  # the tracer's exit detaches it


@attack("P3 descriptor of the host by pidfd_getfd")
def take_descriptor(facts):
    descriptor = os.pidfd_open(foreign(facts, "host"))
    try:
        return checked(libc.syscall(438, descriptor, 1, 0), "pidfd_getfd")
    finally:
        os.close(descriptor)


@attack("P4 signal the host")
def signal_host(facts):
    pid = foreign(facts, "host")
    os.kill(pid, signal.SIGURG)  # harmless: the Go runtime uses it
    return pid


@attack("P4 signal another space")
def signal_neighbour(facts):
    pid = foreign(facts, "victim")
    os.kill(pid, signal.SIGCONT)
    return pid


@attack("P4 kill another program")
def kill_canary(facts):
    pid = foreign(facts, "killable")
    os.kill(pid, signal.SIGKILL)
    return pid


@attack("P4 kill every process that it may")
def kill_all(facts):
    """Signal 0 to all: the kernel counts the processes that a SIGKILL would reach, and fails if there are none."""
    os.kill(-1, 0)
    outside = [name for name in ("host", "victim", "canary") if reachable(facts, name)]
    if not outside:
        raise Refused("none of them belongs to the host")
    return outside


def reachable(facts, name):
    try:
        os.kill(foreign(facts, name), 0)
    except OSError:
        return False
    return True


@attack("P4 raise the oom score of another program")
def oom_score(facts):
    path = f"/proc/{foreign(facts, 'canary')}/oom_score_adj"
    with open(path) as file:
        present = file.read()
    with open(path, "w") as file:
        file.write(present)
    return present


@attack("P4 limit the resources of another program")
def prlimit(facts):
    """RLIMIT_CPU would end it. This limit is harmless."""
    import resource

    return resource.prlimit(foreign(facts, "canary"), resource.RLIMIT_CORE, (0, 0))


@attack("P4 priority of another program")
def priority(facts):
    os.setpriority(os.PRIO_PROCESS, foreign(facts, "canary"), 1)
    return "set"


@attack("P4 CPUs of another program")
def affinity(facts):
    pid = foreign(facts, "canary")
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    return "set"


@attack("P10 System V memory of another program")
def system_v(facts):
    libc.shmat.restype = ctypes.c_void_p
    identifier = checked(libc.shmget(facts.system_v, 0, 0), "shmget")
    address = libc.shmat(identifier, None, 0o10000)  # SHM_RDONLY
    if address == ctypes.c_void_p(-1).value:
        checked(-1, "shmat")
    return ctypes.string_at(address, 13).decode()


CONTROL = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10)
connection.connect(sys.argv[1])
try:
    connection.sendall(f"POST /login-link HTTP/1.1\\r\\nHost: spacehost\\r\\nX-Spacehost-Key: {sys.argv[2]}\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
    received = b""
    while part := connection.recv(65536):
        received += part
except (BrokenPipeError, ConnectionResetError):
    pass
sys.exit(0 if received else "closed without an answer")
"""

# The daemon has no parent, session, group and marker of the Space.
DAEMON = "import os, sys\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nos.execve(sys.executable, [sys.executable, '-I', '-c', *sys.argv[1:]], {})"


def control(facts, before=()):
    arguments = [CONTROL, facts.state + "/control.sock", facts.control_key]
    done = subprocess.run([sys.executable, "-I", "-c", *before, *arguments], capture_output=True, text=True, env={}, timeout=30)
    if done.returncode or done.stderr:
        raise Refused(done.stderr)
    return "an answer of the control socket"


@attack("P5 control socket with its key")
def control_socket(facts):
    return control(facts)


@attack("P5 control socket with its key, from a daemon")
def control_daemon(facts):
    return control(facts, [DAEMON])


@attack("P7 leave the cgroup")
def leave_cgroup(facts):
    """A child moves itself to the cgroup above all others, and exits."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(root + "/cgroup.procs"):
            code = f"import os; open({root + '/cgroup.procs'!r}, 'w').write(str(os.getpid()))"
            done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise Refused(done.stderr.splitlines()[-1])
            return root
    raise FileNotFoundError("cgroup.procs")


@attack("P8 command lines of other programs")
def command_lines(facts):
    for process in os.listdir("/proc"):
        try:
            with open(f"/proc/{process}/cmdline") as file:
                if facts.canary_argument in file.read():
                    return process
        except OSError:
            pass
    raise Refused("no such process")


@attack("P9 environment of process 1")
def init_environment(facts):
    with open("/proc/1/environ", "rb") as file:
        return len(file.read())


@attack("P9 descriptors of process 1")
def init_descriptors(facts):
    return [os.readlink(f"/proc/1/fd/{number}") for number in os.listdir("/proc/1/fd")]


@attack("P9 memory of process 1")
def init_memory(facts):
    with open("/proc/1/mem", "rb", 0) as memory, open("/proc/1/maps") as maps:
        memory.seek(int(maps.readline().split("-")[0], 16))
        return memory.read(4)


# A small interpreter forks faster than this process.
MANY = """
import os, signal
children = []
try:
    for _ in range(400):
        if (child := os.fork()) == 0:
            signal.pause()
        children.append(child)
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
"""


@attack("R1 400 processes")
def processes(facts):
    done = subprocess.run([sys.executable, "-I", "-S", "-c", MANY], capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr.splitlines()[-1])
    return 400


@attack("allowed: signal and read a child")
def own_child(facts):
    child = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(60)"])
    try:
        with open(f"/proc/{child.pid}/status") as file:
            name = file.readline()
    finally:
        child.kill()
    return name, child.wait()


@attack("allowed: limit its own resources")
def own_limit(facts):
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)  # reading is allowed with any pid


@attack("allowed: pass descriptors between its processes")
def own_descriptors(facts):
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other, open("/proc/self/stat") as file:
        socket.send_fds(one, [b"x"], [file.fileno()])
        descriptors = socket.recv_fds(other, 1, 1)[1]
        os.close(descriptors[0])
    return descriptors
