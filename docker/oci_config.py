"""Prints the configuration of an OCI runtime that corresponds to `docker run` of an image without an ENTRYPOINT of its own.

    docker/oci_config.py ROOT --profile default.json [--rule FILE] [--systempaths-unconfined] [--env NAME=VALUE ...] -- COMMAND

docker/check uses it, because no engine is needed to run a container: the options that decide what spacehost may do in one are
those of the runtime. The values are Docker's: capabilities, masked and read-only paths, and its seccomp profile, which has rules
that depend on capabilities and architecture (github.com/moby/profiles). The network is that of the machine.
"""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

CAPABILITIES = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
]  # fmt: skip
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
ARCHITECTURES = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}


def mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


MOUNTS = [
    mount("/proc", "proc", "nosuid", "noexec", "nodev"),
    mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=67108864"),
    mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
]


def applies(rule: dict[str, Any], arch: str) -> bool:
    """Reports whether Docker applies a rule of its profile to a container with its usual capabilities."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        set(includes.get("caps") or []) <= set(CAPABILITIES)
        and (not includes.get("arches") or arch in includes["arches"])
        and not set(excludes.get("caps") or []) & set(CAPABILITIES)
        and arch not in (excludes.get("arches") or [])
    )


def seccomp(profile: str, rule: str | None) -> dict[str, Any]:
    with open(profile) as file:
        parsed = json.load(file)
    rules = parsed["syscalls"]
    if rule:
        with open(rule) as file:
            rules = [json.load(file), *rules]  # of two rules for a system call, the first counts
    arch, architectures = ARCHITECTURES[platform.machine()]
    kept = ("names", "action", "args", "errnoRet")
    return {
        "defaultAction": parsed["defaultAction"],
        "defaultErrnoRet": parsed["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": [{key: one[key] for key in kept if one.get(key) is not None} for one in rules if applies(one, arch)],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--rule")
    parser.add_argument("--systempaths-unconfined", action="store_true")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("ipc", "mount", "pid", "uts")],
        "seccomp": seccomp(options.profile, options.rule),
    }
    if not options.systempaths_unconfined:
        linux |= {"maskedPaths": MASKED, "readonlyPaths": READ_ONLY}
    none: list[str] = []
    capabilities = {"bounding": CAPABILITIES, "effective": none, "permitted": none, "inheritable": none, "ambient": none}
    process = {
        "user": {"uid": 1000, "gid": 1000},
        "args": options.command,
        "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/spacehost", *options.env],
        "cwd": "/var/lib/spacehost",
        "capabilities": capabilities,
    }
    root = {"path": options.root, "readonly": False}
    print(json.dumps({"ociVersion": "1.0.0", "process": process, "root": root, "hostname": "container", "mounts": MOUNTS, "linux": linux}))


main()
