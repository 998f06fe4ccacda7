"""What Linux knows: how busy the machine is, what CPU time and memory a process uses, and what machine it is."""

import ctypes
import os
import platform
import time
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


def cpus():
    """The CPUs this process may use: the first for what is measured, the others for what stands around it.

    With one CPU, both share it.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[:1], allowed[1:] or allowed


def cpu_seconds(root):
    """CPU time of a process, its threads and all its descendants, the ended ones too, in seconds."""
    return sum(_used(pid) for pid in _tree(root))


def memory_kib(root):
    """Memory of a process and all its descendants, in KiB. What several share is divided among them (PSS)."""
    return sum(_memory(pid) for pid in _tree(root))


def machine_seconds():
    """CPU seconds of the whole machine since boot: (busy, stolen by the hypervisor, all with idle)."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) * _TICK for field in fields)
    busy = user + nice + system + irq + softirq
    return busy, steal, busy + steal + idle + iowait


def load(seconds):
    """The share of all CPUs that is in use or stolen, over some seconds from now: 0 to 1."""
    busy, steal, everything = machine_seconds()
    time.sleep(seconds)
    busy_later, steal_later, everything_later = machine_seconds()
    return (busy_later + steal_later - busy - steal) / (everything_later - everything)


def description(folder):
    """The machine in words, for the record. `folder` is where the databases are."""
    cpu = dict(_pairs("/proc/cpuinfo"))
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in cpu.get("flags", "").split(),
        "memory_mib": int(dict(_pairs("/proc/meminfo"))["MemTotal"].split()[0]) // 1024,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "file_system": _file_system(folder),
    }


def _used(pid):
    # The process's clock is utime + stime of /proc/PID/stat in nanoseconds instead of ticks of 10 ms, threads
    # that have ended included. Children that have ended are only in stat.
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock)) != 0:
        return 0.0
    try:
        return time.clock_gettime(clock.value) + sum(int(field) for field in _stat(pid)[13:15]) * _TICK
    except OSError:
        # It ended just now, and is in its parent's children from here on.
        return 0.0


def _memory(pid):
    try:
        return int(dict(_pairs(f"/proc/{pid}/smaps_rollup"))["Pss"].split()[0])
    except (OSError, KeyError):
        # It ended just now.
        return 0


def _tree(root):
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(entry)[1]), []).append(int(entry))
            except OSError:
                continue
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def _stat(pid):
    """The fields of /proc/PID/stat after the name, which may hold blanks: ppid is [1], cutime is [13]."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pairs(path):
    for line in Path(path).read_text().splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _file_system(folder):
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    above = [mount for mount in mounts if Path(folder).is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2]
