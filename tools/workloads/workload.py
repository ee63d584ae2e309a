#!/usr/bin/env python3
"""Small Python programs whose use of the GIL is known in advance.

    workload.py NAME [options]        workload.py --help        workload.py NAME --help

cpu1, io1, cpu2, io4 and yield2 are what `giltop demo` records and explains. The others were made for
the tests: each brings about one thing that giltop must see. Runs on CPython 3.6 to 3.15, on Linux,
with the standard library alone.

--truth FILE writes what the program knows about itself, as one line of JSON:

    {"workload": "cpu2", "python": "3.11.7", "pid": 1, "scale": 1.0, "switch_interval_s": 0.005,
     "steal_s": 0.0, "irq_s": 0.0,
     "threads": [{"tid": 1, "name": "MainThread", "start": 1.5, "end": 2.5,
                  "oncpu_start_ns": 9, "runnable_start_ns": 9, "counted_from": 1.5,
                  "oncpu_ns": 99, "runnable_ns": 9, ...}, ...],
     "children": [{"pid": 2, "how": "os.fork", "status": 0}, ...], ...}

start and end are CLOCK_BOOTTIME. oncpu_ns is the kernel's count of the thread's time on a CPU from
its creation, runnable_ns that of its time in a run queue; the thread reads both as its very last act,
and as its first, which is over at counted_from.
Threads are listed as they began, children as they were reaped. steal_s and irq_s are what the
hypervisor and interrupts took, on all CPUs together, from start to end of the main thread: the
kernel may leave them out of oncpu_ns. Other fields belong to a workload: see its function.
"""

import argparse
import json
import os
import platform
import signal
import sys
import threading
import time

CLOCK_BOOTTIME = 7  # time.CLOCK_BOOTTIME is 3.7+
CLOCK_THREAD_CPUTIME_ID = 3
HUNDREDTHS = 100


# ---- Ground truth ----


def boot_time():
    return time.clock_gettime(CLOCK_BOOTTIME)


def native_id():
    if hasattr(threading, "get_native_id"):  # 3.8+
        return threading.get_native_id()
    return int(os.path.basename(os.readlink("/proc/thread-self")))


def schedstat(tid):
    """Nanoseconds (on a CPU, in a run queue) of one of our threads."""
    # The file alone is behind by up to a clock tick. To read a thread's CPU clock brings the count
    # behind both up to date.
    time.clock_gettime(CLOCK_THREAD_CPUTIME_ID)
    fd = os.open("/proc/self/task/%d/schedstat" % tid, os.O_RDONLY)
    try:
        on_cpu, runnable, _ = os.read(fd, 100).split()
    finally:
        os.close(fd)
    return int(on_cpu), int(runnable)


def steal_and_irq():
    with open("/proc/stat") as stat:
        fields = stat.readline().split()[1:]
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[7]) / ticks, (int(fields[5]) + int(fields[6])) / ticks


class Truth:
    """Collects what --truth writes; without --truth it does nothing, so as not to add to the work."""

    def __init__(self, path, **about):
        self.about = dict(about, python=platform.python_version(), pid=os.getpid())
        self.children = []
        self.threads = []
        self.fd = None
        if path == "-":
            self.fd = 2
        elif path is not None:
            self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def add(self, **facts):
        self.about.update(facts)

    def thread_begins(self):
        """The record of the calling thread; a workload may add fields of its own to it."""
        if self.fd is None:
            return {}
        tid = native_id()
        thread = {"tid": tid, "name": threading.current_thread().name, "start": boot_time()}
        thread["oncpu_start_ns"], thread["runnable_start_ns"] = schedstat(tid)
        thread["counted_from"] = boot_time()
        self.threads.append(thread)
        return thread

    def thread_ends(self, thread):
        if self.fd is not None:
            thread["end"] = boot_time()
            thread["oncpu_ns"], thread["runnable_ns"] = schedstat(thread["tid"])

    def main_begins(self):
        self.main = self.thread_begins()
        self.taken_at_start = steal_and_irq()

    def main_ends(self):
        if self.fd is None:
            return
        steal, irq = steal_and_irq()
        self.add(steal_s=steal - self.taken_at_start[0], irq_s=irq - self.taken_at_start[1])
        self.about["children"] = self.children
        self.about["threads"] = self.threads
        self.thread_ends(self.main)
        os.write(self.fd, (json.dumps(self.about) + "\n").encode())


