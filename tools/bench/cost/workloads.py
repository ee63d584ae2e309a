"""The workloads of tools/workloads/measured.py: those that measure themselves, a process a run, and
those that are measured from outside in windows of time, one process under all tracers in turn."""

import contextlib
import http.client
import json
import mmap
import os
import time

import jobs

HTTP_RATE = 400  # pages a second; the server takes some 0.5 ms of CPU for one


class Metric:
    def __init__(self, title, unit, scale):
        self.title, self.unit, self.scale = title, unit, scale


class Run:
    """A run, or a window: `values`: of each metric, in seconds. `cpu_s`: CPU time that one piece of
    work took the program, of `total` that it did, the warm-up included."""

    def __init__(self, values, cpu_s, total):
        self.values, self.cpu_s, self.total = values, cpu_s, total


class Workload:
    in_windows = False
    acquires = 1  # of the GIL, at least, that a piece of its work has

    def __init__(self, name, words, metrics):
        self.name, self.words, self.metrics = name, words, metrics

    def command(self, setup, *options):
        return [*setup.python.command, setup.workload, *self.words, *options]


class Whole(Workload):
    def run(self, setup, prefix, seconds):
        truth_file = setup.path("truth.json")
        job = jobs.Job([*prefix, *self.command(
            setup, "--seconds", str(seconds), "--warm-up", str(min(0.2, seconds)),
            "--truth", truth_file)])
        try:
            job.finish(60 + 20 * seconds)
            with open(truth_file) as file:
                truth = json.load(file)
            return Run({self.name: truth["unit_s"]}, truth["unit_cpu_s"], truth["total"])
        except (OSError, ValueError, KeyError) as error:
            raise jobs.Failed(f"{self.name}: no truth: {error}") from error
        finally:
            job.kill()
            if os.path.exists(truth_file):
                os.unlink(truth_file)


class InWindows(Workload):
    in_windows = True

    @contextlib.contextmanager
    def started(self, setup):
        """A process that does its work: has its `pid`, and a window() that measures so many seconds
        of it after a warm-up: a Run."""


class CpuThreads:
    def __init__(self, pid, counts):
        self.pid, self.counts = pid, counts

    def now(self):
        cpu_clock = ~self.pid << 3 | 2  # that of the process
        return time.monotonic(), time.clock_gettime(cpu_clock), sum(self.counts)

    def window(self, warm_up, seconds):
        before = sum(self.counts)
        time.sleep(warm_up)
        start, start_cpu_s, start_count = self.now()
        time.sleep(seconds)
        end, end_cpu_s, end_count = self.now()
        count = end_count - start_count
        if not count:
            raise jobs.Failed("cpu2: it stands still")
        return Run({"cpu2": (end - start) / count}, (end_cpu_s - start_cpu_s) / count,
                   end_count - before)


class Cpu2(InWindows):
    acquires = 0.001  # one in 5 ms, the switch interval, in which it does fewer than 1000 pieces

    def __init__(self):
        super().__init__("cpu2", ["cpu2"],
                         {"cpu2": Metric("two CPU threads, 1000 numbers", "µs", 1e6)})

    @contextlib.contextmanager
    def started(self, setup):
        path = setup.path("counts")
        job = jobs.Job(self.command(setup, "--seconds", "1e9", "--counts", path, "--started"))
        try:
            job.line("started ", 30)
            with open(path, "rb") as file, \
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared, \
                    memoryview(shared) as raw, raw.cast("Q") as counts:
                yield CpuThreads(job.process.pid, counts)
        finally:
            job.kill()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class Server:
    def __init__(self, setup, pid, port):
        self.setup, self.pid, self.port = setup, pid, port

    def window(self, warm_up, seconds):
        told = json.loads(jobs.run([self.setup.http_load, self.port, str(HTTP_RATE), str(warm_up),
                                    str(seconds), str(self.pid)], 60 + 20 * seconds))
        if told["errors"]:
            raise jobs.Failed(f"http: {told['errors']} pages failed")
        return Run({"http.p50": told["p50_s"], "http.p99": told["p99_s"]},
                   told["cpu_s"] / told["pages"], told["total"])


class Http(InWindows):
    def __init__(self):
        what = f"HTTP, {HTTP_RATE} pages/s"
        super().__init__("http", ["http"], {"http.p50": Metric(f"{what}, p50", "µs", 1e6),
                                            "http.p99": Metric(f"{what}, p99", "µs", 1e6)})

    @contextlib.contextmanager
    def started(self, setup):
        truth_file = setup.path("truth.json")
        job = jobs.Job(self.command(setup, "--truth", truth_file))
        try:
            port = job.line("port ", 30)
            yield Server(setup, job.process.pid, port)
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            connection.request("GET", "/end")
            connection.getresponse().read()
            connection.close()
            job.finish(20)
            with open(truth_file) as file:
                errors = json.load(file)["errors"]
            if errors:
                raise jobs.Failed(f"http: the server failed {errors} times")
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            raise jobs.Failed(f"http: no truth: {error}") from error
        finally:
            job.kill()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(truth_file)


def writers(threads):
    plural = "s" if threads > 1 else ""
    name = f"writers{threads}"
    return Whole(name, ["writers", str(threads)],
                 {name: Metric(f"os.write, {threads} thread{plural}, a call", "ns", 1e9)})


WORKLOADS = [writers(1), writers(2), writers(4), Cpu2(), Http(),
             Whole("sqlite", ["sqlite"],
                   {"sqlite": Metric("sqlite3, 2 threads, a query", "ns", 1e9)})]
