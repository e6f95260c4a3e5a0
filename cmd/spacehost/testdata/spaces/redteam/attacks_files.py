"""Attacks on files: the home of the host's user, the state folder, other Spaces, and what Spaces share."""
import glob
import os
import sqlite3

from attack import Refused, attack


def read(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def append(path, facts):
    with open(path, "a") as file:
        file.write(f"\n# {facts.mark}\n")
    return path


def one(pattern):
    found = glob.glob(pattern)
    if not found:
        raise FileNotFoundError(pattern)
    return found[0]


# F1 to F9 read and write what the test has planted. The test looks at each written file from outside.
TARGETS = {
    "F1 ssh key": lambda facts: f"{facts.home}/.ssh/id_ed25519",
    "F1 bashrc": lambda facts: f"{facts.home}/.bashrc",
    "F2 hub token": lambda facts: f"{facts.home}/.cache/huggingface/token",
    "F3 signing key": lambda facts: one(f"{facts.state}/keys/*.key"),
    "F3 control key": lambda facts: f"{facts.state}/control.key",
    "F5 source of another space": lambda facts: f"{facts.victim_folder}/app.py",
    "F5 home of another space": lambda facts: f"{facts.state}/spaces/victim/home/note.txt",
    "F6 runner": lambda facts: facts.runner,
    "F7 environment": lambda facts: f"{facts.environment}/redteam.txt",
    "F8 uv cache": lambda facts: f"{facts.home}/.cache/uv/wheel.txt",
    "F9 model": lambda facts: f"{facts.home}/.cache/huggingface/hub/models--org--model/config.json",
}

for what, target in TARGETS.items():
    attack(f"{what}: read")(lambda facts, target=target: read(target(facts)))
    attack(f"{what}: write")(lambda facts, target=target: append(target(facts), facts))


@attack("F3 state folder: list")
def list_state(facts):
    return os.listdir(facts.state)


@attack("F4 database: read")
def read_database(facts):
    with sqlite3.connect(f"file:{facts.state}/spacehost.db?mode=ro", uri=True, timeout=5) as database:
        return [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]


@attack("F4 database: write")
def write_database(facts):
    with sqlite3.connect(f"file:{facts.state}/spacehost.db?mode=rw", uri=True, timeout=5) as database:
        database.execute("begin immediate")
        database.execute(f"create table {facts.mark}(x)")
    return facts.mark


@attack("F1 ssh key: size and dates")
def stat_key(facts):
    return os.stat(f"{facts.home}/.ssh/id_ed25519")


@attack("F1 ssh key: change its mode")
def change_mode(facts):
    path = f"{facts.home}/.ssh/id_ed25519"
    os.chmod(path, os.stat(path).st_mode)  # nothing changes; the right to do it is the same
    return path


@attack("F10 shared memory of the host's user")
def shared_memory(facts):
    return read(facts.shared_memory)


@attack("F10 temporary file of another program")
def temporary_file(facts):
    return read(facts.temporary)


@attack("F11 a link in its own folder")
def linked(facts):
    """The file that the link names must not be readable by its name in the Space's folder either."""
    link = os.path.join(os.environ["HOME"], f"link-{os.getpid()}")
    os.symlink(f"{facts.home}/.ssh/id_ed25519", link)
    try:
        return read(link)
    finally:
        os.unlink(link)


@attack("F11 a hard link in its own folder")
def hard_linked(facts):
    link = os.path.join(os.environ["HOME"], f"hard-{os.getpid()}")
    os.link(f"{facts.home}/.ssh/id_ed25519", link)
    try:
        return read(link)
    finally:
        os.unlink(link)


@attack("F12 descriptors that lead outside")
def descriptors(facts):
    """Descriptors of files and folders whose names do not exist in the view of this process."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if path.startswith("/") and not path.startswith(("/dev/", "/memfd:", "/proc/")) and not os.path.exists(path.removesuffix(" (deleted)")):
            found.append(path)
    if not found:
        raise Refused("every descriptor leads to a file of this view")
    return found


@attack("F12 roots and folders of other processes")
def other_roots(facts):
    """/proc shows the root of each process, which has a view of its own."""
    for process in os.listdir("/proc"):
        if process.isdigit() and int(process) != os.getpid():
            for entry in ("root", "cwd"):
                try:
                    return read(f"/proc/{process}/{entry}{facts.home}/.ssh/id_ed25519")
                except OSError:
                    pass
    raise Refused("no process has a root with the file")


# What a Space must be able to do at every level.


@attack("allowed: write the home")
def own_home(facts):
    path = os.path.join(os.environ["HOME"], "own.txt")
    with open(path, "w") as file:
        file.write("own")
    return read(path)


@attack("allowed: write the folder of the Space")
def own_folder(facts):
    for name in ("own.txt", "shipped.txt"):  # the second exists outside, too
        with open(name, "w") as file:
            file.write("own")
    return read("own.txt")


@attack("allowed: write temporary files")
def own_temporary(facts):
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"own")
    return file.name


@attack("allowed: download into the Hub cache")
def own_model(facts):
    folder = os.path.join(os.environ["HF_HOME"], "hub", f"models--own--{os.getpid()}")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        file.write("own")
    return folder


@attack("allowed: shared memory of its own")
def own_shared_memory(facts):
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=64)
    memory.close()
    memory.unlink()
    return memory.name
