"""The machine, and the Python on it that is traced."""

import glob
import os
import shutil
import time

import jobs

# The interpreter itself and, of a shared build, its libpython.
ASK = """
import platform, sys
print(platform.python_version())
print(sys.executable)
print(sys.base_prefix)
print(sys.base_exec_prefix)
for line in open("/proc/self/maps"):
    path = line.split(None, 5)[-1].strip()
    if "/libpython" in path:
        print(path)
        break
"""


class Setup:
    """What a run needs to know."""

    def __init__(self, build, folder, python):
        self.giltop = os.path.join(build, "giltop")
        self.floor = os.path.join(build, "tools/bench/giltop_bench_floor")
        self.http_load = os.path.join(build, "tools/bench/giltop_bench_http_load")
        self.workload = os.path.join(os.path.dirname(__file__), "../../workloads/measured.py")
        self.folder = folder
        self.python = python

    def path(self, name):
        return os.path.join(self.folder, name)


class Python:
    """`command` runs it; `gil_file` is the ELF file that has its GIL."""

    def __init__(self, command, version, program, prefix, exec_prefix, library=None):
        # A pyenv shim is a shell script: the Python behind it.
        self.command = [program] if len(command) == 1 else command
        self.version = version
        self.home = f"{prefix}:{exec_prefix}"
        self.is_shared = library is not None
        self.gil_file = os.path.realpath(library or program)
        self.has_symbols = has_symbols(self.gil_file)

    def copied_to(self, folder):
        """The same with a copy of that file: probes of others are not in it, and ours in nobody
        else's, this program's own Python included."""
        copy = os.path.join(folder, os.path.basename(self.gil_file))
        shutil.copy(self.gil_file, copy)
        # A library that is there already serves for its name, wherever else it may be found.
        words = ([f"LD_PRELOAD={copy}", *self.command] if self.is_shared
                 else [f"PYTHONHOME={self.home}", copy])
        found = ask(["env", *words])
        if not found or found.gil_file != os.path.realpath(copy):
            raise jobs.Failed(f"a copy of {self.gil_file} does not work")
        return found


def ask(command):
    """What it is, or None if it is not a Python 3."""
    try:
        lines = jobs.run([*command, "-c", ASK], 10).splitlines()
        return Python(command, *lines) if lines[0].startswith("3.") and lines[1] else None
    except (jobs.Failed, IndexError, TypeError):
        return None


def has_symbols(path):
    """Whether bpftrace and perf find take_gil and drop_gil in .symtab, the only names they know."""
    if not shutil.which("nm"):
        return False
    try:
        lines = jobs.run(["nm", path], 30).split("\n")
    except jobs.Failed:
        return False
    names = {line.split()[-1] for line in lines if " t " in line.lower()}
    return {"take_gil", "drop_gil"} <= names


def candidates():
    yield from filter(None, [shutil.which("python3")])
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield from sorted(glob.glob(root + "/versions/3.*/bin/python3"), reverse=True)
    for folder in os.environ.get("PATH", "").split(":"):
        yield from sorted(glob.glob(folder + "/python3.?") + glob.glob(folder + "/python3.??"))


def choose_python(wanted):
    """The one asked for, or the first with the symbols that the others need, or the first."""
    first = None
    for path in [wanted] if wanted else candidates():
        found = ask([path])
        if not found:
            continue
        first = first or found
        if wanted or found.has_symbols:
            return found
    if not first:
        raise jobs.Failed(f"{wanted} is not a Python 3" if wanted else "no Python 3 was found")
    return first


def cpu_model():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown CPU"


class Disturbance:
    """What of all CPUs' time, since this was made, went to others than us and those we started."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        """CPU seconds: all, busy, stolen by the hypervisor, ours."""
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        all_s, idle_s, stolen_s = (ticks / os.sysconf("SC_CLK_TCK")
                                   for ticks in (sum(fields), fields[3] + fields[4], fields[7]))
        return all_s, all_s - idle_s - stolen_s, stolen_s, sum(os.times()[:4])

    def shares(self):
        """(of other programs, of the hypervisor)"""
        all_s, busy_s, stolen_s, own_s = (b - a for a, b in zip(self.start, self.now()))
        return max(0.0, busy_s - own_s) / (all_s or 1), stolen_s / (all_s or 1)


def today():
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