# ---- Threads and children ----

truth = None  # the Truth of this run, set by main()
started = None  # what to call when run_threads() has started its threads, set by main()
alive = set()  # pids of the children not yet reaped


def run_threads(*jobs):
    """Runs each (name, function, arguments...) in a thread of its own and joins them all. The function
    is given the thread's record first."""
    failed = []

    def run(function, *args):
        record = truth.thread_begins()
        try:
            function(record, *args)
        except BaseException:
            failed.append(threading.current_thread().name)
            raise
        finally:
            truth.thread_ends(record)

    threads = [threading.Thread(target=run, args=job[1:], name=job[0]) for job in jobs]
    for thread in threads:
        thread.start()
    started()
    for thread in threads:
        thread.join()
    if failed:  # Python has printed why
        sys.exit("workload: failed in thread " + ", ".join(failed))


def fork(child):
    """Forks; the child runs child() and exits. Returns its pid, to be reaped."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    alive.add(pid)
    return pid


def reap(how, pid):
    _, status = os.waitpid(pid, 0)
    alive.discard(pid)
    truth.children.append({"pid": pid, "how": how, "status": status})


def kill_children():
    for pid in alive.copy():
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except OSError:  # gone already
            pass
    alive.clear()


# ---- The five workloads of the demo ----


def cpu_task(record, numbers):
    import random

    min([random.random() * 100 for _ in range(numbers)])


def cpu_task_in_hundredths(record, numbers, between=lambda: None):
    import random

    lows = []
    for _ in range(HUNDREDTHS):
        lows.append(min([random.random() * 100 for _ in range(numbers // HUNDREDTHS)]))
        between()
    min(lows)


def io_task(record, seconds):
    time.sleep(seconds)


def cpu_numbers(args):
    return max(HUNDREDTHS, int(20000000 * args.scale))


def cpu_task_that_fits(args, tasks):
    """A task's list takes 32 bytes a number: 640 MB at full size. On a machine too small for it, the
    task makes the same numbers in a hundred lists, one after another."""
    with open("/proc/meminfo") as meminfo:
        available = [int(line.split()[1]) * 1024 for line in meminfo if "MemAvailable" in line]
    import random  # else one of the threads would wait for the other's import of it

    if available and available[0] < 40 * cpu_numbers(args) * tasks:
        print("workload: little memory: makes its lists in hundredths", file=sys.stderr)
        return cpu_task_in_hundredths
    return cpu_task


def cpu1(args):
    """two CPU tasks (20 million random numbers, the least of them), one after the other"""
    task = cpu_task_that_fits(args, 1)
    for _ in range(2):
        task(truth.main, cpu_numbers(args))


def io1(args):
    """four I/O tasks (a sleep of 0.5 s), one after another"""
    for _ in range(4):
        io_task(truth.main, 0.5 * args.scale)


def cpu2(args):
    """the two CPU tasks in two threads"""
    task = cpu_task_that_fits(args, 2)
    run_threads(*[("cpu-%d" % i, task, cpu_numbers(args)) for i in (1, 2)])


def io4(args):
    """the four I/O tasks in four threads"""
    run_threads(*[("io-%d" % i, io_task, 0.5 * args.scale) for i in (1, 2, 3, 4)])


def yield2(args):
    """the two CPU tasks in two threads that time.sleep(0) after each hundredth of the work"""
    numbers = cpu_numbers(args)
    run_threads(*[("yield-%d" % i, cpu_task_in_hundredths, numbers, lambda: time.sleep(0))
                  for i in (1, 2)])


# ---- Ground truth by construction, for the tests ----


def compute(rounds):
    total = 0
    for i in range(rounds):
        total += i * i
    return total


def asleep(args):
    """a thread sleeps 20 ms fifty times with the GIL held (--release: without); another computes

    Truth: sleeps, sleep_s (of one), gil_held. Threads "sleeper" (slept_s: all its sleeps, by its own
    clock, and what it took to go on) and "computer"."""
    import ctypes

    library = (ctypes.CDLL if args.release else ctypes.PyDLL)(None)  # PyDLL keeps the GIL in calls
    usleep = library.usleep
    sleeps, sleep_us = max(1, round(50 * args.scale)), 20000
    done = threading.Event()

    def sleeper(record):
        slept = 0
        for _ in range(sleeps):
            begun = time.monotonic()
            usleep(sleep_us)
            slept += time.monotonic() - begun
        record["slept_s"] = slept
        done.set()

    def computer(record):
        while not done.is_set():
            compute(100)

    truth.add(sleeps=sleeps, sleep_s=sleep_us / 1e6, gil_held=not args.release)
    run_threads(("sleeper", sleeper), ("computer", computer))


def native(args):
    """two threads do sha256 and zlib.compress, without the GIL, four rounds each

    Truth: of each thread native_cpu_s, its CPU time inside those calls."""
    import hashlib
    import zlib

    data = os.urandom(1 << 20) * max(1, round(64 * args.scale))
    part = memoryview(data)[:len(data) // 4]  # compressing is that much slower

    def work(record):
        record["native_cpu_s"] = 0
        for _ in range(4):
            before = time.clock_gettime(CLOCK_THREAD_CPUTIME_ID)
            hashlib.sha256(data)
            zlib.compress(part, 1)
            record["native_cpu_s"] += time.clock_gettime(CLOCK_THREAD_CPUTIME_ID) - before

    run_threads(("native-1", work), ("native-2", work))


def preempted(args):
    """a thread computes for 1 s, sharing one CPU with a busy process that is not Python

    With --waiter another thread sleeps 1 ms at a time, and needs the GIL in between. Truth: cpu; the
    computer's runnable_ns is the time it was preempted, without a waiter all of it with the GIL.
    Threads "computer" and "sleeper"; child "sh"."""
    import subprocess

    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})  # the child and the thread inherit it
    # The limit of CPU time ends the child even if we are killed and cannot.
    rival = subprocess.Popen(["sh", "-c", "ulimit -t 60; echo; while :; do :; done"],
                             stdout=subprocess.PIPE)
    alive.add(rival.pid)
    rival.stdout.readline()

    def computer(record):
        end = time.monotonic() + args.scale
        while time.monotonic() < end:
            compute(1000)

    def sleeper(record):
        end = time.monotonic() + args.scale
        while time.monotonic() < end:
            time.sleep(0.001)

    truth.add(cpu=cpu)
    try:
        run_threads(("computer", computer), *[("sleeper", sleeper)] * args.waiter)
    finally:
        rival.kill()
        reap("sh", rival.pid)
        rival.returncode = 0  # reaped: tells subprocess not to look for it
        rival.stdout.close()


def turns(args):
    """for 1 s two threads compute

    Threads "computer-1" and "computer-2"."""
    end = time.monotonic() + args.scale

    def computer(record):
        while time.monotonic() < end:
            compute(100)

    run_threads(("computer-1", computer), ("computer-2", computer))


def convoy(args):
    """for 1 s three threads sleep 1 ms at a time, behind one that computes (--native: without the GIL)

    Truth: of each sleeper, sleeps. Threads "sleeper-1" to "sleeper-3" and "computer"."""
    import hashlib

    end = time.monotonic() + args.scale
    data = bytes(1 << 20)

    def sleeper(record):
        record["sleeps"] = 0
        while time.monotonic() < end:
            time.sleep(0.001)
            record["sleeps"] += 1

    def computer(record):
        while time.monotonic() < end:
            hashlib.sha256(data) if args.native else compute(1000)

    run_threads(*[("sleeper-%d" % i, sleeper) for i in (1, 2, 3)], ("computer", computer))


def pingpong(args):
    """for 1 s two threads wake each other by turns (--work: each computes for 3 ms when it is woken)

    Truth: of each thread, turns. Threads "ping" and "pong"."""
    end = time.monotonic() + args.scale
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def player(me):
        def play(record):
            record["turns"] = 0
            while True:
                turns[me].acquire()
                over = time.monotonic()
                turns[1 - me].release()
                if over >= end:
                    return
                record["turns"] += 1
                while args.work and time.monotonic() < over + 0.003:
                    pass
        return play

    run_threads(("ping", player(0)), ("pong", player(1)))


def writers(args):
    """N threads write single bytes to /dev/null for SECONDS: as many GIL cycles as there can be

    Prints "NAME TID WRITES" for each thread; truth: of each thread, writes."""
    fd = os.open("/dev/null", os.O_WRONLY)
    lines = []

    def writer(record, end):
        write, writes = os.write, 0
        while time.monotonic() < end:
            for _ in range(256):
                write(fd, b"x")
            writes += 256
        record["writes"] = writes
        lines.append("%s %d %d" % (threading.current_thread().name, native_id(), writes))

    end = time.monotonic() + args.seconds * args.scale
    run_threads(*[("writer-%d" % (i + 1), writer, end) for i in range(args.threads)])
    print("\n".join(sorted(lines)), flush=True)


def iomix(args):
    """for 1 s two threads pass a byte to and fro, one sleeps 1 ms at a time and one computes

    Truth: of each thread, calls: those of its system calls that let go of the GIL. Threads "ping",
    "pong", "sleeper" and "computer"."""
    to_pong, to_ping = os.pipe(), os.pipe()
    end = time.monotonic() + args.scale

    def ping(record):
        calls = 0
        while time.monotonic() < end:
            os.write(to_pong[1], b"x")
            os.read(to_ping[0], 1)
            calls += 2
        os.close(to_pong[1])
        record["calls"] = calls

    def pong(record):
        calls = 1  # the read that finds the end
        while os.read(to_pong[0], 1):
            os.write(to_ping[1], b"x")
            calls += 2
        record["calls"] = calls

    def sleeper(record):
        calls = 0
        while time.monotonic() < end:
            time.sleep(0.001)
            calls += 1
        record["calls"] = calls

    def computer(record):
        while time.monotonic() < end:
            compute(1000)
        record["calls"] = 0

    run_threads(("ping", ping), ("pong", pong), ("sleeper", sleeper), ("computer", computer))


def interpreters(args):
    """for 1 s two threads compute, each in a sub-interpreter of its own (3.12 and newer)

    With a GIL of its own each, unless --shared. Truth: own_gils; of each thread computed_s, how long
    it computed at least, computed_cpu_s, the CPU time that took, and interpreter_cpu_s, the same with
    the way into its interpreter and out of it."""
    try:
        import _interpreters as module  # 3.13+

        ids = [module.create("legacy" if args.shared else "isolated") for _ in range(2)]
        run_in = module.exec
    except ImportError:
        import _xxsubinterpreters as module  # 3.12

        ids = [module.create(isolated=not args.shared) for _ in range(2)]
        run_in = module.run_string
    code = ("import os, time\nend, before = time.monotonic() + %r, time.thread_time()\n"
            "while time.monotonic() < end: sum(range(1000))\n"
            "os.write(%%d, b'%%%%r' %%%% (time.thread_time() - before))\n" % args.scale)

    def computer(record, id):
        told, tell = os.pipe()
        before = time.clock_gettime(CLOCK_THREAD_CPUTIME_ID)
        run_in(id, code % tell)
        record["interpreter_cpu_s"] = time.clock_gettime(CLOCK_THREAD_CPUTIME_ID) - before
        record["computed_cpu_s"] = float(os.read(told, 100))
        record["computed_s"] = args.scale

    run_threads(*[("computer-%d" % i, computer, id) for i, id in enumerate(ids, 1)])
    truth.add(own_gils=not args.shared)
    for id in ids:
        module.destroy(id)


def forks(args):
    """children by os.fork, os.fork and exec, multiprocessing and subprocess, while a thread computes

    Each child computes in two threads of its own. Thread "computer"."""
    import multiprocessing
    import subprocess
    import warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork with threads
    rounds = max(1, int(1000000 * args.scale))
    code = ("import threading as t\n"
            "def f():\n for i in range(%d): i * i\n"
            "a = [t.Thread(target=f) for _ in range(2)]\n"
            "[x.start() for x in a], [x.join() for x in a]\n" % rounds)
    done = threading.Event()

    def computer(record):
        while not done.is_set():
            compute(1000)

    def child():
        alive.clear()  # they are not ours
        threads = [threading.Thread(target=compute, args=(rounds,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def exec_child():
        alive.clear()
        # With a thread in the middle of its work: exec ends it.
        threading.Thread(target=compute, args=(rounds * 100,), daemon=True).start()
        os.execv(sys.executable, [sys.executable, "-c", code])

    def parent(record):
        try:
            for _ in range(2):
                reap("os.fork", fork(child))
            reap("exec", fork(exec_child))
            together = [fork(child) for _ in range(2)]
            for pid in together:
                reap("os.fork", pid)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            alive.add(process.pid)
            process.join()
            alive.discard(process.pid)
            truth.children.append({"pid": process.pid, "how": "multiprocessing",
                                   "status": process.exitcode})
            process = subprocess.Popen([sys.executable, "-c", code])
            alive.add(process.pid)
            process.wait()
            alive.discard(process.pid)
            truth.children.append({"pid": process.pid, "how": "subprocess",
                                   "status": process.returncode})
        finally:
            done.set()

    run_threads(("computer", computer), ("forker", parent))


def shortthreads(args):
    """a thousand threads that compute for a moment, eight at a time

    Truth: started."""
    batches = max(1, round(125 * args.scale))
    for batch in range(batches):
        run_threads(*[("short-%d" % (8 * batch + i + 1), lambda record: compute(2000))
                      for i in range(8)])
    truth.add(started=8 * batches)


def setswitch(args):
    """two threads compute, 1 s at a switch interval of 5 ms and 1 s at 1 ms

    Truth: intervals, a list of {"at" (CLOCK_BOOTTIME), "switch_interval_s"}."""
    intervals = []
    done = threading.Event()

    def computer(record):
        while not done.is_set():
            compute(1000)

    def setter(record):
        for interval in (0.005, 0.001):
            intervals.append({"at": boot_time(), "switch_interval_s": interval})
            sys.setswitchinterval(interval)
            time.sleep(args.scale)
        done.set()

    truth.add(intervals=intervals)
    run_threads(("computer-1", computer), ("computer-2", computer), ("setter", setter))


# ---- The command line ----

WORKLOADS = [cpu1, io1, cpu2, io4, yield2, asleep, native, preempted, turns, convoy, pingpong,
             writers, iomix, interpreters, forks, shortthreads, setswitch]


def positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def add_arguments(command, function):
    """Those that only one of the WORKLOADS takes."""
    if function is asleep:
        command.add_argument("--release", action="store_true", help="release the GIL to sleep")
    elif function is preempted:
        command.add_argument("--waiter", action="store_true", help="with a thread that wants the GIL")
    elif function is convoy:
        command.add_argument("--native", action="store_true", help="compute in sha256, without the GIL")
    elif function is pingpong:
        command.add_argument("--work", action="store_true", help="compute for 3 ms in each turn")
    elif function is interpreters:
        command.add_argument("--shared", action="store_true", help="all with the main one's GIL")
    elif function is writers:
        command.add_argument("threads", type=int, metavar="N")
        command.add_argument("seconds", type=positive, metavar="SECONDS")


def parse_arguments(description, functions, add_arguments):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--scale", type=positive, default=1.0, metavar="F",
                        help="size of the work: 0.1 is a tenth (default: 1)")
    common.add_argument("--switch-interval", type=positive, metavar="SEC",
                        help="call sys.setswitchinterval(SEC) first")
    common.add_argument("--truth", metavar="FILE",
                        help="write what is known of the run as JSON (-: to stderr)")
    common.add_argument("--ready", action="store_true",
                        help='print "ready PID", then wait for a line on stdin before the work')
    common.add_argument("--started", action="store_true",
                        help='print "started PID" as soon as the threads run; wait for nothing')

    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="workload", metavar="NAME")
    commands.required = True  # as an argument: 3.7+
    for function in functions:
        command = commands.add_parser(function.__name__, parents=[common],
                                      help=function.__doc__.splitlines()[0],
                                      description=function.__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(function=function)
        add_arguments(command, function)
    return parser.parse_args()


def on_signal(number, frame):
    kill_children()
    os._exit(128 + number)


def main(description=__doc__, functions=WORKLOADS, add_arguments=add_arguments):
    """Runs what the command line names of the functions; measured.py has its own."""
    global truth, started
    args = parse_arguments(description, functions, add_arguments)
    if args.switch_interval is not None:
        sys.setswitchinterval(args.switch_interval)
    try:
        truth = Truth(args.truth, workload=args.workload, scale=args.scale,
                      switch_interval_s=sys.getswitchinterval())
    except OSError as error:
        sys.exit("workload: cannot write %s: %s" % (args.truth, error.strerror))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if args.ready:
        print("ready %d" % os.getpid(), flush=True)
        sys.stdin.readline()

    announced = []

    def announce():
        if args.started and not announced:
            announced.append(True)
            print("started %d" % os.getpid(), flush=True)

    started = announce
    truth.main_begins()
    try:
        args.function(args)
    finally:
        kill_children()
    if args.truth is not None:
        # Not through the interpreter's own end, which would go on computing after the last reading.
        truth.main_ends()
        os._exit(0)


if __name__ == "__main__":
    main()
